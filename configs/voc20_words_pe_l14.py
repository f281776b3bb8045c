"""Open-vocabulary segmentation of PASCAL VOC's 20 classes, without the background, with PE Core L, without training.

    tools/test.py configs/voc20_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.voc2012 import *
    from ._base_.words import *

names = """
    aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,
    person, pottedplant, sheep, sofa, train, tvmonitor
"""
classes = " ".join(names.split()).split(", ")
test_dataloader = words_loader(
    dict(
        type="BaseSegDataset",
        reduce_zero_label=True,  # pixels of the background are ignored
        metainfo=dict(classes=classes),
        **val_files,
    ),
    num_classes=20,
    short_side=336,
)
model.merge(dict(words="voc20.txt"))
del val_files, words_loader
