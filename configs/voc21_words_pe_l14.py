"""Open-vocabulary segmentation of PASCAL VOC's 20 classes and the background with PE Core L, without training.

    tools/test.py configs/voc21_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.words import *

data_root = "data/VOCdevkit/VOC2012"
data_source = dict(
    name="PASCAL VOC 2012",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012",
    layout="JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/val.txt",
)
test_dataloader = words_loader(
    dict(
        type="PascalVOCDataset",
        data_root=data_root,
        ann_file="ImageSets/Segmentation/val.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ),
    num_classes=21,
    short_side=336,
)
model.merge(dict(words="voc21.txt", threshold=0.2))
del words_loader
