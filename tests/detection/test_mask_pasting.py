"""Masks are pasted into images as mmdet pastes them."""

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead, _do_paste_mask
from mmengine.config import ConfigDict

from pe_dense.detection.inferencer import MaskCrops, _paste, _PasteMasks


@pytest.mark.parametrize("size", [(48, 64), (100, 9)])
def test_pixels_are_those_of_mmdet(size):
    generator = torch.Generator().manual_seed(0)
    for case in range(40):
        mask = torch.rand(1, 1, 28, 28, generator=generator)
        corners = torch.rand(2, 2, generator=generator) * torch.tensor(size[::-1])
        low, high = corners.amin(0), corners.amax(0)
        if case % 4 == 1:
            low, high = low.floor(), high.ceil()
        if case % 4 == 2:
            high = low  # a box without area
        box = torch.cat([low, high])
        expected, (rows, columns) = _do_paste_mask(mask, box[None], *size)
        found, corner = _paste(mask, box.numpy(), size)
        assert corner == (rows.start, columns.start)
        torch.testing.assert_close(found, expected[0], rtol=0, atol=0, equal_nan=True)


def test_small_images_are_pasted_in_crops_too():
    """Without an array of all pixels for each object."""
    head = FCNMaskHead(num_convs=0, in_channels=4, num_classes=3)
    boxes, labels = torch.tensor([[2.0, 4.0, 20.0, 12.0], [0.0, 0.0, 32.0, 24.0]]), torch.tensor([2, 0])
    logits = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    rest = (labels, dict(ori_shape=(48, 64), scale_factor=(0.5, 0.5)), ConfigDict(mask_thr_binary=0.5), True)
    expected = head._predict_by_feat_single(logits, boxes.clone(), *rest)
    paste = _PasteMasks(head)
    assert torch.equal(paste(logits, boxes.clone(), *rest), expected)
    paste.cropped = True
    crops = paste(logits, boxes.clone(), *rest)
    assert isinstance(crops, MaskCrops)
    assert [(crop.shape, corner) for crop, corner in crops] == [((18, 38), (7, 3)), ((48, 64), (0, 0))]
    assert np.array_equal(crops[0][0], expected[0, 7:25, 3:41])
