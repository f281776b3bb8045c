"""Measure a training step of linear probes: one layer, all layers at once, and the upsampled loss.

    python benchmarks/probing.py --arch PE-Spatial-B16-512 --size 512 --batch 2
    python benchmarks/probing.py --arch PE-Spatial-G14-448 --size 448 --batch 16 --device cuda --dtype bfloat16

Rows run alternately in one process, so that other load affects them equally; times are medians, ratios are within a
round. Weights and images are random. `mmseg's loss` upsamples all logits, then computes their cross-entropy.
"""

import argparse
from functools import partial
from pathlib import Path

from utils import in_turns, summary, write_table

ONE = "one layer"


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="PE-Spatial-B16-512")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels (512)")
    parser.add_argument("--batch", type=int, default=2, help="images per step (2)")
    parser.add_argument("--classes", type=int, default=150, help="classes (150, ADE20k's)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, after one for warm-up (3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the tower")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/probing.json"))
    return parser.parse_args()


def make_step(kind: str, taps, mmsegs_loss: bool, args):
    """Return a function that trains one step."""
    from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    from pe_dense.segmentation import LinearHead

    model = MODELS.build(
        dict(
            type=f"pe_dense.Segmentation{kind}",
            data_preprocessor=dict(
                type="pe_dense.ProbePreprocessor", mean=[127.5] * 3, std=[127.5] * 3, size=(args.size, args.size)
            ),
            backbone=dict(type="pe_dense.FrozenTower", arch=args.arch, out_indices=taps, dtype=args.dtype),
            decode_head=dict(type="pe_dense.LinearHead", num_classes=args.classes),
        )
    )
    model = model.to(args.device).train()
    if mmsegs_loss:
        for head in [module for module in model.modules() if isinstance(module, LinearHead)]:
            head.loss_by_feat = partial(BaseDecodeHead.loss_by_feat, head)
    constructor = "pe_dense.SweepOptimWrapperConstructor" if kind == "Sweep" else "DefaultOptimWrapperConstructor"
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(type=constructor, optim_wrapper_cfg=dict(optimizer=dict(type="AdamW", lr=1e-3)))
    )(model)
    return partial(model.train_step, make_batch(args), wrapper)


def make_tower(args):
    """Return a function that runs the tower alone."""
    import torch

    from pe_dense.backbones import FrozenTower

    tower = FrozenTower(args.arch, dtype=args.dtype).to(args.device)
    return partial(tower, torch.randn(args.batch, 3, args.size, args.size, device=args.device))


def make_batch(args) -> dict:
    import torch
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    size = (args.size, args.size)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(args.batch)]
    labels = [torch.randint(0, args.classes, (1, *size)) for _ in range(args.batch)]
    return dict(inputs=images, data_samples=[SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels])


def main():
    args = parse_args()
    import torch
    from mmengine.registry import init_default_scope

    import pe_dense  # noqa: F401
    from pe_dense.backbones import get_pe_config

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    init_default_scope("mmseg")
    layers = get_pe_config(args.arch).layers
    runs = {
        "tower alone": make_tower(args),
        ONE: make_step("Probe", (-1,), False, args),
        f"{layers} layers": make_step("Sweep", None, False, args),
        f"{ONE}, mmseg's loss": make_step("Probe", (-1,), True, args),
        f"{layers} layers, mmseg's loss": make_step("Sweep", None, True, args),
    }
    found = summary(in_turns(runs, args.repeats, args.device), ONE)
    rows = [
        dict(step=name, ms=row["ms"], quartiles=row["quartiles"], to_one_layer=round(1 / row["times_faster"], 2))
        for name, row in found.items()
    ]
    facts = {name: getattr(args, name) for name in ("arch", "size", "batch", "classes", "threads", "device", "dtype")}
    write_table(rows, args.out, torch=torch.__version__, **facts)


if __name__ == "__main__":
    main()
