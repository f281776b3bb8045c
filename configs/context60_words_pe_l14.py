"""Open-vocabulary segmentation of PASCAL Context's 59 classes and the background with PE Core L, without training.

    tools/test.py configs/context60_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.words import *

data_root = "data/VOCdevkit/VOC2010"
data_source = dict(
    name="PASCAL Context (images of VOC 2010)",
    url="https://cs.stanford.edu/~roozbeh/pascal-context (mmsegmentation's converter makes the labels)",
    layout="JPEGImages/*.jpg, SegmentationClassContext/*.png and ImageSets/SegmentationContext/val.txt",
)
test_dataloader = words_loader(
    dict(
        type="PascalContextDataset",
        data_root=data_root,
        ann_file="ImageSets/SegmentationContext/val.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
    ),
    num_classes=60,
    short_side=336,
)
model.merge(dict(words="context60.txt", threshold=0.15))
del words_loader
