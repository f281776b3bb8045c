"""Ablation of Spatial alignment with an oracle teacher: features should separate objects better than before.

    python benchmarks/alignment_oracle.py --work-dir work_dirs/oracle

SAM is replaced by the instance masks of the generated shapes: the feature of a token is the fraction of it that each
object covers. The demo's tower is aligned with it and written to WORK_DIR/tower.pt, with LayerScale folded. The towers
before and after are compared by a linear probe, by how well tokens of the same object are separated from others, and by
these configs:

    python tools/train.py configs/shapes_linear_pe_tiny.py --cfg-options model.backbone.init_cfg.checkpoint=...
    python tools/test.py configs/shapes_propagation_pe_tiny.py work_dirs/oracle/tower.pt
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import pe_dense  # noqa: F401
from pe_dense.backbones import load_tower
from pe_dense.backbones.build import export_tower
from pe_dense.datasets.synthetic import CLASSES
from pe_dense.distillation.teachers.instance_masks import annotated_images, object_fractions
from pe_dense.engine.build_runner import training_runner
from pe_dense.engine.config import load_config


@torch.no_grad()
def features_and_classes(tower, data_root, split, count):
    """Compute last-layer tokens (tokens, C) and the fractions of each token covered by classes (tokens, classes)."""
    tokens, parts, maps = [], [], []
    for path in sorted((Path(data_root) / split).glob("*.png"))[:count]:
        image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1
        labels = torch.from_numpy(np.array(Image.open(Path(data_root) / "semantic" / split / path.name))).long()
        labels[labels > len(CLASSES)] = 0
        tokens.append(tower.forward_features(image)[0])
        one_hot = torch.nn.functional.one_hot(labels, len(CLASSES) + 1).permute(2, 0, 1).float()
        parts.append(torch.nn.functional.adaptive_avg_pool2d(one_hot, tower.grid_of(image)).flatten(1).T)
        maps.append(labels)
    return torch.stack(tokens), torch.stack(parts), torch.stack(maps)


def linear_probe(tower, data_root):
    """Compute the validation mIoU in percent of a linear map (least squares) from last-layer tokens to classes."""
    x, y, _ = features_and_classes(tower, data_root, "train", 400)
    mean, std = x.mean((0, 1)), x.std((0, 1))
    x = torch.nn.functional.pad((x - mean) / std, (0, 1), value=1.0).flatten(0, 1).double()
    weight = torch.linalg.solve(x.T @ x + len(x) * 1e-3 * torch.eye(x.shape[1]), x.T @ y.flatten(0, 1).double()).float()
    x, _, labels = features_and_classes(tower, data_root, "val", 80)
    x = torch.nn.functional.pad((x - mean) / std, (0, 1), value=1.0)
    side = int(x.shape[1] ** 0.5)
    scores = (x @ weight).transpose(1, 2).unflatten(2, (side, side))
    found = torch.nn.functional.interpolate(scores, size=labels.shape[1:], mode="bilinear").argmax(1)
    ious = [((found == c) & (labels == c)).sum() / ((found == c) | (labels == c)).sum() for c in range(y.shape[-1])]
    return 100 * float(torch.stack(ious).mean())


@torch.no_grad()
def pairs_in_order(tower, data_root):
    """Compute the ROC AUC, in percent, of token similarity as a classifier of pairs from the same object.

    Only tokens of which more than 3/4 belong to one object or the background are used, and pairs with at least one
    object; mean over the validation images.
    """
    areas, root = [], Path(data_root)
    for pixels, size, segmentations in annotated_images(root / "annotations/instances_val.json", root / "val"):
        image = pixels[None] / 127.5 - 1
        part, thing = object_fractions(size, segmentations, tower.grid_of(image)).max(dim=1)
        clear = part > 0.75
        thing, tokens = thing[clear], torch.nn.functional.normalize(tower.forward_features(image)[0, clear], dim=-1)
        first, second = torch.combinations(torch.arange(len(thing))).T
        touch = (thing[first] > 0) | (thing[second] > 0)
        first, second = first[touch], second[touch]
        likeness, same = (tokens[first] * tokens[second]).sum(-1), thing[first] == thing[second]
        count = int(same.sum())
        if 0 < count < len(same):
            ranks = likeness.argsort().argsort()[same].double() + 1
            areas.append((ranks.sum() - count * (count + 1) / 2) / (count * (len(same) - count)))
    return 100 * float(torch.stack(areas).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", default="work_dirs/oracle")
    parser.add_argument("--start", default="work_dirs/demo", help="checkpoint with the tower to align")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0, help="seed of masks, dropped paths and the order of images (0)")
    parser.add_argument("--locality-weight", type=float, default=1.0, help="0 to disable the masks, for comparison")
    args = parser.parse_args()
    options = {
        "train_cfg.max_iters": args.steps,
        "param_scheduler.0.end": args.steps,
        "optim_wrapper.optimizer.lr": args.lr,
        "randomness.seed": args.seed,
        "model.locality_weight": args.locality_weight,
        "model.init_cfg.checkpoint": args.start,
        "default_hooks.checkpoint.interval": args.steps,
        "default_hooks.logger.interval": 50,
    }
    config = load_config("configs/shapes_align_pe_tiny.py", options)
    root = config.data_root
    config.model.sam = dict(
        type="pe_dense.InstanceMaskTeacher",
        ann_file=f"{root}/annotations/instances_train.json",
        data_prefix=f"{root}/train",
    )
    config.train_dataloader.dataset.pipeline = [
        dict(type="pe_dense.PILToTensor")
    ]  # the oracle requires uncropped images
    config.custom_hooks = config.custom_hooks[:2]
    fields = dict(config.model.core.tower)
    fields.pop("type"), fields.pop("init_cfg")
    arch = fields.pop("arch")
    training_runner(config, work_dir=args.work_dir, resume=None, amp=False, launcher="none").train()
    out = Path(args.work_dir) / "tower.pt"
    export_tower(args.work_dir, out, fold=True)
    for name, weights in (("start", args.start), ("aligned", out)):
        tower = load_tower(arch, weights, **fields)
        miou, order = linear_probe(tower, root), pairs_in_order(tower, root)
        print(f"{name}: linear probe mIoU {miou:.1f}, pairs in order {order:.2f} %")


if __name__ == "__main__":
    main()
