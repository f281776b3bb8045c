"""Federated classification loss of the LVIS detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pe_dense.datasets.annotation_cache import read_table
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class FederatedLoss(nn.Module):
    """Sigmoid cross-entropy over a subset of classes per batch, sampled by their frequency.

    LVIS annotates only some classes of an image exhaustively, so a missing box is no evidence against most classes. For
    each per-GPU batch, the loss uses the classes that are present, counting the background as one of them, and samples
    others without replacement, with weights ``image_count ** 0.5``, up to ``num_sampled`` classes. The sum over the
    classes is divided by the number of proposals.

    Source: Probabilistic two-stage detection (arXiv 2103.07461, section 5) as in the published LVIS detectors.

    Args:
        num_classes: K, without background.
        num_sampled: number of classes per batch; None or at least K + 1 for all.
        ann_file: LVIS-style annotation file with the image count of each class, in the order of the classes. It is read
            when the first loss is computed, so that a model can be built and used without it. None samples all
            classes uniformly.
        loss_weight: weight of the loss.

    Raises:
        ValueError: if the file has a different number of classes (raised by the first forward pass).
    """

    # mmdet's box head reads these flags and then calls the loss's own get_cls_channels, get_activation, get_accuracy.
    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(
        self,
        num_classes: int,
        num_sampled: int | None = 50,
        ann_file: str | None = None,
        loss_weight: float = 1.0,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.num_sampled = num_sampled
        self.ann_file = ann_file
        self.loss_weight = loss_weight
        self._sampling_weights: Tensor | None = None

    def get_cls_channels(self, num_classes: int) -> int:
        """Return the number of classifier outputs. The background output is not trained, as in the published files."""
        return num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Convert logits (N, K + 1) to probabilities (N, K + 1)."""
        return cls_score.sigmoid()

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the top-1 accuracy of the foreground proposals, in percent."""
        foreground = labels < self.num_classes
        right = cls_score[foreground, :-1].argmax(dim=1) == labels[foreground]
        return dict(acc_classes=100.0 * right.float().mean() if len(right) else cls_score.new_zeros(()))

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss of a batch of proposals.

        Args:
            cls_score: (N, K + 1) logits, the last one ignored.
            label: (N,) classes; K is the background.
            weight: (N,) factor per proposal.
            avg_factor: divisor; N by default.
            reduction_override: for compatibility with mmdet; must be None.

        Returns:
            a scalar.
        """
        if reduction_override is not None:
            raise InputError(f"FederatedLoss has one reduction, got reduction_override={reduction_override!r}")
        classes = self._classes_of_batch(label)
        target = F.one_hot(label, self.num_classes + 1)[:, classes].to(cls_score.dtype)
        loss = F.binary_cross_entropy_with_logits(cls_score[:, classes], target, reduction="none").sum(dim=1)
        if weight is not None:
            loss = loss * weight
        return self.loss_weight * loss.sum() / (len(label) if avg_factor is None else avg_factor)

    def _classes_of_batch(self, labels: Tensor) -> Tensor:
        """Sample the foreground classes of a batch, (M,)."""
        present = labels.unique()
        wanted = self.num_classes + 1 if self.num_sampled is None else self.num_sampled
        probabilities = self._weights(labels.device).clone()
        probabilities[present] = 0.0
        count = min(wanted - len(present), int((probabilities > 0).sum()))
        if count > 0:
            present = torch.cat([present, probabilities.multinomial(count, replacement=False)])
        return present[present < self.num_classes]

    def _weights(self, device: torch.device) -> Tensor:
        """Return the sampling weights, (K + 1,); the background has weight 0."""
        if self._sampling_weights is None:
            counts = torch.ones(self.num_classes)
            if self.ann_file is not None:
                counts = torch.tensor(image_counts(self.ann_file), dtype=torch.float32)
            if len(counts) != self.num_classes:
                raise InputError(
                    f"{self.ann_file} has {len(counts)} classes, but the model has {self.num_classes}: "
                    "set num_classes of the heads and of the loss to the data's"
                )
            self._sampling_weights = torch.cat([counts.sqrt(), torch.zeros(1)])
        self._sampling_weights = self._sampling_weights.to(device)
        return self._sampling_weights


def image_counts(ann_file: str | Path) -> list[int]:
    """Count the images of each class, in the order of the file's categories.

    Args:
        ann_file: COCO- or LVIS-style annotation file; images are counted if categories have no ``image_count``.
    """
    table = read_table(ann_file, masks=False, quiet=True)
    if all("image_count" in category for category in table.categories):
        return [category["image_count"] for category in table.categories]
    pairs = np.unique(np.stack([table.arrays["categories"], table.image_rows], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=len(table.categories)).tolist()
