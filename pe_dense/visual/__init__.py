"""Pictures of features."""

from pe_dense.visual.colours import feature_rgb, lch_to_rgb
from pe_dense.visual.hook import FeaturePictureHook
from pe_dense.visual.low_pass import low_pass
from pe_dense.visual.pca import Basis, fit_basis

__all__ = ["Basis", "FeaturePictureHook", "feature_rgb", "fit_basis", "lch_to_rgb", "low_pass"]
