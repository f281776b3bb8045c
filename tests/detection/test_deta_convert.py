"""Conversion of the released DETA detector: all keys are used, with 91 or 80 classifier outputs."""

import pytest
import torch
from helpers.recordings import Recording, recordings
from helpers.released_deta import build, sample

from pe_dense.detection.deta import COCO_IDS
from pe_dense.engine.runner import load_model_state, model_state
from pe_dense.utils import CheckpointError


@pytest.fixture(scope="module")
def golden():
    return Recording(recordings("deta*.npz", exclude=["deta_inputs*", "deta_tta_merge*"])[0])


@pytest.fixture(scope="module")
def model(golden):
    return build(golden).eval()


def test_every_key_is_accounted_for(golden, model):
    def refused(change, message):
        state = golden.state
        change(state)
        with pytest.raises(CheckpointError, match=message):
            model_state(model, state, "file.pth")

    refused(lambda state: state.update({"mask_head.weight": torch.zeros(2)}), "1 keys are unexpected: mask_head")
    refused(
        lambda state: state["transformer.decoder.class_embed.1.bias"].add_(1),
        "1 keys differ from their first copy: transformer.decoder.class_embed.1.bias",
    )
    refused(lambda state: state.pop("class_embed.0.bias"), "transformer.decoder.class_embed.0.bias")
    refused(lambda state: state.pop("transformer.level_embed"), "missing in the file: ")
    refused(lambda state: state.pop("transformer.pix_trans.bias"), "1 missing in the file: pix_trans_fc.bias")
    refused(lambda state: state.pop("backbone.0.body.ln_pre.bias"), "1 missing in the file: ln_pre.bias")
    refused(
        lambda state: state.update({"input_proj.0.0.bias": torch.zeros(3)}),
        r"1 of another shape: neck.input_proj.0.0.bias \(3,\) for \(256,\)",
    )


def test_own_checkpoints_pass_unchanged(model):
    state = model.state_dict()
    assert model_state(model, dict(state_dict=state), "own.pth").keys() == state.keys()


def test_coco_ids():
    assert len(COCO_IDS) == 80 and COCO_IDS[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13) and COCO_IDS[-1] == 90


@torch.no_grad()
def test_classifier_of_80_or_91_outputs(golden, model):
    """Both have the scores of the published outputs, labeled 0..79."""
    ids = list(COCO_IDS)
    maps = model.neck(model.backbone(golden["image"]))
    whole = build(golden, num_classes=80, class_ids=ids).eval()
    cut = build(golden, num_classes=80).eval()
    assert whole.bbox_head.cls_out_channels == 91 and cut.bbox_head.cls_out_channels == 80
    published = model.forward_transformer(maps, [sample(golden)])
    logits, _ = model.bbox_head(**published)
    results = []
    for other in (whole, cut):
        given = other.forward_transformer(maps, [sample(golden)])
        torch.testing.assert_close(given["references"][0], published["references"][0])  # objectness is kept
        found = other.bbox_head.predict(**given, batch_data_samples=[sample(golden)])[0]
        assert found.scores[0] == logits[-1][..., ids].sigmoid().max()
        assert found.labels[0] == logits[-1][0][:, ids].flatten().argmax() % 80
        results.append(found)
    assert torch.equal(results[0].labels, results[1].labels)
    torch.testing.assert_close(results[0].scores, results[1].scores)


def test_class_ids_train_the_published_outputs(golden, model):
    """An object with label i trains output class_ids[i], with the losses of a model with labels as in the file."""
    whole = build(golden, num_classes=80, class_ids=list(COCO_IDS)).train()
    plain = build(golden).train()
    counted = sample(golden)
    counted.gt_instances.labels = torch.tensor([70, 1, 6, 90, 84, 23])
    labeled = sample(golden)
    labeled.gt_instances.labels = torch.tensor([COCO_IDS.index(i) for i in (70, 1, 6, 90, 84, 23)])
    with torch.no_grad():
        expected, ours = plain.loss(golden["image"], [counted]), whole.loss(golden["image"], [labeled])
    assert {name: value.item() for name, value in ours.items()} == {k: v.item() for k, v in expected.items()}


def test_class_ids_must_be_one_for_each_class(golden):
    with pytest.raises(ValueError, match="class_ids has 2 ids for num_classes=3"):
        build(golden, load=False, num_classes=3, class_ids=[1, 2])


def test_start_from_a_checkpoint(golden, model, tmp_path):
    """`init_cfg` loads all weights, or all except the classifiers, and refuses weights that do not match."""
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "stage.pth")
    start = dict(type="Pretrained", checkpoint=str(tmp_path / "stage.pth"))
    following = build(golden, load=False)
    following.start = start
    following.init_weights()
    assert all(torch.equal(value, following.state_dict()[key]) for key, value in model.state_dict().items())

    other = build(golden, load=False, num_classes=5)
    other.start = start
    with pytest.raises(CheckpointError, match="of another shape: bbox_head.cls_branches.0.weight"):
        other.init_weights()
    other.start = dict(start, keep_classifier=False)
    other._is_init = False
    other.init_weights()
    for key, value in model.state_dict().items():
        if "cls_branches" not in key:
            assert torch.equal(value, other.state_dict()[key]), key
    # a probability of 0.01, as focal loss wants it
    assert other.bbox_head.cls_branches[0].bias.sigmoid().tolist() == pytest.approx([0.01] * 5)


def test_released_file_with_its_wrapper(golden, model, tmp_path):
    torch.save(dict(model=golden.state, epoch=2), tmp_path / "released.pth")
    from pe_dense.utils import read_checkpoint

    other = build(golden, load=False)
    load_model_state(other, read_checkpoint(tmp_path / "released.pth"), "released.pth")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
