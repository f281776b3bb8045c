"""Open-vocabulary segmentation of COCO-Stuff's 171 classes with PE Core L, without training.

    tools/test.py configs/cocostuff_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.words import *

data_root = "data/coco_stuff164k"
data_source = dict(
    name="COCO-Stuff 164k",
    url="https://github.com/nightrome/cocostuff (mmsegmentation's converter makes the labels)",
    layout="images/val2017/*.jpg and annotations/val2017/*_labelTrainIds.png",
)
test_dataloader = words_loader(
    dict(
        type="COCOStuffDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    ),
    num_classes=171,
    short_side=336,
)
model.merge(dict(words="cocostuff.txt"))
del words_loader
