"""DETA with PE Spatial G, tested with all augmentations: published box AP 66.0 (65.2 without).

    tools/test.py configs/coco_deta_pe_g14_1824_tta.py hf://facebook/PE-Detection/deta_coco_1824pix.pth

The same as `--tta` on coco_deta_pe_g14_1824.py, which is the one to train with; other sizes of DETA have the flag.

Source: Perception Encoder, section 5.3 and its detection code's recipe.
"""

from mmengine.config import read_base

with read_base():
    from .coco_deta_pe_g14_1824 import *

model = dict(**tta_model, module=model)
test_dataloader.dataset.pipeline = tta_pipeline
val_dataloader = test_dataloader
