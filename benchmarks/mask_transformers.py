"""Compare EoMT with Mask2Former on the same tower: time of a training step, of a prediction, and memory of training.

    python benchmarks/mask_transformers.py --arch PE-Spatial-T16-512 --size 256
    python benchmarks/mask_transformers.py --arch PE-Spatial-L14-448 --size 640 --batch 4 --device cuda --dtype bfloat16

Both have the settings of panoptic COCO: EoMT 200 queries in the last blocks of the tower (3 up to 12 blocks, else 4),
Mask2Former 100 queries, a pixel decoder on ViTDet's pyramid and nine decoder layers. Weights and images are random.
`times faster` is Mask2Former's time divided by that of the row, the median over rounds; `memory` is the peak above the
memory before the step, in a process of its own. A training step is losses and gradients, without the optimizer.
"""

import argparse
import os
from pathlib import Path

from utils import in_turns, peak_memory, summary, write_table

METHODS = ("Mask2Former", "EoMT")
TASKS = ("training", "prediction")
OBJECTS = 10  # in each image


def make_model(method: str, arch: str, size: int):
    """Build a model with random weights."""
    from mmengine.registry import MODELS, init_default_scope

    from pe_dense.backbones import get_pe_config
    from pe_dense.engine.config import load_config

    init_default_scope("mmdet")
    if method == "EoMT":
        config = load_config("coco_panoptic_eomt_pe_l14").model
        config.backbone.update(arch=arch, img_size=size)
        config.panoptic_head.num_blocks = 3 if get_pe_config(arch).layers <= 12 else 4
    else:
        config = load_config("mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic", tower=arch).model
        # Global attention in both, as EoMT has it.
        for key in ("window_size", "global_blocks", "rope_reference_grid"):
            config.backbone.pop(key, None)
        config.backbone.update(img_size=size, drop_path_rate=0.0, with_cp=False)
    config.backbone.init_cfg = None
    return MODELS.build(config)


def make_samples(batch: int, size: int, device: str) -> list:
    """Create images' annotations: rectangles of random classes on one class of stuff."""
    import torch
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    random = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(batch):
        masks = torch.zeros(OBJECTS, size, size, dtype=torch.uint8)
        for mask in masks:
            top, left = (int(torch.randint(0, size // 2, (), generator=random)) for _ in range(2))
            mask[top : top + size // 3, left : left + size // 3] = 1
        stuff = torch.full((1, size, size), 100)
        stuff[0][masks.amax(0) > 0] = 255
        shape = dict(img_shape=(size, size), batch_input_shape=(size, size), ori_shape=(size, size))
        sample = DetDataSample(metainfo=shape | dict(scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            labels=torch.randint(0, 80, (OBJECTS,), generator=random),
            bboxes=torch.zeros(OBJECTS, 4),
            masks=BitmapMasks(masks.numpy(), size, size),
        )
        sample.gt_sem_seg = PixelData(sem_seg=stuff)
        samples.append(sample.to(device))
    return samples


def make_run(method: str, task: str, options: dict):
    """Return a function that runs a method once."""
    import torch

    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    device, dtype, size = options["device"], getattr(torch, options["dtype"]), options["size"]
    model = make_model(method, options["arch"], size).to(device).train(task == "training")
    images = torch.randn(options["batch"], 3, size, size, device=device)
    samples = make_samples(options["batch"], size, device)
    autocast = torch.autocast(device.partition(":")[0], dtype, enabled=dtype != torch.float32)
    if task == "training":

        def run():
            with autocast:
                losses = model.loss(images, samples)
            sum(value for value in losses.values()).backward()
            model.zero_grad()

        return run
    if method == "EoMT":
        model.panoptic_head.attn_mask_probs.zero_()  # as after the training

    def run():
        with torch.no_grad(), autocast:
            return model.predict(images, samples)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="PE-Spatial-T16-512")
    parser.add_argument("--size", type=int, default=256, help="side of the images in px, a multiple of 32 (256)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="only times")
    parser.add_argument("--repeats", type=int, default=5, help="turns (5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/mask_transformers.json"))
    args = parser.parse_args()

    options = {name: getattr(args, name) for name in ("arch", "size", "batch", "device", "dtype", "threads")}
    rows = []
    for task in TASKS:
        runs = {method: make_run(method, task, options) for method in METHODS}
        peaks = {}
        if args.memory and task == "training":
            peaks = {method: peak_memory(make_run, method, task, options, device=args.device) for method in METHODS}
        for method, values in summary(in_turns(runs, args.repeats, args.device), peer="Mask2Former").items():
            row = dict(tower=args.arch, px=args.size, batch=args.batch, task=task, method=method, **values)
            if peaks:
                row.update({"peak MB": round(peaks[method]), "memory": round(peaks[method] / peaks["Mask2Former"], 2)})
            rows.append(row)
    write_table(rows, args.output, **options)


if __name__ == "__main__":
    main()
