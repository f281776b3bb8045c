"""Open-vocabulary segmentation of Cityscapes' 19 classes with PE Core L, without training.

    tools/test.py configs/cityscapes_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.words import *

data_root = "data/cityscapes"
data_source = dict(
    name="Cityscapes",
    url="https://www.cityscapes-dataset.com/downloads (mmsegmentation's converter makes the labels)",
    layout="leftImg8bit/val/*/*.png and gtFine/val/*/*_gtFine_labelTrainIds.png",
)
test_dataloader = words_loader(
    dict(
        type="CityscapesDataset",
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
    ),
    num_classes=19,
    short_side=448,
)
model.merge(dict(words="cityscapes.txt", test_cfg=dict(crop_size=(224, 224))))
del words_loader
