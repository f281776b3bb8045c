"""Linear depth probes on published data sets, trained in the form of their configs.

Unlike in :mod:`pe_dense.evaluation.linear_probe`, features of augmented images are computed anew in each step, so that
the values can be compared with published ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, DefaultScope
from PIL import Image
from torch import Tensor, nn

from pe_dense.depth import DepthMetric
from pe_dense.engine.config import load_config
from pe_dense.engine.preflight import check_files, check_images, check_learnable
from pe_dense.engine.seeded_sampling import SampleIndex, SeededDataset
from pe_dense.evaluation import pictures
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.utils.rng import sample_seed

_METRICS = ("rmse", "abs_rel", "d1")


def evaluate_depth_probe(run: TaskRun, *, config: str, steps: int | None = None) -> list[dict]:
    """Train a linear depth head for each layer on frozen features, and evaluate the last state of each.

    Heads of all layers are trained on the same batches, each with its own optimizer, in one process. Predictions are
    averaged with those of the flipped image.

    Args:
        run: backbone and layers.
        config: name of the config, such as ``nyu_dinov3_linear_pe``; its backbone is replaced by that of the run.
        steps: of the training; those of the config by default.

    Returns:
        rows with ``rmse`` in meters, ``abs_rel`` and ``d1``, means over images.

    Raises:
        ConfigError, InputError: if data are missing or not valid.
    """
    content = load_config(config, {"data_root": str(run.root)})
    with DefaultScope.overwrite_default_scope("mmseg"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        check_files(content, ("train", "test"))
        train, test = (
            DATASETS.build(content[f"{split}_dataloader"].dataset, default_args=dict(lazy_init=False))
            for split in ("train", "test")
        )
        for dataset in (train, test):
            check_images(dataset)
        check_learnable(train)
        patch = dict(size_divisor=run.tower.patch_size)
        preprocess = MODELS.build(
            dict(content.model.data_preprocessor, mean=run.tower.mean, std=run.tower.std, test_cfg=patch, **patch)
        ).to(run.device)
        heads = _train(run, content, train, preprocess, steps or content.train_cfg.max_iters)
        return _test(run, content, test, preprocess, heads)


def _train(run: TaskRun, config: Config, dataset, preprocess: nn.Module, steps: int) -> dict[int, nn.Module]:
    """Train the head of each layer; samples and heads depend neither on the workers nor on the other layers."""
    heads, optimizers, schedules = {}, {}, []
    for layer in run.layers:
        with torch.random.fork_rng(devices=[]):
            head = MODELS.build(dict(config.model.decode_head, width=run.tower.embed_dim, num_taps=1))
        heads[layer] = head.to(run.device).train()
        optimizers[layer] = build_optim_wrapper(head, config.optim_wrapper)
        for schedule in config.param_scheduler:
            schedules.append(PARAM_SCHEDULERS.build(schedule, default_args=dict(optimizer=optimizers[layer])))
    size = config.train_dataloader.batch_size
    samples = run.read(_order(len(dataset), steps * size), SeededDataset(dataset).__getitem__)
    for step in range(steps):
        batch = preprocess(pseudo_collate([next(samples) for _ in range(size)]), training=True)
        for layer, features in _features(run, batch["inputs"]):
            _update(optimizers[layer], heads[layer], features, batch["data_samples"])
        for schedule in schedules:
            schedule.step()
        if (step + 1) % max(steps // 10, 1) == 0:
            print_log(f"depth probes: step {step + 1} of {steps}", "current")
    return {layer: head.eval() for layer, head in heads.items()}


def _update(optimizer: OptimWrapper, head: nn.Module, features: Tensor, samples: list) -> None:
    with torch.enable_grad():
        losses = head.loss([features], samples, None)
        optimizer.update_params(sum(losses.values()))


@torch.no_grad()
def _features(run: TaskRun, images: Tensor) -> Iterator[tuple[int, Tensor]]:
    for layer, features in run.tower.iter_intermediates(images, run.layers, norm=True):
        yield layer, features.float()


def _order(images: int, samples: int) -> list[SampleIndex]:
    """Draw the order of the samples, in passes over all images, and the seed of each."""
    rng = np.random.default_rng(0)
    passes = np.concatenate([rng.permutation(images) for _ in range(-(-samples // images))])[:samples]
    return [SampleIndex(int(index), sample_seed(0, place)) for place, index in enumerate(passes)]


@torch.no_grad()
def _test(run: TaskRun, config: Config, dataset, preprocess: nn.Module, heads: dict[int, nn.Module]) -> list[dict]:
    settings = {key: value for key, value in config.test_evaluator.items() if key != "type"}
    metrics = {layer: DepthMetric(**settings) for layer in heads}
    shown = []
    for index, item in enumerate(run.read(range(len(dataset)), dataset.__getitem__)):
        batch = preprocess(pseudo_collate([item]), training=False)
        (sample,) = batch["data_samples"]
        truth = sample.gt_depth_map.data.squeeze()
        pair = zip(_features(run, batch["inputs"]), _features(run, batch["inputs"].flip(-1)), strict=True)
        for (layer, features), (_, flipped) in pair:
            depth = (heads[layer]([features]) + heads[layer]([flipped]).flip(-1)) / 2
            depth = F.interpolate(depth, batch["inputs"].shape[-2:], mode="bilinear", align_corners=False)
            height, width = sample.img_shape  # without the padding, which is on the right and at the bottom
            depth = F.interpolate(depth[..., :height, :width], truth.shape, mode="bilinear", align_corners=False)[0, 0]
            found = dict(pred_depth_map=dict(data=depth), gt_depth_map=dict(data=truth))
            metrics[layer].process(None, [found])
        if index < SHOWN_IMAGES:
            image = Image.fromarray(item["inputs"].numpy()[::-1].transpose(1, 2, 0).copy())  # from BGR, as evaluated
            shown.append((image, truth.cpu().numpy(), depth.cpu().numpy()))
    run.save(pictures.depth_figure(shown))
    rows = {layer: metric.compute_metrics(metric.results) for layer, metric in metrics.items()}
    return [dict(layer=layer, **{name: row[name] for name in _METRICS}) for layer, row in rows.items()]
