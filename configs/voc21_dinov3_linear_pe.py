"""Linear probe on VOC 2012 (21 classes) in DINOv3's form: published mIoU 82.7 for PE Spatial G, 69.2 for Core G.

    tools/train.py configs/voc21_dinov3_linear_pe.py --cfg-options tower=PE-Spatial-B16-512

Options as in ade20k_dinov3_linear_pe.py. Crop and schedule, which are not published, are those of ADE20k.

Source: DINOv3 (arXiv 2508.10104), table 3, and its code, eval/segmentation.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.dinov3_linear import *

data_root = "data/VOCdevkit/VOC2012"
data_source = dict(
    name="PASCAL VOC 2012 with the labels of SBD",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012 (mmsegmentation's converter makes SegmentationClassAug)",
    layout="JPEGImages/*.jpg, SegmentationClass{,Aug}/*.png and ImageSets/Segmentation/{trainaug,val}.txt",
)
num_classes = 21
train_dataloader, val_dataloader, _ = segmentation_data(
    image_size,
    dict(type="PascalVOCDataset", data_root=data_root),
    dict(
        ann_file="ImageSets/Segmentation/trainaug.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassAug"),
    ),
    dict(
        ann_file="ImageSets/Segmentation/val.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ),
    num_classes,
)
test_dataloader = val_dataloader
model.merge(dict(decode_head=dict(num_classes=num_classes)))
del _, segmentation_data
