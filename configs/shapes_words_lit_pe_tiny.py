"""Open-vocabulary segmentation of generated shapes in mode `tokens`, by a head that shapes_lit_pe_tiny.py trains.

tools/train.py configs/shapes_lit_pe_tiny.py
tools/test.py configs/shapes_words_lit_pe_tiny.py work_dirs/shapes_lit_pe_tiny
"""

from mmengine.config import read_base

with read_base():
    from ._base_.mini_lit import *
    from ._base_.shapes import *
    from ._base_.shapes_words import *
    from ._base_.words import *

# The head is trained with the mean of all patches, so it names background patches after the forms in the image, but
# less confidently.
model.merge(dict(shapes_words, mode="tokens", clip=dict(_delete_=True, **mini_lit), init_cfg=None, threshold=0.99))
test_dataloader = words_scenes(shapes_loader)
del instance_loaders, shapes_loader, tower, words_loader, words_scenes
