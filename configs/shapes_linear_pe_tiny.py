"""Linear probe of the tower that `make demo` trains, on the classes of generated shapes, on a CPU in minutes.

tools/train.py configs/shapes_linear_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.shapes_probe import *

num_classes = 9
# Of the training pixels: the background and eight forms, each rarer than the one before.
pixel_shares = (0.8, 0.073, 0.037, 0.021, 0.016, 0.021, 0.015, 0.008, 0.009)
model.merge(
    dict(
        type="pe_dense.SegmentationProbe",
        decode_head=dict(
            type="pe_dense.LinearHead",
            num_classes=num_classes,
            class_weight=[share**-0.5 for share in pixel_shares],
        ),
    )
)
train_dataloader.merge(
    dict(
        dataset=dict(
            type="pe_dense.ShapesSegmentationDataset",
            data_prefix=dict(img_path="train", seg_map_path="semantic/train"),
            pipeline=[
                dict(type="pe_dense.LoadImage"),
                dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
                dict(type="RandomFlip", prob=[0.25, 0.25], direction=["horizontal", "vertical"]),
                dict(type="PackSegInputs"),
            ],
        )
    )
)
val_dataloader.merge(
    dict(
        dataset=dict(
            type="pe_dense.ShapesSegmentationDataset",
            data_prefix=dict(img_path="val", seg_map_path="semantic/val"),
            pipeline=[
                dict(type="pe_dense.LoadImage"),
                dict(type="Resize", scale=(image_size, image_size), keep_ratio=True),
                dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
                dict(type="PackSegInputs"),
            ],
        )
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.IoUMetric")
test_evaluator = val_evaluator
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
inferencer = dict(type="pe_dense.SegmentationPredictor")
