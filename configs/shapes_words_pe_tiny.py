"""Open-vocabulary segmentation of generated shapes with PE-Mini-Core, without labels.

    tools/test.py configs/shapes_words_pe_tiny.py --cfg-options model.mode=pooled

Also takes a CHECKPOINT of shapes_clip_pe_tiny.py, or a file of both towers of these sizes; for others, name the file by
model.clip=FILE instead. Modes and options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.shapes import *
    from ._base_.shapes_words import *
    from ._base_.words import *

model.merge(shapes_words)
test_dataloader = words_scenes(shapes_loader)
del instance_loaders, shapes_loader, tower, words_loader, words_scenes
