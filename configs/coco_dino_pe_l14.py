"""DINO on PE Spatial L for COCO.

    tools/train.py configs/coco_dino_pe_l14.py --launcher pytorch

Recipe: mmdet's for ResNet-50, with ViTDet's pyramid and the optimizer of `--tower`; none is published for PE.
"""

_base_ = []  # MMEngine then runs the imports of this file

from pe_dense.engine.config import adapted

globals().update(adapted("mmdet::dino/dino-4scale_r50_8xb2-12e_coco", "PE-Spatial-L14-448", data_root="data/coco"))
