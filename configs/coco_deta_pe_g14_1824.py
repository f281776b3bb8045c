"""DETA with PE Spatial G, stage 4 of 4: COCO at 1824 px, 3 epochs from stage 3's weights: published box AP 65.2.

    tools/train.py configs/coco_deta_pe_g14_1824.py --launcher pytorch
    tools/test.py configs/coco_deta_pe_g14_1824.py hf://facebook/PE-Detection/deta_coco_1824pix.pth

The classifier of the released file, 91 outputs counted by COCO's ids, is cut to the 80 classes;
`model.bbox_head.class_ids` (pe_dense.detection.deta.COCO_IDS) would keep it whole.

Source: Perception Encoder, section 5.3 and its detection code's recipe (64 images per step in total; the tower trains
in bfloat16 and is tested in float32: `model.test_tower_dtype=bfloat16` is faster and less exact, see docs/deta.md).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco import *
    from ._base_.deta import *
    from ._base_.deta_schedule import epoch_schedule
    from ._base_.detection_data import deta_pipelines, loaders
    from ._base_.runtime import *

default_hooks.visualization = dict(type="DetVisualizationHook")
train_dataset.filter_cfg.filter_empty_gt = False
val_evaluator.metric = test_evaluator.metric = "bbox"

image_size = 1824
model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(img_size=image_size, drop_path_rate=0.0, init_cfg=None),
        tower_dtype="bfloat16",
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/coco_deta_pe_g14_1728", keep_classifier=True),
    )
)
# The script's rate; the paper's is 5e-3.
optim_wrapper.merge(dict(optimizer=dict(_delete_=True, type="SGD", lr=5e-5, momentum=0.9, weight_decay=1e-4)))
max_iters, param_scheduler, train_cfg, auto_scale_lr = epoch_schedule(
    num_train_images, batch_size=64, epochs=3, drop_after=2
)

# Longer sides of 1792 (that of the test), 1728, 1536 and 1344 px; boxes of the last two must exceed 64 x 64 px.
train_pipeline, test_pipeline, tta_pipeline = deta_pipelines(image_size)
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)

del deta_pipelines, epoch_schedule, loaders, train_dataset, val_dataset, num_train_images
