"""Generated shapes, created in `data_root` on first use. All paths start from `data_root`.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

image_size = 128
data_root = "data/shapes"
generator = dict(num_train=1000, num_val=80, difficulty="easy")


def shapes_loader(type, pipeline, train=False, **dataset):
    """Create the data loader of a data set of shapes, in mmdet's or mmseg's format."""
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


def instance_loaders(train_pipeline, test_pipeline):
    """Create data loaders of training and validation with instances in COCO's format."""
    train, val = (
        shapes_loader(
            "pe_dense.ShapesDataset",
            pipeline,
            train=split == "train",
            ann_file=f"annotations/instances_{split}.json",
            data_prefix=dict(img=f"{split}/"),
        )
        for split, pipeline in (("train", train_pipeline), ("val", test_pipeline))
    )
    return train, dict(val, drop_last=False)
