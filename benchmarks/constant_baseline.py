"""Evaluate constant predictors on generated shapes: lower bounds for probes.

    python benchmarks/constant_baseline.py

For classes, the best single class for all pixels; for segments, the background everywhere. For depth, the mean of the
training maps, and the mean at each pixel position. Data and metrics are those of the configs.
"""

import argparse
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"


def evaluate(dataset, metric, field, values):
    """Compute the metrics of one prediction (1, H, W) for all images."""
    from mmengine.structures import PixelData

    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item["data_samples"]
        sample.set_field(PixelData(data=values), field)
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(dataset))


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()

    import torch
    from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope

    import pe_dense  # noqa: F401
    from pe_dense.engine.config import load_config

    init_default_scope("mmseg")
    classes, depth = (load_config(CONFIGS / f"{name}.py") for name in ("shapes_linear_pe_tiny", "shapes_depth_pe_tiny"))

    dataset = DATASETS.build(classes.val_dataloader.dataset)
    names = dataset.metainfo["classes"]
    shape = dataset[0]["data_samples"].gt_sem_seg.data.shape
    metric = METRICS.build(dict(classes.val_evaluator, class_table=False))
    reached = {
        name: evaluate(dataset, metric, "pred_sem_seg", torch.full(shape, label))["mIoU"]
        for label, name in enumerate(names)
    }
    best = max(reached, key=reached.get)
    print(f"mIoU: {reached[best]:.1f} % with {best} everywhere")

    panoptic = load_config(CONFIGS / "shapes_panoptic_eomt_pe_tiny.py")
    with MODELS.switch_scope_and_registry("mmdet"):
        dataset = DATASETS.build(panoptic.val_dataloader.dataset)
        metric = METRICS.build(panoptic.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        background = torch.full((1, *item["data_samples"].ori_shape), len(dataset.metainfo["classes"]) - 1)
        sample = dict(item["data_samples"].metainfo, pred_panoptic_seg=dict(sem_seg=background))
        metric.process({}, [sample])
    quality = metric.evaluate(len(dataset))["coco_panoptic/PQ"]
    print(f"PQ: {quality:.1f} % with the background everywhere")

    training, dataset = (DATASETS.build(depth[f"{split}_dataloader"].dataset) for split in ("train", "val"))
    mean = torch.stack([item["data_samples"].gt_depth_map.data for item in training]).mean(0)  # (1, H, W)
    metric = METRICS.build(depth.val_evaluator)
    for what, values in (("everywhere", torch.full_like(mean, mean.mean())), ("at each place", mean)):
        rmse = evaluate(dataset, metric, "pred_depth_map", values)["rmse"]
        print(f"depth RMSE: {rmse:.2f} m with the training data's mean {what}")


if __name__ == "__main__":
    main()
