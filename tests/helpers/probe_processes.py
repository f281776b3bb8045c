"""One of two processes that train and evaluate a probe. Argument: folder for the results."""

import json
import sys
from pathlib import Path

import torch
from mmengine.dataset import DefaultSampler
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from helpers.tiny_probe import CLASSES, batch, build
from pe_dense.probing.report_hook import LayerMetric

IMAGES = 5  # so that the sampler fills the second process up with an image that it has seen
METRICS = dict(
    segmentation=LayerMetric(dict(type="pe_dense.IoUMetric", class_table=False), "mIoU", True),
    depth=LayerMetric(dict(type="pe_dense.DepthMetric"), "rmse", False),
)


def evaluate(task, indices):
    """Evaluate a sweep on some images, one at a time."""
    model, metric = build(task, "Sweep", (1, 2)).eval(), METRICS[task]
    metric.dataset_meta = dict(classes=tuple(map(str, range(CLASSES))))
    for index in indices:
        with torch.no_grad():
            found = model.test_step(batch(task, count=1, seed=index))
        metric.process({}, [sample.to_dict() for sample in found])
    return metric.evaluate(IMAGES)


def train(kind, constructor, rank):
    """Losses and weights of the probe on layer 1 after three steps with different images in each process."""
    model = MMDistributedDataParallel(build("segmentation", kind, (1,) if kind == "Probe" else (0, 1)), device_ids=None)
    wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2))
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(type=constructor, optim_wrapper_cfg=wrapper))(model)
    key = "decode.loss_ce" if kind == "Probe" else "layer_1-0.loss"
    losses = [model.train_step(batch("segmentation", seed=2 * step + rank), wrapper)[key].item() for step in range(3)]
    head = model.module.decode_head if kind == "Probe" else model.module.probes["1-0"]
    return dict(losses=losses, weights=head.conv_seg.weight.flatten()[:6].tolist())


def main():
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    result = {task: evaluate(task, list(DefaultSampler(range(IMAGES), shuffle=False))) for task in METRICS}
    result["probe"] = train("Probe", "DefaultOptimWrapperConstructor", rank)
    result["sweep"] = train("Sweep", "pe_dense.SweepOptimWrapperConstructor", rank)
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
