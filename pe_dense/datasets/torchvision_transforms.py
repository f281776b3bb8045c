"""torchvision's transforms of Pillow images, in a module of their own because they import ``torch._dynamo``."""

from torchvision.transforms import v2

from pe_dense.registry import TRANSFORMS

for transform in (v2.ColorJitter, v2.PILToTensor, v2.RandomHorizontalFlip, v2.RandomResizedCrop, v2.Resize):
    TRANSFORMS.register_module(module=transform)
