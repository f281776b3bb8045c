"""Probes take their sizes from the tower; conflicting sizes are refused."""

import pytest
import torch
from helpers.tiny_probe import ARCH, batch, build, model_config
from mmengine.registry import MODELS
from mmseg.models.segmentors import EncoderDecoder


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_several_layers_together(task):
    model = build(task, "Probe", (0, 1, 2)).train()
    assert model.decode_head.conv_seg.in_channels == 3 * 16
    losses = model(**model.data_preprocessor(batch(task), True), mode="loss")
    model.parse_losses(losses)[0].backward()
    grad = model.decode_head.conv_seg.weight.grad
    assert all(part.any() for part in grad.split(16, dim=1))


def test_dpt_accepts_one_map_or_four():
    arch = dict(ARCH, layers=4)
    four = build("dpt", "Probe", (0, 1, 2, 3), backbone=dict(arch=arch)).eval()
    one = build("dpt", "Probe", (3,), backbone=dict(arch=arch)).eval()
    maps = [torch.randn(1, 16, 4, 4) for _ in range(4)]
    head = four.decode_head
    assert one.decode_head(maps[-1:]).shape == head(maps).shape == (1, 1, 32, 32)
    assert torch.equal(head(maps[-1:]), head(maps[-1:] * 4))
    assert not torch.allclose(head(maps), head(maps[-1:]))
    with pytest.raises(ValueError, match="requires 1 or 4 feature maps, got 2"):
        build("dpt", "Probe", (0, 1))


@pytest.mark.parametrize("kind", ["Probe", "Sweep"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(test_cfg=dict(mode="tiles")), "test_cfg.mode 'tiles' is not one of whole, slide"),
        (dict(test_cfg=dict(mode="slide", crop_size=(16, 16), stride=(8, 17))), r"stride \(8, 17\) is larger than"),
        (
            dict(test_cfg=dict(mode="slide", crop_size=(16, 18))),
            r"crop_size \(16, 18\) is not a multiple of the patch size 4",
        ),
        (dict(data_preprocessor=dict(size=(18, 16))), r"data_preprocessor.size \(18, 16\) is not a multiple"),
        (dict(backbone=dict(out_indices=(5,))), r"block 5 is out of range for 3 blocks; allowed are -3\.\.2"),
        (dict(backbone=dict(_delete_=True, type="pe_dense.PETower", arch=ARCH)), "needs a FrozenTower, got a PETower"),
    ],
)
def test_contradictions(kind, changes, message):
    changes = dict(decode_head=dict(width=16, num_taps=1), **changes) if "_delete_" in str(changes) else changes
    with pytest.raises(ValueError, match=message):
        build("segmentation", kind, (1,), **changes)


def test_windows_overlap_by_a_third_if_nothing_is_said():
    model = build("segmentation", "Probe", (1,), test_cfg=dict(mode="slide", crop_size=(12, 16)))
    assert model.test_cfg.stride == (8, 10)


@pytest.mark.parametrize(
    "size", [(16, 16), (24, 40), (8, 32)], ids=["one window", "with a last one moved back", "smaller than a window"]
)
def test_windows_are_mmsegs(size):
    test_cfg = dict(mode="slide", crop_size=(16, 16), stride=(8, 12))
    model = build("segmentation", "Probe", (1,), test_cfg=test_cfg).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = EncoderDecoder.slide_inference(model, images, [dict(), dict()])
        torch.testing.assert_close(model.slide_inference(images, [dict(), dict()]), expected)


def test_start_of_a_head_depends_on_the_seed_alone():
    first = build("dpt", "Probe", (1,)).state_dict()
    torch.manual_seed(0)
    torch.randn(7)
    second = MODELS.build(model_config("dpt", "Probe", (1,))).state_dict()
    third = build("dpt", "Probe", (1,), seed=1).state_dict()
    key = "decode_head.convs.0.conv.weight"
    assert torch.equal(first[key], second[key])
    assert not torch.equal(first[key], third[key])
