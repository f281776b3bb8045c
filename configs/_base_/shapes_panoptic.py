"""Generated shapes in COCO's panoptic format: eight classes of things and the background."""

from mmengine.config import read_base

with read_base():
    from .detection_data import pack_to_test
    from .runtime import *
    from .shapes import *

num_things, num_stuff = 8, 1


def panoptic_data(part, steps, train=False):
    """Create the data loader of a part."""
    return shapes_loader(
        "pe_dense.ShapesPanopticDataset",
        [dict(type="pe_dense.LoadImage"), *steps],
        train=train,
        ann_file=f"panoptic/panoptic_{part}.json",
        data_prefix=dict(img=f"{part}/", seg=f"panoptic/panoptic_{part}/"),
    )


load_segments = dict(type="LoadPanopticAnnotations", with_bbox=True, with_mask=True, with_seg=True)
flip = dict(type="RandomFlip", prob=[0.25, 0.25], direction=["horizontal", "vertical"])
resize = dict(type="Resize", scale=(image_size, image_size), keep_ratio=True)
train_dataloader = panoptic_data("train", [load_segments, flip, dict(type="PackDetInputs")], train=True)
val_dataloader = panoptic_data("val", [resize, load_segments, pack_to_test()])
test_dataloader = val_dataloader
val_evaluator = dict(
    type="CocoPanopticMetric",
    ann_file=f"{data_root}/panoptic/panoptic_val.json",
    seg_prefix=f"{data_root}/panoptic/panoptic_val/",
)
test_evaluator = val_evaluator
default_scope = "mmdet"
visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
inferencer = dict(type="pe_dense.PanopticPredictor")
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks.merge(dict(logger=dict(interval=25)))
del flip, instance_loaders, load_segments, pack_to_test, panoptic_data, resize, shapes_loader
