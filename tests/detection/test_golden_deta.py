"""DETA, built from our configs, against recordings of the published detector."""

import pytest
import torch
from helpers.recordings import Recording, by_recording
from helpers.released_deta import build, sample

from pe_dense.detection.deta import soft_nms

TOLERANCE = dict(atol=1e-5, rtol=0)
LOGITS = dict(atol=1e-4, rtol=0)
by_model = by_recording("deta*.npz", exclude=["deta_inputs*", "deta_tta_merge*"])


def our_name(recorded):
    """'loss_ce_0' -> 'd0.loss_cls', 'loss_bbox_enc' -> 'enc_loss_bbox', 'class_error' -> 'class_error'."""
    name, _, layer = recorded.rpartition("_")
    if layer != "enc" and not layer.isdigit():
        name, layer = recorded, ""
    prefix = {"": "", "enc": "enc_"}.get(layer, f"d{layer}.")
    return prefix + dict(loss_ce="loss_cls", loss_giou="loss_iou").get(name, name)


@pytest.fixture(scope="module")
def outputs():
    """Compute once per recording: the model, its pyramid levels and the inputs of its head."""
    known = {}

    def of(path):
        if path not in known:
            golden = Recording(path)
            model = build(golden).train()  # nothing is dropped, but the first stage's outputs are kept
            with torch.no_grad():
                maps = model.backbone(golden["image"])
                given = model.forward_transformer(model.neck(maps), [sample(golden)])
            known[path] = golden, model, maps, given
        return known[path]

    return of


@by_model
@torch.no_grad()
def test_golden_maps(outputs, path):
    golden, model, maps, _ = outputs(path)
    for number, level in enumerate(model.neck.pyramid(maps[-1]), start=3):
        torch.testing.assert_close(level, golden[f"backbone/p{number}"], **TOLERANCE)


@by_model
@torch.no_grad()
def test_golden_mask_is_the_samples(outputs, path):
    golden, *_ = outputs(path)
    height, width = golden.config["valid_hw"]
    valid = torch.zeros_like(golden["mask"][0])
    valid[:height, :width] = True
    assert torch.equal(~valid, golden["mask"][0])


@by_model
@torch.no_grad()
def test_golden_first_stage(outputs, path):
    golden, _, _, given = outputs(path)
    torch.testing.assert_close(given["enc_logits"][..., :1], golden["enc_logits"], **LOGITS)
    torch.testing.assert_close(given["enc_anchors"], golden["enc_anchors"], **TOLERANCE)
    torch.testing.assert_close(given["references"][0], golden["init_reference"], **TOLERANCE)


@by_model
@torch.no_grad()
def test_golden_decoder(outputs, path):
    golden, model, _, given = outputs(path)
    logits, boxes = model.bbox_head(given["hidden_states"], given["references"])
    names = [f"aux{i}" for i in range(len(logits) - 1)] + ["pred"]
    for name, layer_logits, layer_boxes in zip(names, logits, boxes, strict=True):
        torch.testing.assert_close(layer_logits, golden[f"{name}_logits"], **LOGITS)
        torch.testing.assert_close(layer_boxes, golden[f"{name}_boxes"], **TOLERANCE)


@by_model
def test_golden_losses(outputs, path):
    golden, model, _, given = outputs(path)
    losses = model.bbox_head.loss(**given, batch_data_samples=[sample(golden)])
    recorded = golden.subset("loss/")
    assert len(losses) == len(recorded)
    for name, value in recorded.items():
        assert losses[our_name(name)].item() == pytest.approx(value.item(), abs=1e-4), name


@by_model
@torch.no_grad()
def test_golden_detections(outputs, path):
    golden, model, _, given = outputs(path)
    given = {name: given[name] for name in ("hidden_states", "references")}
    found = model.bbox_head.predict(**given, batch_data_samples=[sample(golden)], rescale=True)[0]
    boxes, scores, labels = (golden[f"nms/{name}"] for name in ("boxes", "scores", "labels"))
    same = (found.bboxes[:, None] - boxes[None]).abs().amax(-1) <= 0.01
    same &= (found.scores[:, None] - scores[None]).abs() <= 1e-4
    same &= found.labels[:, None] == labels[None]
    assert (~same.any(0)).sum() <= 2 and (~same.any(1)).sum() <= 2


@by_model
def test_golden_soft_nms(path):
    golden = Recording(path)
    kept, scores = soft_nms(
        golden["nms/boxes"], golden["nms/scores"], golden["nms/labels"], iou_threshold=golden.config["nms_iou"]
    )
    assert torch.equal(kept, golden["softnms/keep"])
    torch.testing.assert_close(scores, golden["softnms/scores"], **LOGITS)
