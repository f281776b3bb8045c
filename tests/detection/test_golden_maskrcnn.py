"""Mask R-CNN, built from our configs, against recordings of the published detectors."""

import numpy as np
import pytest
import torch
from helpers.recordings import Recording, by_recording
from helpers.released_maskrcnn import build, prepare, sample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torchvision.ops import box_iou

TOLERANCE = dict(atol=1e-5, rtol=0)
by_maskrcnn = by_recording("maskrcnn_*.npz")


def assert_same_set(boxes, scores, labels, recorded_boxes, recorded_scores, recorded_labels, allowed_misses):
    """Every recorded item is matched by one of ours: same label, score within 1e-4, box within 0.01 px."""
    same = (boxes[:, None] - recorded_boxes[None]).abs().amax(-1) <= 0.01
    same &= (scores[:, None] - recorded_scores[None]).abs() <= 1e-4
    same &= labels[:, None] == recorded_labels[None]
    assert (~same.any(0)).sum() <= allowed_misses
    assert (~same.any(1)).sum() <= allowed_misses
    return same


@by_maskrcnn
@torch.no_grad()
def test_golden_inference(path):
    golden = Recording(path)
    model = build(golden)
    data = prepare(model, golden, sample(golden))
    maps = model.backbone(data["inputs"])
    torch.testing.assert_close(maps[-1], golden["net_last"], **TOLERANCE)
    levels = model.neck(maps)
    for number, level in enumerate(levels, start=2):
        torch.testing.assert_close(level, golden[f"pyramid/p{number}"], **TOLERANCE)

    proposals = model.rpn_head.predict(levels, data["data_samples"], rescale=False)[0]
    zeros = torch.zeros(len(golden["proposals/boxes"]), dtype=torch.long)
    assert_same_set(
        proposals.bboxes,
        proposals.scores,
        torch.zeros(len(proposals), dtype=torch.long),
        golden["proposals/boxes"],
        golden["proposals/logits"].sigmoid(),
        zeros,
        allowed_misses=len(zeros) // 100,
    )

    found = model.predict(data["inputs"], data["data_samples"], rescale=True)[0].pred_instances
    recorded = (golden["pred/boxes"], golden["pred/scores"], golden["pred/labels"])
    same = assert_same_set(found.bboxes, found.scores, found.labels, *recorded, allowed_misses=2)
    shape = golden["pred/mask_shape"].tolist()
    masks = np.unpackbits(golden["pred/masks"].numpy(), count=int(np.prod(shape))).reshape(shape).astype(bool)
    pairs = same.nonzero()
    wrong = (found.masks[pairs[:, 0]] != torch.from_numpy(masks)[pairs[:, 1]]).flatten(1).float().mean(1)
    assert len(pairs) and wrong.max() <= 1e-4


@by_maskrcnn
def test_golden_losses(path):
    golden = Recording(path)
    model = build(golden)
    shape = golden["train/mask_shape"].tolist()
    masks = np.unpackbits(golden["train/gt_masks"].numpy(), count=int(np.prod(shape))).reshape(shape)
    objects = InstanceData(
        bboxes=golden["train/gt_boxes"], labels=golden["train/gt_labels"], masks=BitmapMasks(masks, *shape[1:])
    )
    data_sample = sample(golden)
    data_sample.gt_instances = objects
    data = prepare(model, golden, data_sample, training=True)
    maps = model.neck(model.backbone(data["inputs"]))

    only_objects = sample(golden)
    only_objects.gt_instances = InstanceData(bboxes=objects.bboxes, labels=torch.zeros_like(objects.labels))
    rpn_samples = prepare(model, golden, only_objects)["data_samples"]
    losses, proposals = model.rpn_head.loss_and_predict(maps, rpn_samples, proposal_cfg=model.train_cfg.rpn_proposal)
    sampled = golden["train/rpn_counts"][0].item()
    for ours, recorded in (("loss_rpn_cls", "rpn_cls_sum"), ("loss_rpn_bbox", "rpn_box_sum")):
        total = sum(loss.double().item() for loss in losses[ours]) * sampled
        assert total == pytest.approx(golden[f"train/{recorded}"].item(), rel=1e-4), ours

    iou = box_iou(proposals[0].bboxes, golden["train/proposals"])
    assert (iou.amax(0) > 0.999).float().mean() >= 0.99

    # The second stage on the recorded proposals, so that what follows does not depend on near ties.
    given = InstanceData(bboxes=golden["train/proposals"], scores=torch.ones(len(golden["train/proposals"])))
    losses = model.roi_head.loss(maps, [given], data["data_samples"])
    for ours, recorded in (("loss_cls", "loss_cls"), ("loss_bbox", "loss_box_reg"), ("loss_mask", "loss_mask")):
        assert losses[ours].item() == pytest.approx(golden[f"train/{recorded}"].item(), abs=1e-4), ours
