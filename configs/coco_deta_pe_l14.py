"""DETA with PE Spatial L on COCO at 1024 px, 24 epochs, starting from the weights of the tower.

    tools/train.py configs/coco_deta_pe_l14.py --launcher pytorch

The recipe is not published for this size; it is the first stage of G with the tower of the paper's recipe for size L
(Tab. 24).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_deta import *
    from ._base_.detection_towers import l14, l_decay_rate, native_windows

model.merge(l14)
model.merge(native_windows)
optim_wrapper.merge(dict(paramwise_cfg=dict(decay_rate=l_decay_rate)))
