"""Focal loss for vocabularies that are not annotated in full."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from pe_dense.detection.models import FederatedLoss
from pe_dense.registry import MODELS


@MODELS.register_module()
class FederatedFocalLoss(FederatedLoss):
    """DETA's focal loss over a few classes per batch, for LVIS; classes are drawn as by the parent.

    Args:
        num_classes, num_sampled, ann_file, loss_weight: as of
            :class:`~pe_dense.detection.models.FederatedLoss`.
        alpha, gamma: weight of positives, focus on hard examples (arXiv 1708.02002).
    """

    use_sigmoid = True  # mmdet's heads ask

    def __init__(
        self,
        num_classes: int,
        num_sampled: int | None = 50,
        ann_file: str | None = None,
        alpha: float = 0.25,
        gamma: float = 2.0,
        loss_weight: float = 1.0,
    ):
        super().__init__(num_classes, num_sampled, ann_file, loss_weight)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor, avg_factor: float) -> Tensor:
        """The loss of a layer's queries.

        Args:
            logits: (N, K).
            labels: (N,) classes; K is the background.
            avg_factor: divisor of the sum.

        Returns:
            a scalar.
        """
        classes = self._classes_of_batch(labels)
        targets = F.one_hot(labels, self.num_classes + 1)[:, classes]
        return self._focal(logits[:, classes], targets, avg_factor)

    def objectness(self, logits: Tensor, labels: Tensor, avg_factor: float) -> Tensor:
        """The first stage's loss: only its first output tells objects (label 0) from background, nothing is drawn."""
        return self._focal(logits[:, :1], labels[:, None] == 0, avg_factor)

    def _focal(self, logits: Tensor, targets: Tensor, avg_factor: float) -> Tensor:
        loss = sigmoid_focal_loss(logits, targets.to(logits), self.alpha, self.gamma, reduction="sum")
        return self.loss_weight * loss / avg_factor
