"""DINOv2's loss for depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pe_dense.registry import MODELS

_MEAN_WEIGHT = 0.15  # of the squared mean beside the variance


@MODELS.register_module()
class SigLoss(nn.Module):
    """Scale-invariant loss of logarithms over all pixels of a batch.

    ``sqrt(var(g) + 0.15 mean(g)^2)`` with ``g = log(predicted + eps) - log(true + eps)`` and the unbiased variance. In
    the first training steps the variance is left out, so that the scale is learned first.

    Source: DINOv2's depth evaluation (arXiv 2304.07193, section 7.4), after AdaBins (arXiv 2011.14141). It differs from
    ``mmseg.SiLogLoss``, which is computed image by image, with the mean weighted by 0.5.

    Args:
        loss_weight: factor of the loss.
        warmup_steps: training steps without the variance. They are counted in the checkpoint.
        eps: added to depths before the logarithm, in meters.
        loss_name: name of the loss in the log; only names that begin with ``loss`` have gradients.
    """

    def __init__(
        self, loss_weight: float = 1.0, warmup_steps: int = 100, eps: float = 1e-3, loss_name: str = "loss_sig"
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.warmup_steps = warmup_steps
        self.eps = eps
        self.loss_name = loss_name
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            predicted: (B, 1, H, W) depths in meters.
            true: (B, 1, H, W); pixels of 0 have no known depth and are left out.

        Returns:
            a scalar.
        """
        known = true > 0
        g = torch.log(predicted[known].float() + self.eps) - torch.log(true[known].float() + self.eps)
        squared = _MEAN_WEIGHT * g.mean().square()
        warming_up = self.training and self.steps < self.warmup_steps
        if warming_up:
            self.steps += 1
        elif g.numel() > 1:
            squared = squared + g.var()
        return self.loss_weight * squared.sqrt()
