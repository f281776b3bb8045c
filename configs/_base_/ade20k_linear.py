"""Linear probe of PE Spatial G on ADE20k, in the schedule of DINOv2's linear probe."""

from mmengine.config import read_base

with read_base():
    from .ade20k import *
    from .probe import *
    from .probe_schedule import *
    from .runtime import *
    from .segmentation_data import *

image_size = sizes_by_patch.patch14.image_size
train_dataloader, val_dataloader, tta_pipeline = ade20k_data(segmentation_data, image_size)
test_dataloader = val_dataloader
del ade20k_data, probe_of, segmentation_data

model.merge(
    dict(
        type="pe_dense.SegmentationProbe",
        data_preprocessor=dict(size=(image_size, image_size)),
        decode_head=dict(type="pe_dense.LinearHead", num_classes=num_classes),
        test_cfg=dict(mode="slide", crop_size=(image_size, image_size)),
    )
)
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
tta_model = dict(type="SegTTAModel")
inferencer = dict(type="pe_dense.SegmentationPredictor")
