"""Dense k-nearest-neighbor segmentation: labels of patches from the most similar patches of training images.

The protocol is that of Hummingbird (arXiv 2306.01667) as implemented in open-hummingbird-eval. In shapes N is the
number of images, h and w the sides of the grid of patches, P = h * w, C the number of feature channels, K the number of
classes, M the number of patches in the memory.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.evaluation import pictures
from pe_dense.evaluation.data import load_labeled, segmentation_data
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.evaluation.scores import IGNORED, count_pairs, hungarian_miou, mean_iou
from pe_dense.utils.errors import InputError

# Similarities of this many queries and memory entries are computed at a time: 256 MB in float32.
_QUERIES, _ENTRIES = 1024, 65_536
_CHUNK = 64


def label_shares(
    labels: Tensor, num_classes: int, grid: tuple[int, int], *, ignore: int = IGNORED, ignored_class: int | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the share of each class in the pixels of each patch.

    Args:
        labels: (N, H, W) classes; H and W are multiples of the grid's sides.
        num_classes: K.
        grid: (h, w).
        ignore: value of pixels without a class.
        ignored_class: class that these pixels are counted as; None to leave them out. The published implementation
            counts them as class 0.

    Returns:
        shares (N, P, K) float32 that sum to 1, and whether a patch has any pixel with a class (N, P), bool.

    Raises:
        ValueError: if the grid does not divide the image.
    """
    rows, columns = grid
    if labels.shape[1] % rows or labels.shape[2] % columns:
        raise InputError(f"labels of {tuple(labels.shape[1:])} px do not divide into {rows} x {columns} patches")
    pixels = labels.long().unflatten(2, (columns, -1)).unflatten(1, (rows, -1))  # (N, h, p, w, q)
    pixels = pixels.transpose(2, 3).flatten(3).flatten(1, 2)  # (N, P, pixels of a patch)
    valid = pixels != ignore
    filler = 0 if ignored_class is None else ignored_class
    weights = valid if ignored_class is None else torch.ones_like(valid)
    pixels = torch.where(valid, pixels, filler)
    if len(pixels) and int(pixels.max()) >= num_classes:
        raise InputError(f"labels have class {int(pixels.max())}, but there are {num_classes} classes")
    shares = pixels.new_zeros(*pixels.shape[:2], num_classes, dtype=torch.float32)
    shares.scatter_add_(2, pixels, weights.float())
    return shares / shares.sum(2, keepdim=True).clamp(min=1), weights.any(2)


def sample_patches(shares: Tensor, valid: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Choose patches of each image for a memory of limited size; patches of rare classes are preferred.

    The score of a patch is the sum, over the classes in it, of the number of patches of the image with that class,
    times a uniform random number. Patches with the lowest scores are chosen.

    Args:
        shares, valid: see :func:`label_shares`.
        numbers: (N, P), uniform random numbers.
        count: patches to choose of each image.

    Returns:
        indices (N, min(count, P)); those of patches that are not valid come last.
    """
    present = shares > 0  # (N, P, K)
    frequency = present.sum(1, keepdim=True)  # (N, 1, K)
    scores = (present * frequency).sum(2) * numbers
    scores = scores.masked_fill(~valid, torch.inf)
    return scores.topk(min(count, scores.shape[1]), dim=1, largest=False).indices


class PatchMemory:
    """Features and labels of training patches.

    Args:
        num_classes: K.
        patches_per_image: patches to keep of each image; None for all.
        seed: the patches that are kept depend on the seed and the image's number only, not on the batches.
        ignored_class: see :func:`label_shares`.
        capacity: largest number of patches. With it, memory is allocated once; without it, :meth:`entries` takes twice
            the memory for a moment.
    """

    def __init__(
        self,
        num_classes: int,
        patches_per_image: int | None = None,
        seed: int = 0,
        ignored_class: int | None = None,
        capacity: int | None = None,
    ):
        if patches_per_image is not None and patches_per_image < 1:
            raise InputError(f"the memory has room for {patches_per_image} patches of an image: make it larger")
        self.num_classes, self.patches_per_image, self.seed = num_classes, patches_per_image, seed
        self.ignored_class = ignored_class
        self.capacity, self._used = capacity, 0
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._images = 0

    def add(self, features: Tensor, labels: Tensor, numbers: Tensor | None = None) -> None:
        """Add a batch of images.

        Args:
            features: (N, C, h, w).
            labels: (N, H, W).
            numbers: random numbers (N, P) to use instead of those of the seed.
        """
        grid = tuple(features.shape[2:])
        shares, valid = label_shares(
            labels.to(features.device), self.num_classes, grid, ignored_class=self.ignored_class
        )
        tokens = F.normalize(features.flatten(2).transpose(1, 2).float(), dim=2)  # (N, P, C)
        if self.patches_per_image is not None:
            if numbers is None:
                numbers = torch.stack([self._numbers(self._images + i, tokens.shape[1]) for i in range(len(tokens))])
            chosen = sample_patches(shares, valid, numbers.to(shares.device), self.patches_per_image)
            tokens = tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2]))
            shares = shares.gather(1, chosen[..., None].expand(-1, -1, self.num_classes))
            valid = valid.gather(1, chosen)
        self._images += len(tokens)
        self._keep(tokens[valid], shares[valid])

    def _keep(self, tokens: Tensor, shares: Tensor) -> None:
        if self.capacity is None:
            self._features.append(tokens)
            self._labels.append(shares)
        elif not self._features:
            self._features = [tokens.new_empty(self.capacity, tokens.shape[1])]
            self._labels = [shares.new_empty(self.capacity, self.num_classes)]
        if self.capacity is not None:
            part = slice(self._used, self._used + len(tokens))
            self._features[0][part], self._labels[0][part] = tokens, shares
        self._used += len(tokens)

    def _numbers(self, image: int, patches: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + image)
        return torch.rand(patches, generator=generator)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Return unit-length features (M, C) and label shares (M, K).

        Raises:
            ValueError: if no patch has a label.
        """
        if not self._used:
            raise InputError("no patch of the training images has a label")
        if len(self._features) > 1:
            self._features, self._labels = [torch.cat(self._features)], [torch.cat(self._labels)]
        return self._features[0][: self._used], self._labels[0][: self._used]


@torch.no_grad()
def knn_labels(queries: Tensor, features: Tensor, labels: Tensor, *, k: int = 30, temperature: float = 0.02) -> Tensor:
    """Compute soft labels of patches from the k most similar entries of the memory.

    The search is exact and runs in blocks, so that memory does not grow with the number of queries times entries. All
    blocks use the same buffer: new memory in each block costs a CPU a tenth of the time. Similarities are float32,
    as neighbors often differ by less than bfloat16 resolves.

    Args:
        queries: (Q, C), of any length.
        features: (M, C), unit length.
        labels: (M, K).
        k: number of neighbors.
        temperature: weights are ``softmax(cos / temperature)`` over the neighbors.

    Returns:
        (Q, K).
    """
    k = min(k, len(features))
    soft = queries.new_empty(len(queries), labels.shape[1], dtype=torch.float32)
    buffer = soft.new_empty(min(len(queries), _QUERIES) * min(len(features), _ENTRIES))
    for start in range(0, len(queries), _QUERIES):
        block = F.normalize(queries[start : start + _QUERIES].float(), dim=1)
        values = indices = None
        for first in range(0, len(features), _ENTRIES):
            entries = features[first : first + _ENTRIES]
            found = buffer[: len(block) * len(entries)].view(len(block), len(entries))
            torch.mm(block, entries.T, out=found)
            new_values, new_indices = largest(found, min(k, found.shape[1]))
            new_indices += first
            if values is not None:
                new_values = torch.cat([values, new_values], 1)
                new_indices = torch.cat([indices, new_indices], 1)
                new_values, order = new_values.topk(min(k, new_values.shape[1]), dim=1)
                new_indices = new_indices.gather(1, order)
            values, indices = new_values, new_indices
        weights = (values / temperature).softmax(dim=1)  # (q, k)
        soft[start : start + _QUERIES] = torch.einsum("qk,qkc->qc", weights, labels[indices])
    return soft


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k largest entries of each row, as ``topk`` does, in less time for long rows.

    The k largest entries are in the k chunks of 64 entries with the largest maxima, which are found in one pass.

    Args:
        values: (Q, M).
        k: at most M.

    Returns:
        values (Q, k) in descending order, and their indices.
    """
    chunks = values.shape[1] // _CHUNK
    if chunks < 4 * k:
        top = values.topk(k, dim=1)
        return top.values, top.indices
    whole = chunks * _CHUNK
    parts = values[:, :whole].unflatten(1, (chunks, _CHUNK))
    chosen = parts.amax(dim=2).topk(k, dim=1).indices  # (Q, k)
    candidates = parts.gather(1, chosen[..., None].expand(-1, -1, _CHUNK)).flatten(1)
    top = torch.cat([candidates, values[:, whole:]], dim=1).topk(k, dim=1)
    place = top.indices.clamp(max=k * _CHUNK - 1)
    inside = chosen.gather(1, place // _CHUNK) * _CHUNK + place % _CHUNK
    return top.values, torch.where(top.indices < k * _CHUNK, inside, top.indices - k * _CHUNK + whole)


def upsampled_labels(soft: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample soft labels bilinearly and take the best class: (N, K, h, w) -> (N, H, W)."""
    return F.interpolate(soft, size=size, mode="bilinear", align_corners=False).argmax(dim=1)


def evaluate_knn(
    run: TaskRun,
    data: str,
    *,
    grid: int,
    memory: int | None,
    fraction: float = 1.0,
    epochs: int = 1,
    augment: bool = True,
    generator: dict | None = None,
) -> list[dict]:
    """Evaluate dense k-NN segmentation.

    Args:
        run: backbone and layers.
        data: see :func:`~pe_dense.evaluation.data.segmentation_data`.
        grid: patches along a side of the square input.
        memory: patches in the memory; None for all.
        fraction: share of the training images, drawn with a fixed seed.
        epochs: passes over the training images, each with other augmentations.
        augment: crop and jitter the training images as published.
        generator: of generated data.

    Returns:
        rows with ``mIoU`` (after Hungarian matching) and ``mIoU_unmatched``, in percent.
    """
    files = segmentation_data(data, run.root, generator)
    side, classes = grid * run.tower.patch_size, len(files.classes)
    order = np.random.default_rng(0).permutation(len(files.train))
    train = [files.train[i] for i in sorted(order[: max(round(fraction * len(order)), 1)])] * epochs
    room = None if memory is None else max(memory // len(train), 1)
    load = partial(load_labeled, data=files, side=side, mean=run.tower.mean, std=run.tower.std)
    extractor = run.extractor(norm=True)
    extractor.announce_cache(len(train) + len(files.val), grid**2)
    rows, shown = [], []
    for layers in run.groups(4.0 * len(train) * (room or grid**2) * run.tower.embed_dim):
        part = extractor.with_layers(layers)
        capacity = len(train) * (room or grid**2)
        memories = {layer: PatchMemory(classes, room, capacity=capacity) for layer in layers}
        for _, labels, maps in part.iter(list(enumerate(train)), partial(load, augment=augment)):
            for layer, features in maps.items():
                memories[layer].add(features[None], labels[None])
        counts = {layer: 0 for layer in layers}
        for index, labels, maps in part.iter(list(enumerate(files.val)), partial(load, augment=False)):
            for layer, features in maps.items():
                soft = knn_labels(features.flatten(1).T, *memories[layer].entries())
                found = upsampled_labels(soft.T.unflatten(1, features.shape[1:])[None], (side, side))
                counts[layer] = counts[layer] + count_pairs(found.cpu(), labels, classes, classes)
                if layer == run.layers[-1] and index < SHOWN_IMAGES:
                    shown.append((files.val[index][0], labels.numpy(), found[0].cpu().numpy()))
        rows += [
            dict(layer=layer, mIoU=100 * hungarian_miou(table), mIoU_unmatched=100 * mean_iou(table))
            for layer, table in counts.items()
        ]
    run.save(pictures.label_figure(shown, files.palette, "k-NN"))
    return rows
