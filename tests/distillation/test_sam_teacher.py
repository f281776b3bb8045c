"""The efficient decoder of SAM's logits against sam2's own classes, with random weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_alignment import TINY_SAM, photos

from pe_dense.distillation.teachers.sam import SAMTeacher, build_sam

pytest.importorskip("sam2")
SIDE = 256  # SAM 2.1-t runs at 256 px in a fraction of a second; benchmarks/alignment.py compares at 1024
LOW = SIDE // 4
MAPS = [(LOW, LOW), (LOW // 2, LOW // 2), (LOW // 4, LOW // 4)]  # sam2's predictor has only those of 1024 px


def rounding(logits, choices):
    """Float32's, for what both ways compute in another order.

    A logit is reached through some 30 sums (two layers of three attentions with projections, MLPs, norms, upscaling)
    of up to n = 4096 terms. Rounding moves a sum of n terms by about sqrt(n) 2**-24 of its size, so by 4e-6 at most,
    and independent errors of 30 sums add up to 2e-5. Norms keep the sizes, so that is relative to the logits' spread.
    """
    assert choices.min() > 1e-5, "a near tie of predicted IoU, where rounding may choose another mask"
    return 2e-5 * float(logits.std())


@pytest.fixture(scope="module")
def long_way():
    """Compute full-size logits of all points with sam2's predictor: the masks with the highest predicted IoU."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    teacher = SAMTeacher("t", None, image_size=SIDE, points_per_side=4)
    model = build_sam("t", None, image_size=SIDE)
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = MAPS
    pixels = (photos(1, SIDE)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    predictor.set_image(pixels)
    points = teacher.points()
    full, quality, low = predictor._predict(
        points[:, None], torch.ones(len(points), 1, dtype=torch.int), multimask_output=True, return_logits=True
    )
    best = quality.argmax(1)
    index = torch.arange(len(points))
    ordered = quality.sort(1, descending=True).values
    return SimpleNamespace(
        teacher=teacher,
        model=model,
        pixels=pixels,
        images=torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255,
        full=full[index, best],
        low=low[index, best],
        quality=quality[index, best],
        margins=ordered[:, 0] - ordered[:, 1],
    )


def test_same_tokens_as_by_full_size_logits(long_way):
    tokens = long_way.teacher(long_way.images, (8, 8))
    expected = F.interpolate(long_way.full[:, None], size=(8, 8), mode="bilinear", align_corners=False)
    expected = expected.flatten(1).T[None]
    assert tokens.shape == (1, 64, 16)
    assert (tokens - expected).abs().max() < rounding(long_way.full, long_way.margins)
    assert expected.std(dim=2).mean() > 0.1 * expected.std(), "points have masks of their own"


@pytest.mark.parametrize("grid", [(7, 9), (14, 14), (32, 5)])
def test_other_grids_differ_by_the_logits_bends(long_way, grid):
    """Enlarged logits bend between pixels, and the long way's second step cuts these corners: see the class."""
    tokens = long_way.teacher(long_way.images, grid)
    expected = F.interpolate(long_way.full[:, None], size=grid, mode="bilinear", align_corners=False).flatten(1).T[None]
    bends = sum(torch.diff(long_way.low, n=2, dim=axis).abs().amax((1, 2)) for axis in (1, 2)) / 16
    noise = rounding(long_way.full, long_way.margins)
    assert ((tokens - expected).abs().amax((0, 1)) <= bends + noise).all()
    direct = F.interpolate(long_way.low[:, None], size=grid, mode="bilinear", align_corners=False).flatten(1).T[None]
    assert (tokens - direct).abs().max() < noise


def test_same_masks_as_the_generator_with_nothing_filtered(long_way):
    """Of a point's three, the first of the generator's."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    generator = SAM2AutomaticMaskGenerator(
        long_way.model,
        points_per_side=4,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        box_nms_thresh=1.0,
    )
    generator.predictor._bb_feat_sizes = MAPS
    masks = generator.generate(long_way.pixels)
    assert len(masks) == 3 * 16
    first = {}
    for mask in masks:
        first.setdefault(tuple(mask["point_coords"][0]), mask)
    tokens = long_way.teacher(long_way.images, (LOW, LOW))
    logits = tokens[0].T.view(16, 1, LOW, LOW)
    ours = F.interpolate(logits, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0] > 0
    for number, point in enumerate(long_way.teacher.points()):
        mask = first[tuple(point.tolist())]
        assert mask["predicted_iou"] == pytest.approx(float(long_way.quality[number]), abs=1e-5)
        assert (torch.from_numpy(mask["segmentation"]) != ours[number]).sum() <= 2


def test_batches_of_points_and_precision():
    images = photos(2, 64)
    settings = dict(image_size=128, points_per_side=5, overrides=TINY_SAM)
    tokens = SAMTeacher("t", None, **settings)(images, (4, 6))
    assert tokens.shape == (2, 24, 25) and not tokens.requires_grad
    parts = SAMTeacher("t", None, points_per_batch=7, **settings)(images, (4, 6))
    assert (tokens - parts).abs().max() < 1e-5 * tokens.std()
    half = SAMTeacher("t", None, dtype="bfloat16", **settings)(images, (4, 6))
    assert 1e-4 < (tokens - half).abs().max() / tokens.std() < 0.1
    one = SAMTeacher("t", None, **{**settings, "points_per_side": 1})
    assert one.points().tolist() == [[64.0, 64.0]] and one(images, (4, 6)).shape == (2, 24, 1)


def test_whatever_changes_tokens_changes_the_name_in_the_cache():
    settings = dict(size="t", checkpoint=None, image_size=128, points_per_side=2, overrides=TINY_SAM)
    changes = [
        dict(image_size=160),
        dict(points_per_side=3),
        dict(dtype="bfloat16"),
        dict(overrides=[*TINY_SAM, "model.image_encoder.trunk.global_att_blocks=[5,7,8]"]),  # no weight tells of it
    ]
    names = {SAMTeacher(**{**settings, **change}).identity for change in ({}, {}, *changes)}
    assert len(names) == 1 + len(changes)


def test_points_are_the_middles_of_their_cells():
    teacher = SAMTeacher("t", None, image_size=128, points_per_side=2, overrides=TINY_SAM)
    assert teacher.points().tolist() == [[32.0, 32.0], [96.0, 32.0], [32.0, 96.0], [96.0, 96.0]]  # x first


def test_weights_are_loaded_strictly_and_by_the_hub_names(tmp_path, monkeypatch):
    state = build_sam("t", None, image_size=128, overrides=TINY_SAM, seed=5).state_dict()
    torch.save({"model": state}, tmp_path / "sam.pt")
    loaded = build_sam("t", str(tmp_path / "sam.pt"), image_size=128, overrides=TINY_SAM)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
    with pytest.raises(ValueError, match="does not fit SAM 2.1 of size t"):
        build_sam("t", str(tmp_path / "sam.pt"), image_size=128)

    asked = []
    monkeypatch.setattr(
        "pe_dense.distillation.teachers.sam.read_checkpoint", lambda name: asked.append(name) or {"model": state}
    )
    build_sam("t", "hf://facebook/sam2.1-hiera-tiny", image_size=128, overrides=TINY_SAM)
    build_sam("t", "hf://facebook/sam2.1-hiera-tiny@main/other.pt", image_size=128, overrides=TINY_SAM)
    assert asked == [
        "hf://facebook/sam2.1-hiera-tiny/sam2.1_hiera_tiny.pt",
        "hf://facebook/sam2.1-hiera-tiny@main/other.pt",
    ]


def test_bad_settings():
    with pytest.raises(ValueError, match="sizes are t, s, b\\+, l"):
        build_sam("h", None)
    with pytest.raises(ValueError, match="must be a multiple of 32, got 1000"):
        build_sam("t", None, image_size=1000)
    with pytest.raises(ValueError, match="points_per_side=0"):
        SAMTeacher("t", None, points_per_side=0)
    with pytest.raises(ValueError, match="float16"):
        SAMTeacher("t", None, dtype="float16")
