"""Cascade Mask R-CNN on PE Spatial L for COCO.

    tools/train.py configs/coco_cascade_pe_l14.py --launcher pytorch

Recipe: mmdet's for ResNet-50, with ViTDet's pyramid and the optimizer of `--tower`; none is published for PE.
"""

_base_ = []  # MMEngine then runs the imports of this file

from pe_dense.engine.config import adapted

globals().update(
    adapted("mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco", "PE-Spatial-L14-448", data_root="data/coco")
)
