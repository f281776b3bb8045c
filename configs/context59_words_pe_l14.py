"""Open-vocabulary segmentation of PASCAL Context's 59 classes with PE Core L, without training.

    tools/test.py configs/context59_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.pascal_context import *
    from ._base_.words import *

test_dataloader = words_loader(
    dict(type="PascalContextDataset59", **val_files),
    num_classes=59,
    short_side=336,
)
model.merge(dict(words="context59.txt"))
del val_files, words_loader
