"""Images without labels, in a folder and below. All paths start from `data_root`.

Each is seen once, as one crop, by student and teachers, who shrink it to their own sizes. How much of an image a crop
covers is not published; aspect, colors and flips are the recipe's.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

data_root = "data/images"


def image_pipeline(crop_size=1024):
    """Random crops, flips and colors. `crop_size` is in pixels, by default that of the teachers' largest image."""
    return [
        dict(type="pe_dense.RandomResizedCrop", size=(crop_size, crop_size), scale=(0.5, 1.0), ratio=(0.75, 1.33)),
        dict(type="pe_dense.RandomHorizontalFlip", p=0.5),
        dict(type="pe_dense.ColorJitter", brightness=0.32, saturation=0.32),
        dict(type="pe_dense.PILToTensor"),
    ]


train_dataloader = dict(
    num_workers=12,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="pe_dense.ImageFolder", data_root=data_root),
)
