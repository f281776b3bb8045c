"""DETA with PE Spatial G, tested with all augmentations: published box AP 66.0 (65.2 without).

    tools/test.py configs/coco_deta_pe_g14_1824_tta.py hf://facebook/PE-Detection/deta_coco_1824pix.pth

More queries, four sizes, each mirrored, too, and soft-NMS over all that is found; the smaller sizes give large boxes
only. Only for tests: train with coco_deta_pe_g14_1824.py.

Source: Perception Encoder, section 5.3 and its detection code's recipe.
"""

from mmengine.config import read_base

with read_base():
    from .coco_deta_pe_g14_1824 import *

model.merge(dict(num_queries=2000, init_cfg=None, test_cfg=dict(nms=None, max_per_img=10_000)))
model = dict(
    type="pe_dense.TestTimeDETA",
    module=model,
    min_sides=[(1824, 0), (1728, 0), (1536, 64), (1344, 64)],
    nms=dict(type="soft_nms", iou_threshold=0.7),
)
test_dataloader.dataset.pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(size, size), keep_ratio=True) for size in (1824, 1728, 1536, 1344)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=(
                        "img_id",
                        "img_path",
                        "ori_shape",
                        "img_shape",
                        "scale",
                        "scale_factor",
                        "flip",
                        "flip_direction",
                    ),
                )
            ],
        ],
    ),
]
val_dataloader = test_dataloader
