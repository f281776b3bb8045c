"""Depth of generated shapes by a head on the frozen PE-Mini-Spatial."""

from mmengine.config import read_base

with read_base():
    from .mini_tower import *
    from .probe import *
    from .runtime import *
    from .shapes import *
    from .shapes_probe import *

min_depth, max_depth = 0.5, 12.0  # meters
model.merge(
    dict(
        type="pe_dense.DepthProbe",
        data_preprocessor=dict(size=(image_size, image_size), seg_pad_val=0),
        backbone=dict(mini_tower, _delete_=True, type="pe_dense.FrozenTower"),
        decode_head=dict(min_depth=min_depth, max_depth=max_depth),
        test_cfg=dict(mode="whole"),
    )
)

train_dataloader, val_dataloader = map_loaders(
    shapes_loader,
    image_size,
    "pe_dense.ShapesDepthDataset",
    dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3),
    dict(type="RandomFlip", prob=0.5),
    depth_map_path="depth",
)
# In these scenes, the size of a shape tells its distance.
data_root = "data/shapes_perspective"
generator = dict(num_train=400, num_val=80, difficulty="easy", perspective=True)
for loader in (train_dataloader, val_dataloader):
    loader["dataset"].update(data_root=data_root, generator=generator)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.DepthMetric", min_depth_eval=min_depth, max_depth_eval=max_depth)
test_evaluator = val_evaluator
inferencer = dict(type="pe_dense.DepthPredictor")
default_hooks.merge(
    dict(
        logger=dict(interval=25),
        checkpoint=dict(interval=train_cfg.val_interval, save_best="rmse", rule="less"),
    )
)
del instance_loaders, loader, map_loaders, shapes_loader
