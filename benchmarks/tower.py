"""Compare PETower with timm's tower with the same weights: time and memory, forward and training, eager and compiled.

    python benchmarks/tower.py --arch PE-Spatial-T16-512 --batch 4
    python benchmarks/tower.py --arch PE-Spatial-G14-448 --device cuda --dtype bfloat16

If the environment variable PERCEPTION_MODELS names a checkout of facebookresearch/perception_models, its tower runs in
the same rounds. `times faster` is timm's time divided by ours, the median over rounds. On a GPU, the fraction of the
throughput of a matrix product, measured in the same run, is printed, too.
"""

import argparse
import os
import sys
from pathlib import Path

from utils import in_turns, peak_memory, summary, synchronize, write_table

TASKS = ("forward", "training")
SIZES = {"T16": "tiny", "S16": "small", "B16": "base", "L14": "large", "G14": "gigantic"}


def make_tower(kind: str, arch: str, size: int):
    """Build a tower of a kind with the same random weights for every kind."""
    import torch

    from pe_dense.backbones import PETower

    torch.manual_seed(0)
    tower = PETower(arch)
    if kind == "pe_dense":
        return tower
    if kind == "timm":
        import timm
        from timm.models.eva import checkpoint_filter_fn

        _, family, variant, image_size = arch.removesuffix("-Tiling").split("-")
        name = f"vit_pe_{family.lower()}_{SIZES[variant]}_patch{variant[1:]}_{image_size}"
        other = timm.create_model(name, dynamic_img_size=size != tower.config.image_size)
        if image_size != str(tower.config.image_size):
            raise ValueError(f"timm has no {arch} of {tower.config.image_size} px")
        other.load_state_dict(checkpoint_filter_fn(tower.state_dict(), other))
        return other
    sys.path.insert(0, os.environ["PERCEPTION_MODELS"])
    from core.vision_encoder.pe import VisionTransformer

    other = VisionTransformer.from_config(arch, pretrained=False)
    other.load_state_dict(tower.state_dict())
    return other


def make_run(kind: str, task: str, compiled: bool, options: dict):
    """Return a function that runs a tower once."""
    import torch

    torch.set_num_threads(options["threads"])
    dtype, device, size = getattr(torch, options["dtype"]), options["device"], options["size"]
    tower = make_tower(kind, options["arch"], size).to(device)
    images = torch.randn(options["batch"], 3, size, size, device=device, dtype=torch.float32)
    features = tower.forward_features
    if compiled:
        features = torch.compile(features)
    if task == "forward":
        tower.eval().to(dtype)
        images = images.to(dtype)

        def run():
            with torch.inference_mode():
                return features(images)

        return run
    tower.train()
    autocast = torch.autocast(device.partition(":")[0], dtype, enabled=dtype != torch.float32)

    def run():
        with autocast:
            loss = features(images).float().square().mean()
        loss.backward()
        tower.zero_grad()

    return run


def flops(arch: str, size: int, batch: int) -> float:
    """Count the floating-point operations of a forward pass, matrix products only."""
    from pe_dense.backbones import get_pe_config

    variant = get_pe_config(arch)
    tokens = (size // variant.patch_size) ** 2 + int(variant.use_cls_token)
    width, hidden = variant.width, variant.mlp_width
    block = 2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width
    return batch * (variant.layers * block + 2 * tokens * 3 * variant.patch_size**2 * width)


def matmul_rate(dtype: str, device: str) -> float:
    """Measure the TFLOP/s of a large matrix product."""
    import time

    import torch

    a = torch.randn(8192, 8192, device=device, dtype=getattr(torch, dtype))
    for _ in range(3):
        a @ a
    synchronize(device)
    start = time.perf_counter()
    for _ in range(20):
        a @ a
    synchronize(device)
    return 20 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["PE-Spatial-T16-512"])
    parser.add_argument("--size", type=int, help="side of the images in px (native size of the tower)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--compile", action="store_true", help="measure compiled towers, too")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="only times")
    parser.add_argument("--repeats", type=int, default=7, help="turns (7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/tower.json"))
    args = parser.parse_args()

    from pe_dense.backbones import get_pe_config

    kinds = ["pe_dense", "timm", *(["reference"] if os.environ.get("PERCEPTION_MODELS") else [])]
    on_gpu = args.device != "cpu"
    peak = matmul_rate(args.dtype, args.device) if on_gpu else None
    rows = []
    for arch in args.arch:
        size = args.size or get_pe_config(arch).image_size
        options = dict(
            arch=arch, size=size, batch=args.batch, device=args.device, dtype=args.dtype, threads=args.threads
        )
        for task in args.tasks:
            for compiled in (False, True) if args.compile else (False,):
                runs = {kind: make_run(kind, task, compiled, options) for kind in kinds}
                seconds = in_turns(runs, args.repeats, args.device)
                for kind, values in summary(seconds, peer="timm").items():
                    row = dict(
                        arch=arch, px=size, batch=args.batch, task=task, mode="compiled" if compiled else "eager"
                    )
                    row.update(tower=kind, **values)
                    if args.memory:
                        row["peak MB"] = round(peak_memory(make_run, kind, task, compiled, options, device=args.device))
                    if on_gpu:
                        passes = 1 if task == "forward" else 3
                        rate = passes * flops(arch, size, args.batch) / (values["ms"] / 1e3) / 1e12
                        row.update({"TFLOP/s": round(rate, 1), "of matmul": round(rate / peak, 2)})
                    rows.append(row)
                del runs
    write_table(rows, args.output, dtype=args.dtype, device=args.device, threads=args.threads)


if __name__ == "__main__":
    main()
