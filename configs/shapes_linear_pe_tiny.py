"""Linear probe of PE-Mini-Spatial, on the classes of generated shapes, on a CPU in a minute.

tools/train.py configs/shapes_linear_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.shapes_segmentation import *
