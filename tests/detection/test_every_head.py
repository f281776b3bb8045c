"""Methods of mmdet and mmseg of different kinds on a tiny tower; tests/check_heads.py checks all of them."""

import pytest
import torch
from check_heads import all_configs, build, check
from helpers.head_configs import MMDET, MMSEG

# Dense with FPN, two-stage, mask transformer without a neck, a neck in addition to FPN with DCNv2, and a head of mmseg.
METHODS = ["FCOS", "DyHead", "Mask2Former, instance", "RTMDet-Ins"]


@pytest.mark.parametrize("method", METHODS)
def test_detectors(method):
    result = check(f"mmdet::{MMDET[method]}")
    assert result["losses"] and "bboxes" in result["predicted"]
    assert not result["unused"]  # parameters without a gradient, which distributed training refuses


@pytest.mark.parametrize("method", ["FCN", "Segmenter"])
def test_segmentation_heads(method):
    result = check(f"mmseg::{MMSEG[method]}")
    assert result["losses"] and result["predicted"] == ["semantic"]
    assert not result["unused"]


def test_all_parts_are_initialized():
    """Memory that no initialization writes is NaN here."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        *_, model = build(f"mmdet::{MMDET['Deformable DETR']}")
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_there_are_as_many_methods_as_promised():
    assert len(all_configs()) == len(MMDET) + len(MMSEG)
    assert len(MMDET) >= 45 and len(MMSEG) >= 15
