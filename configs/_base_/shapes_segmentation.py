"""Linear probe of PE-Mini-Spatial, on the classes of generated shapes."""

from mmengine.config import read_base

with read_base():
    from .mini_tower import *
    from .probe import *
    from .runtime import *
    from .shapes import *
    from .shapes_probe import *

num_classes = 9
# Of the training pixels: the background and eight forms.
pixel_shares = (0.848, 0.033, 0.018, 0.014, 0.013, 0.021, 0.019, 0.015, 0.018)
model.merge(
    dict(
        type="pe_dense.SegmentationProbe",
        data_preprocessor=dict(size=(image_size, image_size)),
        backbone=dict(mini_tower, _delete_=True, type="pe_dense.FrozenTower"),
        decode_head=dict(
            type="pe_dense.LinearHead",
            num_classes=num_classes,
            class_weight=[share**-0.5 for share in pixel_shares],
        ),
        test_cfg=dict(mode="whole"),
    )
)

train_dataloader, val_dataloader = map_loaders(
    shapes_loader,
    image_size,
    "pe_dense.ShapesSegmentationDataset",
    dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
    dict(type="RandomFlip", prob=[0.25, 0.25], direction=["horizontal", "vertical"]),
    seg_map_path="semantic",
)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.IoUMetric")
test_evaluator = val_evaluator
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
inferencer = dict(type="pe_dense.SegmentationPredictor")
default_hooks.merge(dict(logger=dict(interval=25), checkpoint=dict(interval=train_cfg.val_interval)))
del instance_loaders, map_loaders, shapes_loader
