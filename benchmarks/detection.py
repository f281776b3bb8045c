"""Measure time and peak memory of Mask R-CNN: activation checkpointing, window partition and torch.compile.

    python benchmarks/detection.py --arch PE-Spatial-T16-512 --size 512
    python benchmarks/detection.py --arch PE-Spatial-G14-448 --size 1024 --device cuda --dtype bfloat16

Memory (beyond that of the built model) is measured in a separate process per row; for time, all rows of a kind run
alternately in one process, so that other load affects them equally. `times_faster` is relative to the first row of the
kind.
"""

import argparse
from contextlib import contextmanager
from pathlib import Path

from utils import in_turns, peak_memory, summary, write_table

# kind, row, tower options, windows partitioned in every block, compiled
ROWS = [
    ("tower forward", "window order kept", {}, False, False),
    ("tower forward", "partition in every block", {}, True, False),
    ("tower forward", "compiled", {}, False, True),
    ("detector forward", "window order kept", {}, False, False),
    ("detector forward", "partition in every block", {}, True, False),
    ("training step", "checkpointed", dict(with_cp=True), False, False),
    ("training step", "plain", dict(with_cp=False), False, False),
    ("training step", "tower compiled", dict(with_cp=False), False, True),
]


@contextmanager
def partition_everywhere(active: bool):
    """Make every block partition and unpartition its own windows."""
    from pe_dense.backbones.attention import Windows

    fits = Windows.fits
    if active:
        Windows.fits = property(lambda self: False)
    try:
        yield
    finally:
        Windows.fits = fits


def make_run(kind: str, options: dict, compiled: bool, args):
    """Return a function that runs a row once."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    import pe_dense  # noqa: F401

    torch.manual_seed(0)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    config = Config.fromfile(Path(__file__).parents[1] / "configs" / "coco_maskrcnn_pe_b16.py")
    init_default_scope(config.default_scope)
    from pe_dense.backbones import get_pe_config

    variant = get_pe_config(args.arch)
    quarter = variant.layers // 4
    config.model.merge(
        dict(
            data_preprocessor=dict(pad_size_divisor=args.size),
            backbone=dict(
                arch=args.arch,
                img_size=args.size,
                window_size=args.window,
                global_blocks=tuple(quarter * i - 1 for i in (1, 2, 3, 4)),
                init_cfg=None,
                **options,
            ),
            neck=dict(in_channels=variant.width),
        )
    )
    with device:
        model = MODELS.build(config.model).to(device)
    if compiled:
        model.backbone.compile()
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    if kind == "training step":
        return training_step(model.train(), images, autocast)
    model.eval()

    def forward():
        with torch.inference_mode(), autocast:
            return model.backbone(images) if kind == "tower forward" else model.predict(images, samples(images))

    return forward


def samples(images, objects: int = 0):
    """Create data samples of square images with some boxes and masks."""
    import numpy as np
    import torch
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    size = images.shape[-1]
    meta = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size), scale_factor=(1.0, 1.0))
    corner = torch.linspace(0, size / 2, objects, device=images.device)
    boxes = torch.stack([corner, corner, corner + size / 4, corner + size / 3], dim=1)
    masks = np.zeros((objects, size, size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    result = []
    for _ in images:
        sample = DetDataSample(metainfo=meta)
        labels = torch.arange(objects, device=images.device) % 80
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks, size, size))
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
        result.append(sample)
    return result


def training_step(model, images, autocast):
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step():
        with autocast:
            loss, _ = model.parse_losses(model.loss(images, samples(images, objects=10)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_row(index: int, args):
    """Return a function that runs a row of ROWS once."""
    kind, _, options, everywhere, compiled = ROWS[index]
    with partition_everywhere(everywhere):
        run = make_run(kind, options, compiled, args)

    def run_so():
        with partition_everywhere(everywhere):
            run()

    return run_so


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="PE-Spatial-T16-512")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels (512)")
    parser.add_argument("--window", type=int, default=16, help="side of a window in patches (16; published: 32)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--repeats", type=int, default=5, help="number of runs (5)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="skip torch.compile")
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/detection.json"))
    args = parser.parse_args()

    table = []
    for kind in dict.fromkeys(row[0] for row in ROWS):
        indices = {row[1]: index for index, row in enumerate(ROWS) if row[0] == kind and (args.compile or not row[4])}
        seconds = in_turns({name: make_row(index, args) for name, index in indices.items()}, args.repeats, args.device)
        for name, values in summary(seconds, peer=next(iter(indices))).items():
            memory = peak_memory(make_row, indices[name], args, device=args.device)
            table.append({"kind": kind, "row": name, **values, "peak MB": round(memory)})
    facts = {name: str(value) for name, value in vars(args).items()}
    write_table(table, args.output, **facts)


if __name__ == "__main__":
    main()
