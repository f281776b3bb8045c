"""Linear probes of segmentation and depth on features that are computed once.

The heads are those of DINOv2 and DINOv3 (arXiv 2304.07193, arXiv 2508.10104): batch norm and a 1 x 1 convolution on the
last layer after the final norm. Features of all training images are kept in memory, so there is no augmentation: for
published data sets and values use the configs of docs/probing.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pe_dense.depth.linear_head import LinearDepthHead
from pe_dense.evaluation import pictures
from pe_dense.evaluation.data import load_labeled, segmentation_data
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.evaluation.scores import count_pairs, mean_iou
from pe_dense.segmentation.head import LinearHead, upsampled_cross_entropy
from pe_dense.utils.image import decode, read_image
from pe_dense.visualization.features import to_input

_PIXELS = 8  # side of a patch in the label maps, whatever the size of a patch in the images
_BATCH, _RATE, _DECAY = 8, 5e-3, 1e-3
_BINS = 64  # of depth; 256 in DINOv2
Loss = Callable[[Tensor, Tensor], Tensor]


def evaluate_linear_segmentation(
    run: TaskRun, data: str, *, grid: int, steps: int = 200, generator: dict | None = None
) -> list[dict]:
    """Train and evaluate a linear probe of segmentation for each layer.

    Args:
        run: backbone and layers.
        data: see :func:`~pe_dense.evaluation.data.segmentation_data`.
        grid: patches along a side of the square input.
        steps: of the training, with batches of 8 images.
        generator: of generated data.

    Returns:
        rows with ``mIoU`` in percent.
    """
    files = segmentation_data(data, run.root, generator)
    classes, side = len(files.classes), grid * _PIXELS
    load = partial(
        load_labeled,
        data=files,
        side=grid * run.tower.patch_size,
        label_side=side,
        mean=run.tower.mean,
        std=run.tower.std,
        augment=False,
    )
    splits = tuple(list(enumerate(items)) for items in (files.train, files.val))
    build = partial(LinearHead, run.tower.embed_dim, 1, classes, dropout_ratio=0.1)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return upsampled_cross_entropy(logits, labels.long())

    rows, shown = [], []
    train = partial(train_head, build, loss=loss, steps=steps)
    for layer, predicted, truth in _probe(run, splits, load, grid, train):
        found = F.interpolate(predicted, size=(side, side), mode="bilinear", align_corners=False).argmax(1)
        table = count_pairs(found, truth, classes, classes)
        rows.append(dict(layer=layer, mIoU=100 * mean_iou(table)))
        if layer == run.layers[-1]:
            triples = zip(files.val[:SHOWN_IMAGES], truth, found, strict=False)
            shown = [(path, labels.numpy(), prediction.numpy()) for (path, _), labels, prediction in triples]
    run.save(pictures.label_figure(shown, files.palette, "linear probe"))
    return rows


def evaluate_linear_depth(
    run: TaskRun, *, grid: int, depth_range: tuple[float, float], steps: int = 200, generator: dict | None = None
) -> list[dict]:
    """Train and evaluate a linear depth head for each layer on the generated scenes.

    Args:
        run: backbone and layers.
        grid: patches along a side of the square input.
        depth_range: smallest and largest depth in meters.
        steps: of the training, with batches of 8 images.
        generator: of generated data.

    Returns:
        rows with ``delta1``, the share of pixels whose depth is within a factor of 1.25 of the true one, in percent,
        and ``rmse`` in meters; both are means over images.
    """
    files = segmentation_data("shapes", run.root, generator)
    depths = [[(path, _depth_of(path)) for path, _ in items] for items in (files.train, files.val)]
    side = grid * _PIXELS
    load = partial(
        _load_depth, side=grid * run.tower.patch_size, label_side=side, mean=run.tower.mean, std=run.tower.std
    )
    build = partial(LinearDepthHead, run.tower.embed_dim, 1, *depth_range, _BINS)

    def loss(depth: Tensor, truth: Tensor) -> Tensor:
        return head_loss(F.interpolate(depth, truth.shape[1:], mode="bilinear", align_corners=False), truth[:, None])

    head_loss = build().loss_decode
    rows, shown = [], []
    for layer, predicted, truth in _probe(
        run, tuple(depths), load, grid, partial(train_head, build, loss=loss, steps=steps)
    ):
        found = F.interpolate(predicted, size=(side, side), mode="bilinear", align_corners=False)[:, 0]
        ratio = torch.maximum(found / truth, truth / found)
        rmse = (found - truth).square().mean((1, 2)).sqrt().mean()
        rows.append(dict(layer=layer, delta1=100 * float((ratio < 1.25).float().mean()), rmse=float(rmse)))
        if layer == run.layers[-1]:
            triples = zip(depths[1][:SHOWN_IMAGES], truth, found, strict=False)
            shown = [(path, values.numpy(), prediction.numpy()) for (path, _), values, prediction in triples]
    run.save(pictures.depth_figure(shown))
    return rows


def _depth_of(path: Path) -> Path:
    return path.parents[1] / "depth" / path.parent.name / path.name


def _load_depth(item: tuple[Path, Path], side: int, label_side: int, mean: tuple, std: tuple) -> tuple[Tensor, Tensor]:
    image, depth = read_image(item[0]), decode(item[1])
    depth = np.array(depth.resize((label_side,) * 2, Image.Resampling.NEAREST), dtype=np.float32) / 1000
    return to_input(image.resize((side, side), Image.Resampling.BILINEAR), mean, std)[0], torch.from_numpy(depth)


def _probe(
    run: TaskRun, splits: tuple[list, list], load: Callable, grid: int, train: Callable[[Tensor, Tensor], nn.Module]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Train a head on each layer; yield the layer, outputs of the validation images and the truth, on the CPU."""
    extractor = run.extractor(norm=True)
    extractor.announce_cache(sum(map(len, splits)), grid**2)
    for layers in run.groups(4.0 * sum(map(len, splits)) * grid**2 * run.tower.embed_dim):
        part = extractor.with_layers(layers)
        features, truth = [], []
        for items in splits:
            maps: dict[int, list[Tensor]] = {layer: [] for layer in layers}
            labels = []
            for _, label, found in part.iter(items, load):
                labels.append(label)
                for layer, values in found.items():
                    maps[layer].append(values)
            features.append({layer: torch.stack(values) for layer, values in maps.items()})
            truth.append(torch.stack(labels))
        for layer in layers:
            head = train(features[0].pop(layer), truth[0].to(run.device))
            with torch.no_grad():
                outputs = torch.cat([head([batch]).cpu() for batch in features[1].pop(layer).split(_BATCH)])
            yield layer, outputs, truth[1]


def train_head(
    build: Callable[[], nn.Module], features: Tensor, truth: Tensor, *, loss: Loss, steps: int, seed: int = 0
) -> nn.Module:
    """Train a head on features with AdamW, linear warm-up and a cosine; the result depends on the seed only.

    Args:
        build: returns the head, which takes a list of one map.
        features: (N, C, h, w).
        truth: of the N images, on the device of the features.
        loss: function of the outputs and the truth of a batch.
        steps: with batches of 8 images.
        seed: of the weights, the batches and dropout.

    Returns:
        the head in evaluation mode.
    """
    devices = [features.device] if features.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        head = build().to(features.device).train()
        optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
        warmup = max(steps // 10, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + np.cos(np.pi * step / steps)))
        )
        order = torch.cat([torch.randperm(len(features)) for _ in range(-(-steps * _BATCH // len(features)))])
        for step in range(steps):
            batch = order[step * _BATCH : (step + 1) * _BATCH].to(features.device)
            optimizer.zero_grad()
            loss(head([features[batch]]), truth[batch]).backward()
            optimizer.step()
            schedule.step()
    return head.eval()
