"""Compare training iterations of the demo's detector with another checkout's, and with torchvision's Mask R-CNN.

    python benchmarks/detector_step.py
    git worktree add /tmp/before COMMIT && python benchmarks/detector_step.py --before /tmp/before

An iteration is all that training does: reading and mirroring 8 images of 128 px in the same process, forward and
backward pass, optimizer, schedules and log. The detector is that of `configs/shapes_maskrcnn_pe_tiny.py`, with random
weights of its frozen backbone; `before` is the same config in the other checkout. torchvision's row is its `MaskRCNN`
with a frozen `VisionTransformer` of timm, and a pyramid, heads, norms, proposals and samples of the same sizes. Each
row runs in its own process, and the processes take turns of `--iterations`. `times faster` is the time of the row
`--peer` divided by the row's, the median over rounds; `CPU ms` is the processor time of all threads for one iteration.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs" / "shapes_maskrcnn_pe_tiny.py"
BATCH, SIDE, CHANNELS = 8, 128, 64
GENERATOR = dict(num_train=400, num_val=8, difficulty="easy")
TOWER = dict(patch_size=8, width=128, layers=6, heads=4, mlp_ratio=4.0)


def turns(iterations: int) -> Iterator[None]:
    """Let `iterations` pass for each line of the standard input, then print their seconds and processor seconds."""
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(iterations):
            yield
        print("took", time.perf_counter() - start, time.process_time() - cpu, flush=True)


def train_detector(args: argparse.Namespace, dtype: str) -> None:
    """Train as `tools/train.py` does, in turns."""
    from mmengine.hooks import Hook

    from pe_dense import detection
    from pe_dense.engine.build_runner import training_runner
    from pe_dense.engine.config import load_config

    class Turns(Hook):
        """Wait for a turn before its first iteration, and end training after the last turn."""

        priority = "LOWEST"

        def before_train(self, runner):
            self.turns = turns(args.iterations)
            next(self.turns)

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if next(self.turns, "end") == "end":
                os._exit(0)

    config = load_config(CONFIG)
    tower = dict(TOWER, image_size=SIDE, output_dim=None, use_cls_token=True, pool_type="none", attn_pooler_heads=8)
    config.model.backbone.update(arch=tower, init_cfg=None)
    if not hasattr(detection, "SingleRoIExtractor"):  # an earlier checkout
        for name in ("bbox_roi_extractor", "mask_roi_extractor"):
            config.model.roi_head[name].type = "SingleRoIExtractor"
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.num_workers = 0
        loader.dataset.update(data_root=args.data, generator=GENERATOR)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        evaluator.ann_file = f"{args.data}/annotations/instances_val.json"
    config.train_dataloader.batch_size = BATCH
    config.train_cfg.update(max_iters=100_000, val_interval=100_000)
    config.optim_wrapper.update(type="AmpOptimWrapper" if dtype == "bfloat16" else "OptimWrapper")
    if dtype != "bfloat16":
        config.optim_wrapper.pop("dtype", None)
    runner = training_runner(
        config, work_dir="/".join([args.data, *args.work]), resume=None, amp=False, launcher="none"
    )
    runner.register_hook(Turns())
    runner.train()


def train_torchvision(args: argparse.Namespace, dtype: str) -> None:
    """Train torchvision's detector, in turns."""
    import torch

    model = torchvision_detector()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    batches = read_batches(args.data)
    for _ in turns(args.iterations):
        images, targets = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()


def torchvision_detector():
    """Build torchvision's Mask R-CNN with modules of the same sizes as those of the config."""
    import timm
    from torch import nn
    from torchvision.models import detection
    from torchvision.models.convnext import LayerNorm2d
    from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
    from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    class Pyramid(nn.Module):
        """A frozen ViT and a pyramid of strides 4, 8, 16 and 32 (Li et al., arXiv 2203.16527)."""

        out_channels = CHANNELS

        def __init__(self):
            super().__init__()
            width = TOWER["width"]
            self.vit = timm.models.VisionTransformer(
                img_size=SIDE,
                patch_size=TOWER["patch_size"],
                embed_dim=width,
                depth=TOWER["layers"],
                num_heads=TOWER["heads"],
                num_classes=0,
            ).requires_grad_(False)
            resize = [nn.ConvTranspose2d(width, width // 2, 2, stride=2), nn.Identity(), nn.MaxPool2d(2)]
            self.levels = nn.ModuleList(
                nn.Sequential(
                    resized,
                    nn.Conv2d(channels, CHANNELS, 1, bias=False),
                    LayerNorm2d(CHANNELS),
                    nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
                    LayerNorm2d(CHANNELS),
                )
                for resized, channels in zip(resize, (width // 2, width, width), strict=True)
            )

        def forward(self, images):
            (features,) = self.vit.forward_intermediates(images, indices=1, intermediates_only=True)
            maps = [level(features) for level in self.levels]
            maps.append(nn.functional.max_pool2d(maps[-1], 1, stride=2))
            return {str(number): level for number, level in enumerate(maps)}

    def pooled(size):
        return MultiScaleRoIAlign(["0", "1", "2"], size, sampling_ratio=0, canonical_scale=56, canonical_level=3)

    anchors = AnchorGenerator(((16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 4)
    model = detection.MaskRCNN(
        Pyramid(),
        min_size=SIDE,
        max_size=SIDE,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(CHANNELS, 3),
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=100,
        box_roi_pool=pooled(7),
        box_head=FastRCNNConvFCHead((CHANNELS, 7, 7), [CHANNELS] * 2, [256], norm_layer=LayerNorm2d),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(256, 9),
        box_batch_size_per_image=32,
        mask_roi_pool=pooled(14),
        mask_head=MaskRCNNHeads(CHANNELS, [CHANNELS] * 2, 1, norm_layer=LayerNorm2d),
        mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(CHANNELS, CHANNELS, 9),
    )
    model.backbone.vit.eval()
    return model.train()


def read_batches(folder: str) -> Iterator[tuple]:
    """Read training images with boxes and masks in torchvision's form, mirror half of them, and yield batches."""
    import random

    import numpy as np
    import torch
    from PIL import Image
    from pycocotools.coco import COCO
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    coco, draw = COCO(f"{folder}/annotations/instances_train.json"), random.Random(0)

    def read(info: dict) -> tuple:
        annotations = coco.loadAnns(coco.getAnnIds(info["id"]))
        boxes = torch.tensor([annotation["bbox"] for annotation in annotations]).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(info["height"], info["width"]))
        masks = torch.from_numpy(np.stack([coco.annToMask(annotation) for annotation in annotations]))
        image = functional.to_image(Image.open(f"{folder}/train/{info['file_name']}").convert("RGB"))
        parts = [functional.to_dtype(image, scale=True), boxes, tv_tensors.Mask(masks)]
        if draw.random() < 0.5:
            parts = [functional.horizontal_flip(part) for part in parts]
        labels = torch.tensor([annotation["category_id"] for annotation in annotations])
        return parts[0].data, dict(boxes=parts[1].data, masks=parts[2].data, labels=labels)

    while True:
        infos = coco.loadImgs(coco.getImgIds())
        draw.shuffle(infos)
        for start in range(0, len(infos), BATCH):
            yield tuple(zip(*(read(info) for info in infos[start : start + BATCH]), strict=True))


def work(kind: str, dtype: str, args: argparse.Namespace) -> None:
    """Run one row."""
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    (train_torchvision if kind == "torchvision" else train_detector)(args, dtype)


def turn(process: subprocess.Popen) -> tuple[float, float]:
    """Let a row have its turn."""
    print("turn", file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith("took "):
            _, seconds, cpu = line.split()
            return float(seconds), float(cpu)
    raise RuntimeError(f"{process.args} ended without a result")


def compare(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Measure all rows in turns and write the table."""
    from utils import start_row, write_step_table

    from pe_dense.datasets.synthetic import write_shapes

    kinds = ["before", "pe_dense", "torchvision"] if args.before else ["pe_dense", "torchvision"]
    names = [f"{kind}:{dtype}" for dtype in args.dtype for kind in kinds]
    if args.peer not in names:
        parser.error(f"--peer {args.peer} is not one of {', '.join(names)}")
    measured = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(folder, **GENERATOR)
        processes = {}
        for name in names:
            kind, dtype = name.split(":")
            arguments = ["--work", kind, dtype, "--data", folder, "--iterations", args.iterations]
            processes[name] = start_row(__file__, arguments, args.threads, args.before if kind == "before" else None)
        try:
            for number in range(args.repeats + 1):
                for name, process in processes.items():
                    times = turn(process)
                    if number:  # after a turn of warm-up
                        measured[name].append([value / args.iterations for value in times])
        finally:
            for process in processes.values():
                process.stdin.close()
                process.wait()
    write_step_table(measured, args.peer, args.output, BATCH, threads=args.threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout of this repository, for the rows `before`")
    parser.add_argument(
        "--peer", default="torchvision:bfloat16", help="row that others are compared with (%(default)s)"
    )
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--iterations", type=int, default=10, help="iterations of a turn (10)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/detector_step.json"))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work, args)
    else:
        compare(args, parser)


if __name__ == "__main__":
    main()
