"""Generated shapes, made in `data_root` on first use. All paths start from `data_root`.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

image_size = 128
data_root = "data/shapes"
generator = dict(num_train=1000, num_val=80)


def shapes_loader(type, pipeline, train=False, **dataset):
    """Data loader of a data set of shapes, in mmdet's or mmseg's format."""
    loader = dict(
        batch_size=8,
        num_workers=1,
        persistent_workers=True,
        sampler=dict(type="InfiniteSampler", shuffle=True) if train else dict(type="DefaultSampler", shuffle=False),
        dataset=dict(type=type, data_root=data_root, generator=generator, pipeline=pipeline, **dataset),
    )
    if not train:
        loader["dataset"]["test_mode"] = True
    return loader
