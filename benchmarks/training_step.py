"""Compare a training step of a small tower with timm's, and with that of another checkout, in float32 and bfloat16.

    python benchmarks/training_step.py
    git worktree add /tmp/before COMMIT && python benchmarks/training_step.py --before /tmp/before --peer before:float32

Forward and backward pass of a Core tower of 3.2 M parameters: 6 blocks of 192 channels with 3 heads, patches of 8 px,
class token and attention pooling; by default 256 images of 64 px. timm's rows are its `VisionTransformer` of that size
with attention pooling, but without rotary positions; in bfloat16 without its fused attention, which is slow there.
Each row runs in its own process, and the processes take turns. `times faster` is the time of the row `--peer` divided
by the row's, the median over rounds; `CPU ms` is the processor time of all threads, which other programs affect less.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SIZE = dict(width=192, layers=6, heads=3, patch_size=8)


def make_tower(kind: str, dtype: str, image_size: int):
    """Return a function from images to pooled embeddings, and the module."""
    if kind == "timm":
        import timm

        if dtype == "bfloat16":
            timm.layers.set_fused_attn(False)
        tower = timm.models.VisionTransformer(
            img_size=image_size,
            patch_size=SIZE["patch_size"],
            embed_dim=SIZE["width"],
            depth=SIZE["layers"],
            num_heads=SIZE["heads"],
            global_pool="map",
            num_classes=256,
        )
        return tower, tower
    from pe_dense.backbones import PETower

    arch = dict(SIZE, mlp_ratio=4.0, image_size=image_size, use_cls_token=True, pool_type="attn", output_dim=256)
    tower = PETower(dict(arch, attn_pooler_heads=SIZE["heads"]))
    return tower.forward_pooled, tower


def work(kind: str, dtype: str, args: argparse.Namespace) -> None:
    """Run a step for each line of the standard input, and print its seconds and processor seconds."""
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    embed, tower = make_tower(kind, dtype, args.size)
    tower.train()
    images = torch.randn(args.batch, 3, args.size, args.size)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = embed(images).float().square().mean()
        loss.backward()
        tower.zero_grad()
        print(time.perf_counter() - start, time.process_time() - cpu, flush=True)


def step(process: subprocess.Popen) -> tuple[float, float]:
    print("step", file=process.stdin, flush=True)
    seconds, cpu = process.stdout.readline().split()
    return float(seconds), float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout of this repository, for the rows `before`")
    parser.add_argument("--peer", default="timm:float32", help="row that others are compared with (timm:float32)")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=64, help="side of the images in px (64)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (7)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/training_step.json"))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work, args)
    else:
        compare(parser, args)


def compare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Measure all rows in turns and write the table."""
    from utils import start_row, write_step_table

    kinds = ["before", "pe_dense", "timm"] if args.before else ["pe_dense", "timm"]
    names = [f"{kind}:{dtype}" for dtype in args.dtype for kind in kinds]
    if args.peer not in names:
        parser.error(f"--peer {args.peer} is not one of {', '.join(names)}")
    processes = {}
    for name in names:
        kind, dtype = name.split(":")
        arguments = ["--work", kind, dtype, "--batch", args.batch, "--size", args.size]
        before = args.before if kind == "before" else None
        processes[name] = start_row(__file__, arguments, args.threads, before)
    measured = {name: [] for name in names}
    try:
        for number in range(args.repeats + 2):
            for name, process in processes.items():
                seconds = step(process)
                if number >= 2:  # after two rounds of warm-up
                    measured[name].append(seconds)
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()
    write_step_table(measured, args.peer, args.output, args.batch, px=args.size)


if __name__ == "__main__":
    main()
