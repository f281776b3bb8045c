"""Transforms of torchvision by its own names (``pe_dense.RandomResizedCrop``): they change the images in a dict."""

from torchvision.transforms import v2

from pe_dense.registry import TRANSFORMS

TORCHVISION_TRANSFORMS = (v2.ColorJitter, v2.PILToTensor, v2.RandomHorizontalFlip, v2.RandomResizedCrop, v2.Resize)
for transform in TORCHVISION_TRANSFORMS:
    TRANSFORMS.register_module(module=transform)
