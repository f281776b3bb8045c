"""Open-vocabulary segmentation of PASCAL VOC's 20 classes and the background with PE Core L, without training.

    tools/test.py configs/voc21_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.voc2012 import *
    from ._base_.words import *

test_dataloader = words_loader(
    dict(type="PascalVOCDataset", **val_files),
    num_classes=21,
    short_side=336,
)
model.merge(dict(words="voc21.txt", threshold=0.2))
del val_files, words_loader
