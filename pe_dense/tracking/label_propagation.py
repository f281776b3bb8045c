"""Label propagation: propagate the first mask of a video by feature similarity, without training.

The protocol is that of DINO (arXiv 2104.14294, section 4.2.1, after arXiv 2006.14613), which was also used for the
Perception Encoder (arXiv 2504.13181, appendix B.3.3), or that of DINOv3 (arXiv 2508.10104 and its notebook on
segmentation tracking): a circular neighborhood and nearest-neighbor upsampling. In shapes h and w are the rows and
columns of patches of a frame, C the number of feature channels, K the number of classes including background, M the
number of context frames.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pe_dense.utils.errors import InputError

# Side of the square tiles of query patches that are processed together. The queries of a tile share the keys around it:
# larger tiles compare more patches that are too far apart, smaller tiles copy more keys and launch more operators.
_TILE = 16
NEIGHBORHOODS = ("square", "circle")


class PropagationContext:
    """Context frames of one video, from which soft label maps are propagated frame by frame.

    The context of a frame is the first frame and the last frames before it, with their soft label maps, and every frame
    in which an object enters. Every patch
    takes the labels of its most similar patches: the affinity is ``exp(cos / temperature)`` and 0 outside the
    neighborhood. Affinities below the ``topk``-th largest one over all context frames are set to 0, and the remaining
    ones are normalized to a sum of 1.

    Args:
        features: (h, w, C), features of the first frame; they are L2-normalized here.
        labels: (K, h, w), fraction of each class in each patch of the first frame.
        num_last_frames: number of context frames in addition to the first one.
        radius: maximum distance of patches; 0 for no limit.
        neighborhood: 'square' (distance in rows and columns each, as in DINO) or 'circle' (Euclidean, as in DINOv3).
        topk: number of most similar patches to use.
        temperature: temperature of the affinity, see above.

    Raises:
        ValueError: if the sizes of features and labels differ, or an argument is out of range.
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
        neighborhood: str = "square",
    ):
        if features.shape[:2] != labels.shape[1:]:
            raise InputError(
                f"grid sizes of features and labels differ: {tuple(features.shape[:2])} vs {tuple(labels.shape[1:])}"
            )
        check_settings(
            num_last_frames=num_last_frames,
            radius=radius,
            topk=topk,
            temperature=temperature,
            neighborhood=neighborhood,
        )
        self.settings = dict(radius=radius, topk=topk, temperature=temperature, neighborhood=neighborhood)
        self._features = features.new_empty((1 + num_last_frames, *features.shape), dtype=torch.float32)
        self._labels = labels.new_empty((1 + num_last_frames, *labels.shape), dtype=torch.float32)
        self._features[0] = F.normalize(features.float(), dim=-1)
        self._labels[0] = labels
        self._steps, self._kept = 0, 1

    @torch.no_grad()
    def propagate(self, features: Tensor, entering: Tensor | None = None) -> Tensor:
        """Propagate labels to the next frame.

        Args:
            features: (h, w, C).
            entering: (E, h, w), fraction in each patch of classes that occur in this frame for the first time; the
                fractions of the other classes are scaled to the rest. As the first frame, this one then stays in the
                context.

        Returns:
            soft labels (K, h, w), which sum to 1 for each patch; K includes the classes that have entered.
        """
        features = F.normalize(features.float(), dim=-1)
        slots, kept = len(self._features), self._kept
        context = slice(min(kept + self._steps, slots))
        soft = propagate(features, self._features[context], self._labels[context], **self.settings)
        if entering is not None:
            soft = torch.cat([soft * (1 - entering.sum(0)), entering.to(soft)])
            self._keep(features, soft)
            return soft
        if slots > kept:
            # Ring buffer: the order of the context does not matter, so the newest frame replaces the oldest.
            slot = kept + self._steps % (slots - kept)
            self._features[slot], self._labels[slot] = features, soft
        self._steps += 1
        return soft

    def _keep(self, features: Tensor, soft: Tensor) -> None:
        """Insert a frame after those that stay in the context; the classes of the others are extended."""
        old = F.pad(self._labels, (0, 0, 0, 0, 0, len(soft) - self._labels.shape[1]))
        kept = self._kept
        self._features = torch.cat([self._features[:kept], features[None], self._features[kept:]])
        self._labels = torch.cat([old[:kept], soft[None], old[kept:]])
        self._kept += 1


def check_settings(
    *, num_last_frames: int, radius: int, topk: int, temperature: float, neighborhood: str = "square"
) -> None:
    """Raise a ``ValueError`` if settings of :class:`PropagationContext` are out of range."""
    for name, value, lowest in (("num_last_frames", num_last_frames, 0), ("radius", radius, 0), ("topk", topk, 1)):
        if value < lowest:
            raise InputError(f"{name} must be at least {lowest}, got {value}")
    if not temperature > 0:
        raise InputError(f"temperature must be above 0, got {temperature}")
    if neighborhood not in NEIGHBORHOODS:
        raise InputError(f"neighborhood {neighborhood!r} is not one of {', '.join(NEIGHBORHOODS)}")


def propagate(
    queries: Tensor,
    keys: Tensor,
    labels: Tensor,
    *,
    radius: int,
    topk: int,
    temperature: float,
    neighborhood: str = "square",
) -> Tensor:
    """Compute the labels of one frame from those of the context frames.

    Queries are processed in tiles of 16 x 16 patches, each with the keys within the radius. Memory is that of
    256 * M * (16 + 2 * radius)^2 affinities, 13 MB in the protocol, for any frame size; without a radius, of
    256 * M * h * w affinities.

    Args:
        queries: (h, w, C), L2-normalized.
        keys: (M, h, w, C), L2-normalized.
        labels: (M, K, h, w).
        radius, topk, temperature, neighborhood: see :class:`PropagationContext`.

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
            rows, columns = (
                (axis[part, None] - axis[around]).abs() for axis, part, around in zip(axes, tile, near, strict=True)
            )
            rows, columns = rows[:, None, :, None], columns[None, :, None, :]
            far = rows.maximum(columns) > radius if neighborhood == "square" else rows**2 + columns**2 > radius**2
            far = far.flatten(2).flatten(0, 1)  # (Q, P)
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
    """Extend a slice of an axis by the radius on both sides."""
    return slice(max(part.start - radius, 0), min(part.stop + radius, length)) if radius else slice(0, length)


def share_labels(labels: np.ndarray, classes: int, grid: tuple[int, int]) -> Tensor:
    """Convert a mask to one-hot soft labels of patches, by the class at the center of each patch.

    Args:
        labels: (H, W) uint8, values below ``classes``.
        classes: number of classes K.
        grid: (h, w), rows and columns of patches.

    Returns:
        (K, h, w) float32.
    """
    small = torch.from_numpy(resize_nearest(labels, grid)).long()
    return F.one_hot(small, classes).permute(2, 0, 1).float()


def harden_labels(soft: Tensor, patch_size: int) -> Tensor:
    """Compute the label of each pixel: upsample maps bilinearly, rescale each class to 0..1, and take the argmax.

    Args:
        soft: (K, h, w).
        patch_size: side p of a patch in pixels.

    Returns:
        (h * p, w * p) uint8.
    """
    size = tuple(n * patch_size for n in soft.shape[1:])
    return harden_maps(F.interpolate(soft[None], size=size, mode="bilinear", align_corners=False)[0])


def harden_maps(maps: Tensor) -> Tensor:
    """Rescale the map of each class to 0..1 and take the class of the largest value: (K, h, w) -> (h, w) uint8."""
    low, high = maps.aminmax(dim=2)
    low, high = low.amin(dim=1)[:, None, None], high.amax(dim=1)[:, None, None]
    # A constant map (usually of a class that is absent) has no range to rescale.
    maps = (maps - low) / torch.where(high > low, high - low, 1.0)
    return maps.argmax(dim=0).to(torch.uint8)


def resize_nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W) uint8 to (h, w) with Pillow, whose rounding of pixel centers is that of the protocol."""
    resized = Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST)
    return np.array(resized)
