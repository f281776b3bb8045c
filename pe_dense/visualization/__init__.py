"""Feature visualization: PCA colors, cosine similarity, correspondence and attention maps."""

from pe_dense.visualization.colors import feature_rgb, lch_to_rgb
from pe_dense.visualization.hook import FeaturePictureHook
from pe_dense.visualization.pca import Basis, fit_basis, low_pass
from pe_dense.visualization.validation_hook import ValidationPictureHook

__all__ = [
    "Basis",
    "FeaturePictureHook",
    "ValidationPictureHook",
    "feature_rgb",
    "fit_basis",
    "lch_to_rgb",
    "low_pass",
]
