"""DETA with PE Spatial G, stage 4 of 4: COCO at 1824 px, 3 epochs from stage 3's weights: published box AP 65.2.

    tools/train.py configs/coco_deta_pe_g14_1824.py --launcher pytorch
    tools/test.py configs/coco_deta_pe_g14_1824.py hf://facebook/PE-Detection/deta_coco_1824pix.pth

The classifier of the released file, 91 outputs counted by COCO's ids, is cut to the 80 classes;
`model.bbox_head.class_ids` (pe_dense.detection.deta.COCO_IDS) would keep it whole.

Source: Perception Encoder, section 5.3 and its detection code's recipe (64 images a step in all; the tower trains in
bfloat16 and is tested in float32: `model.test_tower_dtype=bfloat16` is faster and less exact, see docs/deta.md).
"""

from mmengine.config import read_base

with read_base():
    from .coco_deta_pe_g14_1728 import *

image_size = 1824
model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(img_size=image_size, drop_path_rate=0.0),
        init_cfg=dict(checkpoint="work_dirs/coco_deta_pe_g14_1728", keep_classifier=True),
    )
)
train_dataloader.dataset.pipeline[3].image_size = image_size
val_dataloader.dataset.pipeline[1].image_size = image_size
test_dataloader = val_dataloader
tta_pipeline[1].image_size = image_size
tta_pipeline[2].transforms[0] = [
    # Longer sides of 1792 (that of the test), 1728, 1536 and 1344 px; boxes of the last two must exceed 64 x 64 px.
    dict(type="pe_dense.DETAView", image_size=image_size, ratio=n / 19)
    for n in (19, 18, 16, 14)
]
tta_model.merge(dict(min_sides=(0, 0, 64, 64)))

optim_wrapper.merge(
    # The script's rate; the paper's is 5e-3.
    dict(optimizer=dict(_delete_=True, type="SGD", lr=5e-5, momentum=0.9, weight_decay=1e-4))
)
max_iters = 3 * epoch
train_cfg.merge(dict(max_iters=max_iters))
param_scheduler[0].merge(dict(end=max_iters, milestones=[2 * epoch]))
