"""Schedule, about a minute on a CPU, of heads on the frozen PE-Mini-Spatial; data loaders of maps.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

max_iters = 400
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=5e-3, betas=(0.9, 0.999), weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 2)


def map_loaders(shapes_loader, image_size, dataset, load_map, flip, **maps):
    """Create data loaders of training and validation of a data set of maps.

    Args:
        shapes_loader, image_size: of `shapes.py`.
        dataset: type of the data set.
        load_map: step that reads the map.
        flip: step that flips images in training.
        maps: key of `data_prefix` and folder of the maps.
    """
    load, pack = dict(type="pe_dense.LoadImage"), dict(type="PackSegInputs")

    def prefix(split):
        return dict(img_path=split, **{key: f"{folder}/{split}" for key, folder in maps.items()})

    resize = dict(type="Resize", scale=(image_size, image_size), keep_ratio=True)
    train = shapes_loader(dataset, [load, load_map, flip, pack], train=True, data_prefix=prefix("train"))
    return train, shapes_loader(dataset, [load, resize, load_map, pack], data_prefix=prefix("val"))
