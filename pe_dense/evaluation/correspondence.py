"""Semantic correspondence of keypoints: PCK in the variants of SD-DINO, Probe3D and EUPE.

In shapes S is the side of the square model input in pixels, n x n its grid of patches, C the number of feature
channels, V the number of keypoints that are visible in both images of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pe_dense.evaluation import pictures
from pe_dense.evaluation.data import KeypointImage, spair_pairs, write_shapes_pairs
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import read_image
from pe_dense.visualization.features import to_input

VARIANTS = ("padded", "whole", "boxed", "upsampled")


@dataclass(frozen=True)
class Matches:
    """Matched keypoints of one pair.

    Attributes:
        predicted, target: positions (V, 2), x and y in pixels of the model input.
        error: distances (V,), in units in which the threshold is alpha; see :func:`match_keypoints`.
        index: (V,) int64, numbers of the keypoints.
        nearest: (V,) int64, for each keypoint the target keypoint that the prediction is closest to.
        error_nearest: (V,), distance to it, in the same units.
    """

    predicted: Tensor
    target: Tensor
    error: Tensor
    index: Tensor
    nearest: Tensor
    error_nearest: Tensor


def place_keypoints(
    keypoints: Tensor,
    image_size: tuple[int, int],
    side: int,
    variant: str,
    box: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Convert keypoints to pixels of the square model input.

    Args:
        keypoints: (K, 3), x and y in pixels of the image, and 1 for visible ones, else 0.
        image_size: (width, height).
        side: S.
        variant: 'padded' centers the image in the square (SD-DINO); 'whole' places it at the upper left corner
            (Probe3D), 'boxed' likewise after cropping to ``box``; both truncate to whole pixels. 'upsampled' stretches
            the image to the square (EUPE).
        box: (x0, y0, x1, y1), for 'boxed'.

    Returns:
        (K, 3) float32; keypoints that are not visible are 0, 0, 0.

    Raises:
        ValueError: for another variant.
    """
    _check_variant(variant)
    visible = keypoints[:, 2:] > 0
    points = keypoints[:, :2].double()
    width, height = image_size
    if variant == "padded":
        left, top, _ = padded_frame(image_size, side)
        points = points * (side / max(image_size)) + torch.tensor([left, top])
    elif variant == "upsampled":
        points = points * torch.tensor([side / width, side / height])
    else:
        corner, longer = (0, 0), max(image_size)
        if variant == "boxed":
            corner, longer = box[:2], max(box[2] - box[0], box[3] - box[1])
        points = ((points - torch.tensor(corner)) * side / longer).trunc()
    return torch.cat([points * visible, visible.double()], dim=1).float()


def padded_frame(image_size: tuple[int, int], side: int) -> tuple[int, int, tuple[int, int]]:
    """Compute where an image is placed in a square, centered, with its longer side resized to that of the square.

    Args:
        image_size: (width, height).
        side: of the square, in pixels.

    Returns:
        left and top offset in pixels, and the size (width, height) of the resized image.
    """
    longer = max(image_size)
    size = tuple(max(int(round(side * length / longer)), 1) for length in image_size)
    return int((side - size[0]) / 2), int((side - size[1]) / 2), size


def threshold_scale(
    box: tuple[int, int, int, int], image_size: tuple[int, int], side: int, variant: str
) -> tuple[float, float]:
    """Return the unit of the error in pixels of the model input, as (x, y); thresholds are alpha times this unit.

    Args:
        box: (x0, y0, x1, y1) of the target object in pixels of the image.
        image_size: (width, height) of the target image.
        side: S.
        variant: see :func:`place_keypoints`. The unit is the longer side of the box; of the whole input for 'boxed'.
    """
    _check_variant(variant)
    longer = max(box[2] - box[0], box[3] - box[1])
    if variant == "boxed":
        return float(side), float(side)
    if variant == "upsampled":
        return longer * side / image_size[0], longer * side / image_size[1]
    return (longer * side / max(image_size),) * 2


def match_keypoints(
    source: Tensor,
    target: Tensor,
    source_points: Tensor,
    target_points: Tensor,
    *,
    side: int,
    variant: str,
    unit: tuple[float, float],
) -> Matches:
    """Find the keypoints of the source image in the target image.

    Args:
        source, target: features (C, n, n).
        source_points, target_points: keypoints (K, 3) in pixels of the model input, see :func:`place_keypoints`.
        side: S.
        variant: 'padded' describes a keypoint by the patch that contains it and predicts the center of the most similar
            patch; 'whole' and 'boxed' sample the features bilinearly and predict the upper left corner of a patch;
            'upsampled' compares features upsampled bilinearly to the input.
        unit: see :func:`threshold_scale`.
    """
    _check_variant(variant)
    grid = source.shape[-1]
    device = source.device
    both = (source_points[:, 2] > 0) & (target_points[:, 2] > 0)
    points = source_points[both, :2].to(device)
    source, target = F.normalize(source.float(), dim=0), F.normalize(target.float(), dim=0)
    if variant == "upsampled":
        source, target = (F.interpolate(x[None], size=(side, side), mode="bilinear")[0] for x in (source, target))
        target, grid = F.normalize(target, dim=0), side
    if variant in ("padded", "upsampled"):
        cells = (points * (grid / side)).int().clamp(0, grid - 1).long()
        described = source[:, cells[:, 1], cells[:, 0]].T  # (V, C)
    else:
        places = (points / side * 2 - 1)[None, None]
        described = F.grid_sample(source[None], places, mode="bilinear", align_corners=True)[0, :, 0].T
    best = (described @ target.flatten(1)).argmax(dim=1)
    cells = torch.stack([best % grid, best // grid], dim=1).cpu()
    predicted = cells.float() * (side / grid)
    if variant == "padded":
        predicted += side // grid // 2 - 0.5
    errors = (predicted[:, None] - target_points[None, :, :2]) / torch.tensor(unit)
    errors = errors.norm(dim=2)  # (V, K)
    index = both.nonzero()[:, 0]
    others = errors.masked_fill(target_points[None, :, 2] == 0, torch.inf)
    nearest = others.min(dim=1) if len(index) else others.new_zeros(0, 1).min(dim=1)
    return Matches(
        predicted=predicted,
        target=target_points[both, :2],
        error=errors[torch.arange(len(index)), index],
        index=index,
        nearest=nearest.indices,
        error_nearest=nearest.values,
    )


def pck(errors: Tensor, alpha: float = 0.1) -> float:
    """Compute the percentage of correct keypoints: errors (V,) below alpha, from 0 to 1; 0 without keypoints."""
    return float((errors < alpha).double().mean()) if len(errors) else 0.0


def _check_variant(variant: str) -> None:
    if variant not in VARIANTS:
        raise InputError(f"variant {variant!r} is not one of {', '.join(VARIANTS)}")


def _load_keypoint_image(item: KeypointImage, side: int, variant: str, mean: tuple, std: tuple):
    image = read_image(item.path, ignore_orientation=True)
    if variant == "upsampled":
        square = image.resize((side, side), Image.Resampling.BICUBIC)
    elif variant == "padded":
        left, top, size = padded_frame(image.size, side)
        square = Image.new("RGB", (side, side))
        square.paste(image.resize(size, Image.Resampling.LANCZOS), (left, top))
    else:
        image = image.crop(item.box) if variant == "boxed" else image
        white = Image.new("RGB", (max(image.size),) * 2, "white")
        white.paste(image)
        square = white.resize((side, side), Image.Resampling.BICUBIC)
    return to_input(square, mean, std)[0], np.asarray(square)


def evaluate_correspondence(
    run: TaskRun,
    *,
    variant: str,
    per_class: int | None,
    side: int | None = None,
    patches: int = 32,
    generator: dict | None = None,
) -> list[dict]:
    """Evaluate keypoint correspondence on SPair-71k or on generated pairs.

    Args:
        run: backbone and layers.
        variant: see :func:`~pe_dense.evaluation.correspondence.place_keypoints`.
        per_class: pairs of each class; None for all.
        side: approximate side of the square input in pixels, rounded to a multiple of the patch size.
        patches: side of the input in patches, without ``side``.
        generator: arguments of :func:`~pe_dense.evaluation.data.write_shapes_pairs`; None for SPair-71k.

    Returns:
        rows with ``PCK`` (mean over classes), ``PCK_points`` (over all keypoints), both at 0.1, in percent.
    """
    root = run.root if generator is None else write_shapes_pairs(run.root, **generator)
    pairs = spair_pairs(root, per_class=per_class)
    patch = run.tower.patch_size
    side = (patches if side is None else max(round(side / patch), 1)) * patch
    ends = [end for pair in pairs for end in (pair.source, pair.target)]
    load = partial(_load_keypoint_image, side=side, variant=variant, mean=run.tower.mean, std=run.tower.std)
    extractor = run.extractor(norm=False)
    extractor.announce_cache(len(ends), (side // patch) ** 2)
    errors: dict[int, dict[str, list[Tensor]]] = {layer: {} for layer in run.layers}
    shown, source = [], None
    for index, pixels, maps in extractor.iter(ends, load):
        if index % 2 == 0:
            source = pixels, maps
            continue
        pair = pairs[index // 2]
        points = [
            place_keypoints(end.keypoints, end.size, side, variant, end.box) for end in (pair.source, pair.target)
        ]
        unit = threshold_scale(pair.target.box, pair.target.size, side, variant)
        for layer in run.layers:
            found = match_keypoints(source[1][layer], maps[layer], *points, side=side, variant=variant, unit=unit)
            errors[layer].setdefault(pair.category, []).append(found.error)
        if index // 2 < SHOWN_IMAGES:
            shown.append((source[0], pixels, points[0][found.index, :2], found))
    run.save(pictures.match_figure(shown))
    rows = []
    for layer, by_class in errors.items():
        joined = {name: torch.cat(parts) for name, parts in by_class.items()}
        scores = [pck(found) for found in joined.values() if len(found)]
        rows.append(
            dict(layer=layer, PCK=100 * float(np.mean(scores)), PCK_points=100 * pck(torch.cat(list(joined.values()))))
        )
    return rows
