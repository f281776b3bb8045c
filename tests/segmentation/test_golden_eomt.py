"""EoMT and PMT against recordings of their published code on PE towers and on a ViT of timm."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.recordings import Recording, by_recording
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.structures import INSTANCE_OFFSET
from mmengine.structures import InstanceData

from pe_dense.backbones import PETower, TimmTower
from pe_dense.segmentation import EoMTHead, PMTHead, semantic_map

each = by_recording("[ep]*mt_*.npz")
TOWER = "encoder.backbone."
RENAMED = {"loss_mask": "mask", "loss_dice": "dice", "loss_cls": "cls"}
PUBLISHED_LOSS = {"loss_mask": "loss_mask", "loss_dice": "loss_dice", "loss_cls": "loss_cross_entropy"}


def backbone_of(config, frozen):
    if "vision" in config:
        return PETower(config["vision"], frozen=frozen)
    vit = config["vit"]
    args = dict(embed_dim=vit["width"], depth=vit["depth"], num_heads=vit["heads"], mlp_ratio=2.0, patch_size=16)
    args["img_size"] = tuple(vit["img"])  # the recorded positions are those of a grid that is not square
    return TimmTower(vit["name"], frozen=frozen, model_args=args)


class Model:
    """A backbone and a head with the weights of a recording."""

    def __init__(self, path):
        self.recorded = recorded = Recording(path)
        self.config = config = recorded.config
        is_pmt = "interaction_indices" in config["head"]
        self.backbone = backbone_of(config, frozen=is_pmt)
        loss, head = config["loss"], config["head"]
        options = dict(
            num_things_classes=head["num_classes"] - len(config["stuff_classes"]),
            num_stuff_classes=len(config["stuff_classes"]),
            num_queries=head["num_q"],
            num_blocks=recorded.state["decoder.attn_mask_probs" if is_pmt else "attn_mask_probs"].numel(),
            num_points=loss["num_points"],
            oversample_ratio=loss["oversample_ratio"],
            importance_sample_ratio=loss["importance_sample_ratio"],
            loss_weights=(loss["cls"], loss["mask"], loss["dice"]),
            no_object_weight=loss["no_object"],
        )
        if is_pmt:
            heads = (config.get("vision") or config["vit"])["heads"]
            self.head = PMTHead(
                self.backbone, num_heads=heads, interaction_indices=head["interaction_indices"], **options
            )
        else:
            self.head = EoMTHead(self.backbone, **options)
        state = {name.removeprefix("decoder."): value for name, value in recorded.state.items()}
        tower = {name.removeprefix(TOWER): value for name, value in state.items() if name.startswith(TOWER)}
        own = {name: value for name, value in state.items() if not name.startswith(TOWER)}
        if self.head.norm is not None:
            own |= {f"norm.{name}": tower.pop(f"norm.{name}") for name in ("weight", "bias")}
        inner = self.backbone.model if isinstance(self.backbone, TimmTower) else self.backbone
        inner.load_state_dict(tower)
        self.head.load_state_dict(own)
        self.backbone.eval(), self.head.eval()

    @torch.no_grad()
    def predict(self, share, all_layers=True):
        mean, std = (torch.tensor(values).view(3, 1, 1) / 255 for values in (self.backbone.mean, self.backbone.std))
        self.head.attn_mask_probs.fill_(share)
        return self.head(self.backbone, (self.recorded["image"] - mean) / std, all_layers=all_layers)

    def plain(self):
        return self.recorded["plain/class"], self.recorded["plain/mask"]


@pytest.fixture(scope="module")
def models():
    return cache(Model)


@each
def test_predictions_of_every_layer_with_masked_attention(path, models):
    model = models(path)
    classes, masks = model.predict(1.0)
    assert len(classes) == model.head.num_blocks + 1
    for k, (found, mask) in enumerate(zip(classes, masks, strict=True)):
        torch.testing.assert_close(mask, model.recorded[f"masked/mask{k}"], rtol=0, atol=1e-4)
        torch.testing.assert_close(found, model.recorded[f"masked/class{k}"], rtol=0, atol=5e-5)


@each
def test_last_prediction_without_masks(path, models):
    model = models(path)
    ((classes,), (masks,)) = model.predict(0.0, all_layers=None)
    torch.testing.assert_close(masks, model.recorded["plain/mask"], rtol=0, atol=1e-4)
    torch.testing.assert_close(classes, model.recorded["plain/class"], rtol=0, atol=5e-5)
    assert not torch.allclose(masks, model.recorded[f"masked/mask{model.head.num_blocks}"], atol=1e-3)


def targets_of(recorded, batch):
    found = []
    for i in range(batch):
        shape = recorded[f"target/mask_shape{i}"].tolist()
        bits = np.unpackbits(recorded[f"target/masks{i}"].numpy())[: np.prod(shape)]
        found.append(
            InstanceData(labels=recorded[f"target/labels{i}"], masks=torch.from_numpy(bits).view(shape).long())
        )
    return found


@each
def test_losses_with_the_recorded_random_numbers(path, models, monkeypatch):
    model = models(path)
    recorded, weights = model.recorded, model.config["loss"]
    layers = range(model.head.num_blocks + 1)
    drawn = iter(recorded[name] for name in sorted(recorded.names) if name.startswith("rand/"))

    def rand(*shape, device=None):
        numbers = next(drawn)
        assert tuple(numbers.shape) == tuple(np.hstack(shape))
        return numbers

    monkeypatch.setattr(torch, "rand", rand)
    losses = model.head.loss_by_feat(
        [recorded[f"masked/class{k}"] for k in layers],
        [recorded[f"masked/mask{k}"] for k in layers],
        targets_of(recorded, len(recorded["image"])),
        [{}] * len(recorded["image"]),
    )
    assert next(drawn, None) is None
    for k in layers:
        prefix = "" if k == layers[-1] else f"d{k}."
        for own, published in PUBLISHED_LOSS.items():
            found = losses[f"{prefix}{own}"] / weights[RENAMED[own]]
            assert float(found) == pytest.approx(float(recorded[f"loss/layer{k}/{published}"]), abs=1e-5)
    assert float(sum(losses.values())) == pytest.approx(float(recorded["loss/total"]), abs=1e-4)


@each
def test_semantic_map(path, models):
    model = models(path)
    classes, masks = model.plain()
    size = model.config["img_size"]
    found = semantic_map(classes, model.head.upsample(masks, size))
    torch.testing.assert_close(found, model.recorded["post/semantic"], rtol=0, atol=2e-5)


def at_original_size(model):
    """Class logits, and mask logits without the padding that made the image as large as the network's input."""
    (classes, masks), original = model.plain(), model.config["original_size"]
    masks = model.head.upsample(masks, model.config["img_size"])
    factor = min(side / length for side, length in zip(model.config["img_size"], original, strict=True))
    height, width = (round(length * factor) for length in original)
    return classes, F.interpolate(masks[..., :height, :width], original, mode="bilinear")


@each
def test_panoptic_segments(path, models):
    model = models(path)
    fusion = MaskFormerFusionHead(
        model.head.num_things_classes,
        model.head.num_stuff_classes,
        test_cfg=dict(
            object_mask_thr=model.config["mask_thresh"],
            iou_thr=model.config["overlap_thresh"],
            filter_low_score=True,
        ),
    )
    for classes, masks, expected in zip(*at_original_size(model), model.recorded["post/panoptic"], strict=True):
        found = fusion.panoptic_postprocess(classes, masks).sem_seg[0].long()
        categories, numbers = found % INSTANCE_OFFSET, found // INSTANCE_OFFSET
        wanted, segments = expected.long().unbind(-1)
        assert torch.equal(categories, wanted)  # num_classes where there is no segment
        # The same pixels belong together, whatever the segments' numbers are.
        pairs = torch.stack([categories * 100 + numbers, segments]).flatten(1).unique(dim=1)
        assert pairs.shape[1] == len(pairs[0].unique()) == len(pairs[1].unique())


@each
def test_instances(path, models):
    model = models(path)
    fusion = MaskFormerFusionHead(model.head.num_classes, 0, test_cfg=dict(max_per_image=model.config["top_k"]))
    for i, (classes, masks) in enumerate(zip(*at_original_size(model), strict=True)):
        found = fusion.instance_postprocess(classes, masks)
        expected = model.recorded.subset(f"post/instance{i}/")
        shape = expected["mask_shape"].tolist()
        wanted = torch.from_numpy(np.unpackbits(expected["masks"].numpy())[: np.prod(shape)]).view(shape).bool()
        order, place = found.scores.argsort(descending=True), expected["scores"].argsort(descending=True)
        torch.testing.assert_close(found.scores[order], expected["scores"][place], rtol=0, atol=1e-5)
        assert torch.equal(found.labels[order], expected["labels"][place])
        assert torch.equal(found.masks[order], wanted[place])
