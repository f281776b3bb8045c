"""Depth of generated shapes: a small DPT head on the tower that `make demo` trains, on a CPU in minutes.

tools/train.py configs/shapes_depth_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.shapes_probe import *

min_depth, max_depth = 0.5, 12.0  # meters
model.merge(
    dict(
        type="pe_dense.DepthProbe",
        data_preprocessor=dict(seg_pad_val=0),
        decode_head=dict(type="pe_dense.DPTDepthHead", min_depth=min_depth, max_depth=max_depth, channels=32),
    )
)
train_dataloader.merge(
    dict(
        dataset=dict(
            type="pe_dense.ShapesDepthDataset",
            data_prefix=dict(img_path="train", depth_map_path="depth/train"),
            pipeline=[
                dict(type="pe_dense.LoadImage"),
                dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackSegInputs"),
            ],
        )
    )
)
val_dataloader.merge(
    dict(
        dataset=dict(
            type="pe_dense.ShapesDepthDataset",
            data_prefix=dict(img_path="val", depth_map_path="depth/val"),
            pipeline=[
                dict(type="pe_dense.LoadImage"),
                dict(type="Resize", scale=(image_size, image_size), keep_ratio=True),
                dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3),
                dict(type="PackSegInputs"),
            ],
        )
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.DepthMetric", min_depth_eval=min_depth, max_depth_eval=max_depth)
test_evaluator = val_evaluator
default_hooks.merge(dict(checkpoint=dict(save_best="rmse", rule="less")))
inferencer = dict(type="pe_dense.DepthPredictor")
