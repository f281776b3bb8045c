"""Linear probe on COCO-Stuff 164k in DINOv3's form: no figure is known for PE.

    tools/train.py configs/cocostuff_dinov3_linear_pe.py --cfg-options tower=PE-Spatial-B16-512

Options as in ade20k_dinov3_linear_pe.py. Crop and schedule, which are not published, are those of ADE20k.

Source: DINOv3 (arXiv 2508.10104) and its code, eval/segmentation.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.dinov3_linear import *

data_root = "data/coco_stuff164k"
data_source = dict(
    name="COCO-Stuff 164k",
    url="https://github.com/nightrome/cocostuff (mmsegmentation's converter makes the labels)",
    layout="images/{train,val}2017/*.jpg and annotations/{train,val}2017/*_labelTrainIds.png",
)
num_classes = 171
train_dataloader, val_dataloader, _ = segmentation_data(
    image_size,
    dict(type="COCOStuffDataset", data_root=data_root),
    dict(data_prefix=dict(img_path="images/train2017", seg_map_path="annotations/train2017")),
    dict(data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017")),
    num_classes,
)
test_dataloader = val_dataloader
model.merge(dict(decode_head=dict(num_classes=num_classes)))
del _, segmentation_data
