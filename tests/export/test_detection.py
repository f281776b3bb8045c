"""Graphs of detectors against the models' own predictions, in PyTorch; test_parity.py runs them in onnxruntime."""

import pytest
import torch
from helpers.exported import compare_detections, own_predictions, padded_images, tiny_detector

from pe_dense.export import graph_of
from pe_dense.export.boxes import class_wise_nms
from pe_dense.ops.nms import batched_nms

SIZES = [(128, 100), (90, 128)]


@pytest.mark.parametrize("name", ["shapes_maskrcnn_pe_tiny", "shapes_deta_pe_tiny"])
def test_detections_are_the_models(name):
    """With padding on either side, for each image of a batch."""
    model = tiny_detector(name)
    images, sizes = padded_images(*SIZES)
    graph = graph_of(model)
    with torch.no_grad(), graph.tracing():
        outputs = graph(images, sizes)
    for index, expected in enumerate(own_predictions(model, images, sizes)):
        compare_detections([value[index] for value in outputs], expected, 1e-4)


def test_agnostic_boxes_and_masks_and_too_few_detections():
    """Places without a detection are zero."""
    model = tiny_detector(
        "shapes_maskrcnn_pe_tiny",
        **{
            "model.roi_head.bbox_head.reg_class_agnostic": True,
            "model.roi_head.mask_head.class_agnostic": True,
            "model.test_cfg.rcnn.score_thr": 0.3,
        },
    )
    images, sizes = padded_images((128, 128))
    graph = graph_of(model)
    with torch.no_grad():
        boxes, scores, labels, masks = graph(images, sizes)
    (expected,) = own_predictions(model, images, sizes)
    compare_detections([boxes[0], scores[0], labels[0]], expected, 1e-4)
    count = len(expected.scores)
    assert count < scores.shape[1] == 50
    assert not boxes[0, count:].any() and not scores[0, count:].any() and not labels[0, count:].any()
    assert masks.shape == (1, 50, 28, 28)


def test_deta_with_few_proposals_after_nms():
    """Then the best by objectness are selected, as in the model."""
    model = tiny_detector("shapes_deta_pe_tiny", **{"model.proposal_iou": 0.01})
    images, sizes = padded_images((128, 100))
    graph = graph_of(model)
    with torch.no_grad(), graph.tracing():
        outputs = graph(images, sizes)
    (expected,) = own_predictions(model, images, sizes)
    compare_detections([value[0] for value in outputs], expected, 1e-4)


def test_class_wise_nms():
    generator = torch.Generator().manual_seed(0)
    corners = 300 * torch.rand(200, 2, generator=generator)
    boxes = torch.cat([corners, corners + 20 + 200 * torch.rand(200, 2, generator=generator)], 1) - 50
    scores = torch.rand(200, generator=generator)
    labels = torch.randint(0, 7, (200,), generator=generator)
    expected = batched_nms(boxes, scores, labels, 0.5)
    kept = class_wise_nms(boxes, scores, labels, 7, 0.5, 200)
    assert len(expected) < 190
    assert torch.equal(kept[: len(expected)], expected)
    assert (kept[len(expected) :] == 200).all()
    assert torch.equal(class_wise_nms(boxes, scores, labels, 7, 0.5, 10), expected[:10])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shapes_maskrcnn_pe_tiny", {"model.test_cfg.rcnn.nms.type": "soft_nms"}, "only plain NMS"),
        ("shapes_maskrcnn_pe_tiny", {"model.rpn_head.bbox_coder.clip_border": False}, "only mmdet's default"),
        (
            "shapes_deta_pe_tiny",
            {"model.test_cfg.nms": dict(type="soft_nms", iou_threshold=0.7)},
            "soft_nms cannot be exported",
        ),
    ],
)
def test_what_cannot_be_exported(name, options, message):
    with pytest.raises(ValueError, match=message):
        graph_of(tiny_detector(name, **options))
