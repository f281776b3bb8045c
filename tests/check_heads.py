#!/usr/bin/env python
"""Check the methods of mmdet and mmseg on a tiny random tower: losses, gradients and predictions.

    tests/check_heads.py --json FILE                      all methods
    tests/check_heads.py --json FILE mmdet::detr/... ...  some configs; their results replace those in the file
    tests/check_heads.py --json FILE --write              no check, but the tables of docs/heads.md from the file

Each config is adapted as by `--tower`. Its model then computes the losses of two small images with random objects, and
their gradients, and predicts on an image. Processes of a few configs each keep memory bounded.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

from helpers.head_configs import MMDET, MMSEG

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "heads.md"
BEGIN, END = "<!-- written by tests/check_heads.py -->", "<!-- end -->"
PER_PROCESS = 20
TOWER = dict(
    type="pe_dense.PETower",
    arch=dict(
        patch_size=16,
        width=32,
        layers=4,
        heads=2,
        mlp_ratio=2.0,
        image_size=64,
        use_ln_post=False,
        pool_type="none",
    ),
    window_size=4,
    global_blocks=(1, 3),
    pad_to_patch=True,
)

SIDES = {"ssd": 320}  # px, where small images have no last level; 128 otherwise


# Why methods that the option accepts, or refuses in other words, do not run here.
REASONS = {
    "CLRNet": "detects lanes: needs its own data, and `line_nms`, which is missing",
    "Mask2Former for videos": "works on videos",
    "ReID": "embeds crops of persons; its backbone is of mmpretrain",
    "PAA": "needs scikit-learn for its losses",
    "SSD": "trains; mmdet 3.5's test reads a loss that its head does not have",
}


def write(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def all_configs():
    return {
        f"{library}::{path}": (library, title)
        for library, methods in (("mmdet", MMDET), ("mmseg", MMSEG))
        for title, path in methods.items()
    }


def shrink(part):
    """Reduce numbers of proposals and samples, which determine most of the time."""
    limits = dict(nms_pre=200, max_per_img=20, num=32, num_dn_queries=20)
    for key, value in part.items():
        if isinstance(value, dict):
            shrink(value)
        elif isinstance(value, list | tuple):
            for item in value:
                if isinstance(item, dict):
                    shrink(item)
        elif key == "max_per_img" and "nms" not in part:
            continue  # the number of queries
        elif key in limits and isinstance(value, int) and value > limits[key]:
            part[key] = limits[key]


def classes_of(model):
    """Smallest number of classes of any head, so that every label is valid."""
    found = [model[key] for key in ("num_classes", "num_things_classes") if isinstance(model.get(key), int)]
    for name, child in model.items():
        children = child if isinstance(child, list | tuple) else [child]
        if name in ("rpn_head", "semantic_head"):
            continue
        found += [classes_of(item) for item in children if isinstance(item, dict)]
    return min(found, default=1000)


def detection_batch(config, side):
    import torch
    from mmdet.testing import demo_mm_inputs
    from mmengine.structures import InstanceData

    model = config.model
    stride = 1 if "semantic_head" not in str(model.keys()) and "semantic_head" not in model.get("roi_head", {}) else 8
    data = demo_mm_inputs(
        2,
        image_shapes=[(3, side, side)] * 2,
        num_items=[3, 2],
        num_classes=10,
        with_mask="mask" in str(model).lower(),
        with_semantic=True,
        sem_seg_output_strides=1 if model.type == "PanopticFPN" else stride,
        use_box_type=False,
    )
    if "FastRCNN" in model.type:
        for sample in data["data_samples"]:
            corners = side * torch.rand(20, 2, 2).sort(dim=1).values
            sample.proposals = InstanceData(bboxes=corners.flatten(1), scores=torch.rand(20))
    for sample in data["data_samples"]:
        sample.gt_instances.labels %= classes_of(model)
        sample.set_metainfo(dict(batch_input_shape=(side, side), pad_shape=(side, side)))
        stuff = getattr(sample, "gt_sem_seg", None)
        if stuff is not None and "panoptic_head" in model:
            head = model.panoptic_head
            first, count = head.num_things_classes, max(head.num_stuff_classes, 1)
            stuff.sem_seg = torch.randint(first, first + count, (1, side, side))
    return data


def segmentation_batch(config, side):
    import torch
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(side, side), ori_shape=(side, side), pad_shape=(side, side)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, min(classes_of(config.model), 19), (1, side, side)))
        samples.append(sample)
    return dict(
        inputs=[torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in samples], data_samples=samples
    )


def build(name):
    """Adapt a config and build its model; return the config, what was replaced, the side of images and the model."""
    import torch
    from mmengine.config import ConfigDict
    from mmengine.logging import MessageHub
    from mmengine.registry import MODELS, init_default_scope

    from pe_dense.engine.config import _read_file
    from pe_dense.engine.config_check import check_config
    from pe_dense.engine.tower_option import use_tower
    from pe_dense.utils.package_files import find_config

    config = _read_file(find_config(name))
    report = use_tower(config, TOWER)
    check_config(config)
    init_default_scope(config.default_scope)
    for counter in ("iter", "epoch"):  # which losses with a warm-up read
        MessageHub.get_current_instance().update_info(counter, 0)
    side = SIDES.get(name.split("::")[1].split("/")[0], 128)
    preprocessor = config.model.data_preprocessor
    preprocessor.pop("batch_augments", None)  # to full size
    if preprocessor.get("size"):
        preprocessor["size"] = (side, side)
    if config.model.get("num_queries", 0) > 300:
        config.model.num_queries = 100  # fewer than the tokens of a small image
    for name_of_part in ("train_cfg", "test_cfg"):
        shrink(config.model.get(name_of_part) or {})
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config.model))
    model.init_weights()  # of all parts: before, Deformable DETR's `level_embed` is uninitialized memory
    return config, report, side, model


def check(name):
    """Run one config; return the necks that the pyramid feeds, the losses, and predictions in words."""
    import torch

    config, report, side, model = build(name)
    batch = (detection_batch if config.default_scope == "mmdet" else segmentation_batch)(config, side)
    model.train()
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode="loss")
    total, values = model.parse_losses(losses)
    assert torch.isfinite(total), f"losses {values}"
    total.backward()
    gradients = [parameter.grad for parameter in model.backbone.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients), "gradients of the tower"
    assert all(gradient.abs().sum() > 0 for gradient in gradients[:1]), "gradients of the patch embedding are 0"
    unused = [
        part for part, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    model.eval()
    if config.model.type == "QueryInst":  # random boxes leave the image, where mmdet's pasting of masks fails
        model.rpn_head.init_weights()
        for head in model.roi_head.bbox_head:
            torch.nn.init.zeros_(head.fc_reg.weight), torch.nn.init.zeros_(head.fc_reg.bias)
    batch = {key: value[:1] for key, value in batch.items()}
    with torch.no_grad():
        data = model.data_preprocessor(batch, training=False)
        samples = model(**data, mode="predict")
    sample = samples[0]
    predicted = [key for key in ("pred_instances", "pred_panoptic_seg", "pred_sem_seg") if key in sample]
    assert predicted, "no prediction"
    found = sample.pred_instances if "pred_instances" in sample else {}
    kinds = [kind for kind in ("bboxes", "masks") if kind in found]
    kinds += [dict(pred_panoptic_seg="panoptic", pred_sem_seg="semantic").get(key) for key in predicted]
    return dict(
        report=report,
        losses={key: round(float(value), 3) for key, value in values.items() if key.startswith("loss")},
        predicted=[kind for kind in kinds if kind],
        unused=unused[:5],
    )


def run_some(names):
    """Check configs in this process and print one JSON line for each."""
    warnings.filterwarnings("ignore")
    for name in names:
        start = time.process_time()
        try:
            result = dict(check(name), ok=True)
        except Exception as error:
            trace = "".join(traceback.format_exception(error)[-4:])
            result = dict(ok=False, error=f"{type(error).__name__}: {error}", trace=trace)
        write("RESULT " + json.dumps(dict(result, name=name, seconds=round(time.process_time() - start, 1))))


def run_all(names):
    """Check configs in processes of a few each; yield their results."""
    for start in range(0, len(names), PER_PROCESS):
        some = names[start : start + PER_PROCESS]
        command, count = [sys.executable, __file__, "--json", os.devnull, "--here", *some], 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            for line in process.stdout:
                if line.startswith("RESULT "):
                    yield json.loads(line[7:])
                    count += 1
        for name in some[count:]:
            yield dict(name=name, ok=False, error="its process ended", trace="", seconds=0)


def write_page(results):
    """Write the tables of docs/heads.md, in place of those that are there."""
    titles = {name: (library, title) for name, (library, title) in all_configs().items()}
    lines = []
    for library in ("mmdet", "mmseg"):
        good = [result for result in results if result["ok"] and titles[result["name"]][0] == library]
        lines += [
            f"### {len(good)} methods of {library}",
            "",
            "| method | config | neck | predictions |",
            "|---|---|---|---|",
        ]
        for result in sorted(good, key=lambda result: titles[result["name"]][1].lower()):
            neck = re.search(
                r"neck: (\w+) -> SimpleFeaturePyramid \(strides ([\d, ]+)[^)]*\)(?:, then (.*))?", result["report"]
            )
            before, strides, kept = neck.groups()
            what = f"{kept} (kept)" if kept else before
            kinds = dict(bboxes="boxes").get
            found = ", ".join(kinds(kind, kind) for kind in result["predicted"])
            path = result["name"].removesuffix(".py")
            lines.append(f"| {titles[result['name']][1]} | `{path}` | {what}, strides {strides} | {found} |")
        lines.append("")
    lines += ["### Methods that do not run", "", "| method | library | reason |", "|---|---|---|"]
    for result in results:
        if not result["ok"]:
            library, title = titles[result["name"]]
            reason = REASONS.get(title) or result["error"].partition("can't be adapted: ")[2] or result["error"]
            reason = re.sub(r"^(ConfigError: )?--tower: \S+: ", "", reason).replace("|", "/")
            lines.append(f"| {title} | {library} | {reason} |")
    before, after = PAGE.read_text().split(BEGIN)[0], PAGE.read_text().split(END)[1]
    PAGE.write_text(before + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="mmdet::... or mmseg::... (default: all)")
    parser.add_argument("--here", action="store_true", help="run in this process")
    parser.add_argument("--json", type=Path, default=Path("heads.json"), help="file of the results (heads.json)")
    parser.add_argument("--write", action="store_true", help="write docs/heads.md from the file")
    args = parser.parse_args()
    if args.here:
        run_some(args.configs)
        return
    order = list(all_configs())
    results = {}
    if args.json.exists() and (args.write or args.configs):
        results = {result["name"]: result for result in json.loads(args.json.read_text())}
    for result in [] if args.write else run_all(args.configs or order):
        results[result["name"]] = result
        words = f"{result['predicted']} {result['unused']}" if result["ok"] else result["error"][:300]
        write(f"{'ok  ' if result['ok'] else 'FAIL'} {result['seconds']:5.1f} s  {result['name']}  {words}")
        args.json.write_text(json.dumps(list(results.values()), indent=1))
    if args.write:
        write_page([results[name] for name in order if name in results])


if __name__ == "__main__":
    main()
