"""Parts of detectors that mmdet lacks."""

from pe_dense.detection.models.federated_loss import FederatedLoss

__all__ = ["FederatedLoss"]
