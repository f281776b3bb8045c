"""NMS in Mask R-CNN's heads separates levels and classes exactly."""

from pathlib import Path

import pytest
import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torchvision.ops import nms

from pe_dense.detection.mask_rcnn import detections, keep_by_class

CONFIGS = Path(__file__).parents[2] / "configs"
HARD = dict(type="nms", iou_threshold=0.5)


def crowd(seed=0, count=3000):
    """Boxes around 40 small objects of a 1024 px image, and scores."""
    generator = torch.Generator().manual_seed(seed)
    center, size = torch.rand(40, 2, generator=generator) * 1024, torch.rand(40, 2, generator=generator) * 60 + 8
    shown = torch.randint(40, (count,), generator=generator)
    jitter = torch.randn(count, 4, generator=generator) * 0.12
    middle, size = center[shown] + jitter[:, :2] * size[shown], size[shown] * jitter[:, 2:].exp()
    return torch.cat([middle - size / 2, middle + size / 2], dim=1), torch.rand(count, generator=generator), shown


def by_group(boxes, scores, groups, threshold):
    """Return the indices kept by NMS of each group separately, best first."""
    kept = [(groups == i).nonzero().flatten() for i in groups.unique()]
    kept = torch.cat([part[nms(boxes[part], scores[part], threshold)] for part in kept])
    return kept[scores[kept].argsort(descending=True)]


def test_detections_are_those_of_each_class_alone():
    boxes, best, shown = crowd()
    labels = shown + 1160  # the last of 1203 classes
    scores = torch.zeros(len(boxes), 1204).scatter_(1, labels[:, None], best[:, None])
    found = InstanceData(bboxes=boxes, scores=scores)
    ours = detections(found, ConfigDict(score_thr=0.02, nms=HARD, max_per_img=300))
    wanted = by_group(boxes, best, labels, 0.5)
    wanted = wanted[best[wanted] > 0.02][:300]
    assert torch.equal(ours.bboxes, boxes[wanted]) and torch.equal(ours.labels, labels[wanted])
    merged = keep_by_class(InstanceData(bboxes=boxes, scores=best, labels=labels), HARD)
    assert torch.equal(merged.bboxes, boxes[by_group(boxes, best, labels, 0.5)])


@pytest.mark.parametrize("cfg", [HARD, dict(type="soft_nms", iou_threshold=0.5, min_score=0.05)])
def test_same_detections_as_mmdets_where_rounding_does_not_matter(cfg):
    """Boxes of each class, few classes, small coordinates; soft-NMS stays mmdet's."""
    torch.manual_seed(0)
    model = MODELS.build(tiny())
    images = torch.randn(2, 3, 128, 128)
    metas = [dict(img_shape=(128, 128), scale_factor=(2.0, 2.0), ori_shape=(64, 64))] * 2
    maps = model.extract_feat(images)
    proposals = [InstanceData(bboxes=torch.rand(50, 4).cumsum(1) * 30) for _ in metas]
    settings = ConfigDict(score_thr=0.01, nms=cfg, max_per_img=20)
    with torch.no_grad():
        ours = model.roi_head.predict_bbox(maps, metas, proposals, settings, rescale=True)
        theirs = StandardRoIHead.predict_bbox(model.roi_head, maps, metas, proposals, settings, rescale=True)
        none = model.roi_head.predict_bbox(maps, metas, [item[:0] for item in proposals], settings)
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine) == 20
        for name in ("bboxes", "scores", "labels"):
            assert torch.equal(mine[name], other[name]), name
    assert [len(item) for item in none] == [0, 0] and none[0].bboxes.shape == (0, 4)


def test_proposals_are_those_of_each_level_alone():
    boxes, scores, shown = crowd(3)
    boxes = boxes.clamp(0, 1024) * 100  # rounding to 0.03 px in float32
    head = MODELS.build(tiny().rpn_head | dict(train_cfg=None, test_cfg=None))
    cfg = ConfigDict(nms=dict(type="nms", iou_threshold=0.7), max_per_img=1000, min_bbox_size=0)
    results = InstanceData(bboxes=boxes, scores=scores, level_ids=shown % 5)
    found = head._bbox_post_process(results, cfg)
    sides = boxes[:, 2:] - boxes[:, :2]
    large = (sides > 0).all(1).nonzero().flatten()
    wanted = large[by_group(boxes[large], scores[large], shown[large] % 5, 0.7)][:1000]
    assert torch.equal(found.bboxes, boxes[wanted]) and torch.equal(found.scores, scores[wanted])
    soft = ConfigDict(cfg, nms=dict(type="soft_nms", iou_threshold=0.7))
    assert len(head._bbox_post_process(results[:50], soft)) > 0


def tiny():
    config = Config.fromfile(CONFIGS / "shapes_maskrcnn_pe_tiny.py").model
    config.backbone.init_cfg = None
    return config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*_maskrcnn_*.py")), ids=lambda path: path.stem)
def test_configs_use_these_heads(path):
    model = Config.fromfile(path).model
    assert (model.rpn_head.type, model.roi_head.type) == ("pe_dense.RPNHead", "pe_dense.RoIHead")


def test_gradients_of_the_last_convolution_keep_the_memory_format():
    """Flattening returns contiguous ones, with which an activation that is channels-last is slow."""
    bbox_head = MODELS.build(tiny()).roi_head.bbox_head
    formats, values = [], []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        x = torch.randn(5, bbox_head.in_channels, 7, 7, generator=torch.Generator().manual_seed(0))
        last = bbox_head.shared_convs[-1]

        def watch(module, inputs, output):
            output.register_hook(lambda grad: formats.append(grad.is_contiguous(memory_format=torch.channels_last)))
            output.register_hook(values.append)

        handle = last.register_forward_hook(watch)
        bbox_head(x.contiguous(memory_format=memory_format))[0].square().sum().backward()
        handle.remove()
    assert formats == [True, True]  # LayerNorm's output is channels-last in any case
    torch.testing.assert_close(*values)
