"""Depth heads: range, initialization, losses, class token, and pixels without depth."""

import math

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pe_dense.depth import DepthProbe, DINOv2DepthHead, DPTDepthHead, LinearDepthHead, SigLoss


def samples(truth):
    return [SegDataSample(gt_depth_map=PixelData(data=depth)) for depth in truth]


HEADS = {
    "linear": lambda **options: LinearDepthHead(8, 1, num_bins=16, **options),
    "dpt": lambda **options: DPTDepthHead(8, 1, channels=8, **options),
}


@pytest.mark.parametrize("name", HEADS)
def test_depth_stays_in_range(name):
    torch.manual_seed(0)
    head = HEADS[name](min_depth=2.0, max_depth=6.0)
    torch.nn.init.normal_(head.conv_seg.weight, std=30.0)
    depth = head([torch.randn(2, 8, 4, 4)])
    assert 2.0 <= depth.min() < 3.5
    assert 4.5 < depth.max() <= 6.0
    torch.nn.init.zeros_(head.conv_seg.weight)
    torch.testing.assert_close(head([torch.randn(2, 8, 4, 4)]), torch.full_like(depth, 4.0))


def test_bins_by_hand():
    """Logits 2 and -1 of bins at 1 and 5 m have weights 2.1 and 0.1."""
    head = LinearDepthHead(1, 1, min_depth=1.0, max_depth=5.0, num_bins=2).eval()
    with torch.no_grad():
        head.conv_seg.weight.zero_()
        head.conv_seg.bias.copy_(torch.tensor([2.0, -1.0]))
        depth = head([torch.zeros(1, 1, 2, 2)])
    torch.testing.assert_close(depth, torch.full((1, 1, 8, 8), (2.1 * 1 + 0.1 * 5) / 2.2))


def test_depth_instead_of_logits_is_upsampled():
    """DINOv3's form: depths of 1.1 / 1.2 + 0.5 / 1.2 m and 0.1 / 1.2 + 5.5 / 1.2 m at the size of the map."""
    head = LinearDepthHead(1, 1, min_depth=1.0, max_depth=5.0, num_bins=2, upsampling=1).eval()
    with torch.no_grad():
        head.conv_seg.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        head.norm.running_var.fill_(1 - head.norm.eps)
        depth = head([torch.tensor([[[[1.0, -1.0]]]])])
    torch.testing.assert_close(depth, torch.tensor([[[[1.6 / 1.2, 5.6 / 1.2]]]]))


@pytest.mark.parametrize("name", HEADS)
def test_unknown_pixels_and_images_do_not_count(name):
    torch.manual_seed(0)
    head = HEADS[name]().eval()
    maps = torch.randn(2, 8, 4, 4)
    truth = 1 + torch.rand(2, 1, 16, 16)
    truth[0, :, :8] = 0
    truth[1] = 0
    loss = head.loss_by_feat(head([maps]), samples(truth))["loss_silog"]
    alone = head.loss_by_feat(head([maps[:1]]), samples(truth[:1]))["loss_silog"]
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)
    changed = truth.clone()
    changed[0, :, 8:] *= 1.5
    assert head.loss_by_feat(head([maps]), samples(changed))["loss_silog"] != loss


def test_nothing_known_is_no_loss():
    head = HEADS["linear"]()
    loss = head.loss_by_feat(head([torch.randn(2, 8, 4, 4)]), samples(torch.zeros(2, 1, 16, 16)))["loss_silog"]
    loss.backward()
    assert loss == 0
    assert not head.conv_seg.weight.grad.any()


def sig(predicted, true, **options):
    loss = SigLoss(**options)
    return loss, loss(torch.tensor(predicted)[:, None, None], torch.tensor(true)[:, None, None])


def test_sig_loss_by_hand():
    """Over the batch, not image by image: g = log(p + 0.001) - log(t + 0.001) of three known pixels."""
    g = [math.log(2.001 / 1.001), math.log(1.001 / 4.001), math.log(3.001 / 3.001)]
    mean = sum(g) / 3
    variance = sum((value - mean) ** 2 for value in g) / 2  # unbiased
    predicted, true = [[2.0, 1.0], [3.0, 5.0]], [[1.0, 4.0], [3.0, 0.0]]
    _, loss = sig(predicted, true, warmup_steps=0)
    assert loss.item() == pytest.approx(math.sqrt(variance + 0.15 * mean**2), rel=1e-5)
    _, loss = sig(predicted, true)
    assert loss.item() == pytest.approx(math.sqrt(0.15) * abs(mean), rel=1e-5)


def test_sig_loss_of_groups_of_images():
    """The mean of the losses of single images; groups without any known depth do not count."""
    predicted, true = [[2.0, 1.0], [3.0, 5.0], [1.0, 1.0]], [[1.0, 4.0], [3.0, 0.0], [0.0, 0.0]]
    singles = [sig([p], [t], warmup_steps=0)[1] for p, t in zip(predicted[:2], true[:2], strict=True)]
    _, loss = sig(predicted, true, warmup_steps=0, group_size=1)
    assert loss.item() == pytest.approx(sum(singles).item() / 2)
    _, pairs = sig(predicted, true, warmup_steps=0, group_size=2)
    assert pairs.item() == pytest.approx(sig(predicted, true, warmup_steps=0)[1].item())


def test_sig_loss_has_no_variance_in_its_first_steps():
    """The step counter is saved in checkpoints, so that a resumed run continues with the same loss."""
    predicted, true = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 4.0])
    loss = SigLoss()
    values = [loss(predicted, true).item() for _ in range(60)]
    resumed = SigLoss()
    resumed.load_state_dict(loss.state_dict())
    values += [resumed(predicted, true).item() for _ in range(60)]
    assert len(set(values[:100])) == 1 and len(set(values[100:])) == 1
    assert values[99] < values[100]
    assert SigLoss().eval()(predicted, true).item() == pytest.approx(values[100])


def test_dinov2_head():
    """Depth is relu + min_depth, clamped in testing only; the class token is used; there is no batch normalization."""
    torch.manual_seed(0)
    head = DINOv2DepthHead(8, 1, class_token=True, channels=8, min_depth=0.5, max_depth=2.0).eval()
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in head.modules())
    maps, token = torch.randn(2, 8, 4, 6), torch.randn(2, 8)
    depth = head([(maps, token)])
    assert depth.shape == (2, 1, 64, 96)
    assert not torch.allclose(depth, head([(maps, token + 1)]))
    torch.nn.init.constant_(head.conv_seg[-1].bias, 30.0)
    assert head([(maps, token)]).min() > 20
    found = head.predict_by_feat(head([(maps, token)]), [dict(img_shape=(40, 60))])
    torch.testing.assert_close(found, torch.full((2, 1, 40, 60), 2.0))
    torch.nn.init.constant_(head.conv_seg[-1].bias, -30.0)
    torch.testing.assert_close(head([(maps, token)]), torch.full_like(depth, 0.5))


def probe(arch, **options):
    backbone = dict(type="pe_dense.FrozenTower", arch=arch)
    head = dict(type="pe_dense.DINOv2DepthHead", channels=8, **options)
    preprocessor = dict(type="pe_dense.ProbePreprocessor", seg_pad_val=0)
    config = dict(backbone=backbone, decode_head=head, data_preprocessor=preprocessor, test_cfg=dict(mode="whole"))
    return DepthProbe(**config).eval()


ARCH = dict(patch_size=14, width=16, layers=2, heads=2, mlp_ratio=2.0, image_size=56, pool_type="none")


def test_probe_passes_the_class_token_where_there_is_one():
    with_token, without = probe(dict(ARCH, use_cls_token=True)), probe(ARCH)
    assert with_token.decode_head.class_token and not without.decode_head.class_token
    images = torch.randn(1, 3, 56, 70)
    ((maps, token),) = with_token.extract_feat(images)
    tokens = with_token.backbone.tower.forward_features(images)
    assert torch.equal(token, tokens[:, 0]) and torch.equal(maps.flatten(2).mT, tokens[:, 1:])
    assert not probe(dict(ARCH, use_cls_token=True), class_token=False).decode_head.class_token
    with pytest.raises(ValueError, match=r"has no class token: set model.decode_head.class_token=False"):
        probe(ARCH, class_token=True)


@torch.no_grad()
def test_predictions_are_averaged_with_the_flipped_image():
    torch.manual_seed(0)
    model = probe(dict(ARCH, use_cls_token=True))
    images = torch.randn(1, 3, 56, 70)
    metas = [dict(img_shape=(56, 70), ori_shape=(56, 70))]
    plain, mirrored = (model.inference(image, metas) for image in (images, images.flip(-1)))
    model.test_cfg["flip"] = True
    torch.testing.assert_close(model.inference(images, metas), (plain + mirrored.flip(-1)) / 2)
    assert not torch.equal(plain, mirrored.flip(-1))


def test_training_images_are_padded_to_whole_patches_that_do_not_count():
    """DINOv2's crop of 416 x 544 px is not a multiple of patches of 14 px."""
    model = probe(ARCH)
    data = dict(inputs=[torch.zeros(3, 416, 544, dtype=torch.uint8)], data_samples=samples(torch.ones(1, 1, 416, 544)))
    batch = model.data_preprocessor(data, training=True)
    assert batch["inputs"].shape[-2:] == (420, 546)
    assert batch["data_samples"][0].gt_depth_map.data.sum() == 416 * 544


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (3.0, 2.0), (float("nan"), 1.0)])
def test_ranges_that_are_none(low, high):
    with pytest.raises(ValueError, match="must satisfy 0 < min_depth < max_depth"):
        LinearDepthHead(8, 1, min_depth=low, max_depth=high)
