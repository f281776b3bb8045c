"""UPerNet on PE Spatial L for ADE20k.

    tools/train.py configs/ade20k_upernet_pe_l14.py --launcher pytorch

Recipe: mmseg's for ResNet-50, with ViTDet's pyramid and the optimizer of `--tower`; none is published for PE.
"""

_base_ = []  # MMEngine then runs the imports of this file

from pe_dense.engine.config import adapted

globals().update(
    adapted("mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512", "PE-Spatial-L14-448", data_root="data/ade20k")
)
