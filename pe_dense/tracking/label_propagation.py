"""Label propagation: a video's first mask carried on by likeness of features, with nothing to train.

The protocol is DINO's (arXiv 2104.14294, section 4.2.1, after arXiv 2006.14613), in which the Perception Encoder's
towers were compared (arXiv 2504.13181, appendix B.3.3). In shapes h and w are a frame's rows and columns of patches,
C the features' width, K the classes with the background, M the context frames.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pe_dense.utils.errors import InputError

# Side of the squares of patches that look for their neighbors together. They share the keys around the square, so
# larger ones compare more patches that are too far apart, smaller ones copy more keys and start more often.
_TILE = 16


class LabelPropagation:
    """Soft label maps of one video, frame after frame.

    Context of a frame are the first frame and the last ones before it, with the soft maps that were found for them.
    Every patch takes the labels of the patches that are most like it: affinity is ``exp(cos / temperature)``, zero
    outside of the neighborhood; what is below the patch's ``topk``-th largest one in all context frames together is
    dropped, the rest weighted to a sum of 1.

    Args:
        features: of the first frame, (h, w, C); of any length, only their direction counts.
        labels: of the first frame, (K, h, w), each class's share in a patch.
        num_last_frames: context frames beside the first.
        radius: patches further away than this, in rows or columns, do not count; 0 for no such limit.
        topk: patches that count.
        temperature: see above.

    Raises:
        ValueError: if the sizes of features and labels differ, or for numbers out of range.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        num_last_frames: int = 7,
        radius: int = 12,
        topk: int = 5,
        temperature: float = 0.1,
    ):
        if features.shape[:2] != labels.shape[1:]:
            raise InputError(
                f"Features of {tuple(features.shape[:2])} patches do not go with labels of {tuple(labels.shape[1:])}"
            )
        check_settings(num_last_frames=num_last_frames, radius=radius, topk=topk, temperature=temperature)
        self.radius, self.topk, self.temperature = radius, topk, temperature
        self._features = features.new_empty((1 + num_last_frames, *features.shape), dtype=torch.float32)
        self._labels = labels.new_empty((1 + num_last_frames, *labels.shape), dtype=torch.float32)
        self._features[0] = F.normalize(features.float(), dim=-1)
        self._labels[0] = labels
        self._steps = 0

    @torch.no_grad()
    def step(self, features: Tensor) -> Tensor:
        """Label the next frame.

        Args:
            features: (h, w, C).

        Returns:
            (K, h, w), the shares of a patch sum to 1.
        """
        features = F.normalize(features.float(), dim=-1)
        slots = len(self._features)
        context = slice(min(1 + self._steps, slots))
        soft = propagate(
            features,
            self._features[context],
            self._labels[context],
            radius=self.radius,
            topk=self.topk,
            temperature=self.temperature,
        )
        if slots > 1:
            # The order of the context does not matter, so the newest frame takes the oldest one's place.
            slot = 1 + self._steps % (slots - 1)
            self._features[slot], self._labels[slot] = features, soft
        self._steps += 1
        return soft


def check_settings(*, num_last_frames: int, radius: int, topk: int, temperature: float) -> None:
    """Raise a ``ValueError`` for settings of :class:`LabelPropagation` that are out of range."""
    for name, value, lowest in (("num_last_frames", num_last_frames, 0), ("radius", radius, 0), ("topk", topk, 1)):
        if value < lowest:
            raise InputError(f"{name} is {value}, must be at least {lowest}")
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}, must be above 0")


def propagate(queries: Tensor, keys: Tensor, labels: Tensor, *, radius: int, topk: int, temperature: float) -> Tensor:
    """Labels of one frame from those of others.

    Patches are taken in squares of 16 x 16, each with the keys in its reach: memory is that of 256 * M * (16 + 2 *
    radius)^2 affinities, 13 MB in the protocol, whatever the frame's size; without a radius, of 256 * M * h * w.

    Args:
        queries: (h, w, C), of length 1.
        keys: (M, h, w, C), of length 1.
        labels: (M, K, h, w).
        radius, topk, temperature: see :class:`LabelPropagation`.

    Returns:
        (K, h, w).
    """
    height, width, _ = queries.shape
    axes = [torch.arange(length, device=queries.device) for length in (height, width)]
    soft = labels.new_empty(labels.shape[1:])
    for tile in _tiles(height, width):
        near = tuple(_around(part, radius, n) for part, n in zip(tile, (height, width), strict=True))
        tile_queries = queries[tile].flatten(0, 1)  # (Q, C)
        tile_keys = keys[(slice(None), *near)].flatten(0, 2)  # (M * P, C), P patches of each frame
        tile_labels = labels[(slice(None), slice(None), *near)].transpose(0, 1).flatten(1)  # (K, M * P)
        likeness = (tile_queries @ tile_keys.T).div_(temperature)  # (Q, M * P), logarithms of the affinities
        if radius:
            far_rows, far_columns = (
                (axis[part, None] - axis[around]).abs() > radius
                for axis, part, around in zip(axes, tile, near, strict=True)
            )
            far = (far_rows[:, None, :, None] | far_columns[None, :, None, :]).flatten(2).flatten(0, 1)  # (Q, P)
            likeness.unflatten(1, (len(keys), -1)).masked_fill_(far[:, None], -torch.inf)
        least = likeness.topk(min(topk, likeness.shape[1]), dim=1).values[:, -1:]
        weights = likeness.masked_fill_(likeness < least, -torch.inf).softmax(dim=1)
        soft[(slice(None), *tile)] = (tile_labels @ weights.T).unflatten(1, queries[tile].shape[:2])
    return soft


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield slice(top, min(top + _TILE, height)), slice(left, min(left + _TILE, width))


def _around(part: slice, radius: int, length: int) -> slice:
    """What a part of an axis reaches."""
    return slice(max(part.start - radius, 0), min(part.stop + radius, length)) if radius else slice(0, length)


def share_labels(labels: np.ndarray, classes: int, grid: tuple[int, int]) -> Tensor:
    """Soft labels of a mask: each patch wholly of the class at its center.

    Args:
        labels: (H, W) uint8, below ``classes``.
        classes: K.
        grid: (h, w).

    Returns:
        (K, h, w) float32.
    """
    small = torch.from_numpy(resize_nearest(labels, grid)).long()
    return F.one_hot(small, classes).permute(2, 0, 1).float()


def harden_labels(soft: Tensor, patch_size: int) -> Tensor:
    """The label of each pixel: maps enlarged bilinearly, each class's rescaled to 0..1, the largest taken.

    Args:
        soft: (K, h, w).
        patch_size: p, side of a patch in pixels.

    Returns:
        (h * p, w * p) uint8.
    """
    size = tuple(n * patch_size for n in soft.shape[1:])
    maps = F.interpolate(soft[None], size=size, mode="bilinear", align_corners=False)[0]
    low, high = maps.aminmax(dim=2)
    low, high = low.amin(dim=1)[:, None, None], high.amax(dim=1)[:, None, None]
    # A class that is the same everywhere (nowhere, as a rule) has no range to be rescaled to.
    maps = (maps - low) / torch.where(high > low, high - low, 1.0)
    return maps.argmax(dim=0).to(torch.uint8)


def resize_nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W) uint8 to (h, w) by Pillow: where centers fall between two pixels, its choice is the protocol's."""
    resized = Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST)
    return np.array(resized)
