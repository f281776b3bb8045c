"""Images without labels, in a folder and below. Everything hangs on `data_root`.

Each is seen once, as one crop, by student and teachers, who shrink it to their own sizes. How much of an image a crop
holds is not published; aspect, colors and flips are the recipe's.
"""

from mmengine.config import read_base

with read_base():
    from .align_schedule import images_per_gpu

data_root = "data/images"
crop_size = 1024  # as wide as the largest that a teacher sees

train_pipeline = [
    dict(type="pe_dense.RandomResizedCrop", size=(crop_size, crop_size), scale=(0.5, 1.0), ratio=(0.75, 1.33)),
    dict(type="pe_dense.RandomHorizontalFlip", p=0.5),
    dict(type="pe_dense.ColorJitter", brightness=0.32, saturation=0.32),
    dict(type="pe_dense.PILToTensor"),
]
train_dataloader = dict(
    batch_size=images_per_gpu,
    num_workers=12,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="pe_dense.ImageFolder", data_root=data_root, pipeline=train_pipeline),
)
