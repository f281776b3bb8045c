"""Parts of the published training recipe in which mmdet differs from Detectron2."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from pe_dense.detection import FixedSizeCrop
from pe_dense.registry import MODELS

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def detector():
    init_default_scope("mmdet")
    config = Config.fromfile(CONFIGS / "lvis_maskrcnn_pe_t16.py")
    config.model.backbone.update(arch=dict(base="PE-Spatial-T16-512", layers=1), global_blocks=(), init_cfg=None)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model


def test_heads_are_initialized_as_in_detectron2(detector):
    """Standard deviations worked out from Detectron2's initializers."""
    roi_head, rpn_head = detector.roi_head, detector.rpn_head
    deviations = {
        "mask predictor": (roi_head.mask_head.conv_logits.weight, 0.001),
        "mask convolution": (roi_head.mask_head.convs[0].conv.weight, (2 / (256 * 9)) ** 0.5),
        "mask upsampling": (roi_head.mask_head.upsample.weight, (2 / (256 * 4)) ** 0.5),
        "box convolution": (roi_head.bbox_head.shared_convs[0].conv.weight, (2 / (256 * 9)) ** 0.5),
        "fc1": (roi_head.bbox_head.shared_fcs[0].weight, 12_544**-0.5),
        "classes": (roi_head.bbox_head.fc_cls.weight, 0.01),
        "boxes": (roi_head.bbox_head.fc_reg.weight, 0.001),
        "RPN convolution": (rpn_head.rpn_conv[0].conv.weight, 0.01),
        "RPN classes": (rpn_head.rpn_cls.weight, 0.01),
    }
    for name, (weight, deviation) in deviations.items():
        tolerance = 6 / (2 * weight.numel()) ** 0.5
        assert weight.std().item() == pytest.approx(deviation, rel=tolerance), name
    assert roi_head.bbox_head.shared_fcs[0].weight.abs().max() <= (3 / 12_544) ** 0.5  # uniform
    biases = (
        roi_head.mask_head.conv_logits.bias,
        roi_head.bbox_head.shared_fcs[0].bias,
        roi_head.bbox_head.fc_cls.bias,
    )
    assert not any(bias.any() for bias in biases)


def test_one_random_number_for_both_offsets_of_a_crop():
    crop = FixedSizeCrop(crop_size=(60, 40))
    np.random.seed(0)
    image = np.stack(np.meshgrid(np.arange(100), np.arange(160), indexing="ij"), axis=-1)  # each pixel is its place
    corners = np.array([crop(dict(img=image, img_shape=image.shape[:2]))["img"][0, 0].tolist() for _ in range(400)])
    shares = corners / (60, 100)
    assert shares.min() < 0.01 and shares.max() > 0.99
    assert np.abs(shares[:, 0] - shares[:, 1]).max() <= 0.5 / 60 + 0.5 / 100 + 1e-9
    assert len({tuple(corner) for corner in corners.tolist()}) > 50
    small = crop(dict(img=image[:30, :50], img_shape=(30, 50)))["img"]
    assert small.shape == (30, 50, 2)


def test_published_pipelines_use_it():
    for name in ("coco_maskrcnn_pe_g14", "lvis_maskrcnn_pe_g14"):
        pipeline = Config.fromfile(CONFIGS / f"{name}.py").train_dataloader.dataset.pipeline
        assert [step.type for step in pipeline if "Crop" in step.type] == ["pe_dense.FixedSizeCrop"]
