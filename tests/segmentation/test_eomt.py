"""EoMT and PMT: training of tiny models, mask annealing, learning rates, windows, user errors."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny_towers import ARCH, tiny_tower
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from pe_dense.backbones import TimmTower
from pe_dense.engine.config import load_config
from pe_dense.registry import MODELS
from pe_dense.segmentation import EoMTHead, EoMTOptimWrapperConstructor, MaskAnnealingHook, PMTHead
from pe_dense.segmentation.mask_transformer import EvenWindows, TwoStageWarmupPolyLR
from pe_dense.utils.errors import UserError

CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[2] / "configs").glob("*_pe_*.py")
    if "_eomt_" in path.name or "_pmt_" in path.name
)
SMALL = dict(num_queries=6, num_points=128)
HEADS = {
    "eomt": dict(type="pe_dense.EoMTHead", num_blocks=2, **SMALL),
    "pmt": dict(type="pe_dense.PMTHead", num_blocks=2, num_heads=2, interaction_indices=(1, -1), **SMALL),
}
TIMM_SIZE = dict(depth=3, embed_dim=32, num_heads=2, patch_size=4)
TOWERS = {
    "pe": dict(type="pe_dense.PETower", arch=ARCH),
    "pe core": dict(type="pe_dense.PETower", arch=ARCH | dict(use_ln_post=True, use_cls_token=True)),
    "timm": dict(type="pe_dense.TimmTower", name="test_vit", model_args=dict(depth=3, reg_tokens=2, patch_size=4)),
    "timm pe": dict(type="pe_dense.TimmTower", name="vit_pe_core_tiny_patch16_384", img_size=32, model_args=TIMM_SIZE),
    "dinov3": dict(type="pe_dense.TimmTower", name="vit_small_patch16_dinov3", img_size=32, model_args=TIMM_SIZE),
}
both_heads = pytest.mark.parametrize("method", HEADS)


def semantic_model(method, tower="pe", **options):
    init_default_scope("mmseg")
    torch.manual_seed(0)
    head = dict(HEADS[method], num_things_classes=0, num_stuff_classes=3)
    config = dict(
        type="pe_dense.MaskTransformerSegmentor",
        backbone=dict(TOWERS[tower], frozen=method == "pmt"),
        decode_head=head,
        data_preprocessor=dict(type="mmseg.SegDataPreProcessor", mean=[127.5] * 3, std=[127.5] * 3, size=(32, 32)),
    )
    return MODELS.build(config | options)


def semantic_batch(count=2, seed=0):
    """Images whose left part is bright and of class 1, the rest dark and of class 2; a border to ignore."""
    random = np.random.default_rng(seed)
    inputs, samples = [], []
    for i in range(count):
        labels = torch.full((1, 32, 32), 2)
        labels[..., : 12 + 8 * i] = 1
        image = torch.where(labels == 1, 200, 50) + torch.from_numpy(random.integers(0, 20, (3, 32, 32)))
        labels[:, -2:] = 255
        sample = SegDataSample(metainfo=dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32)))
        sample.gt_sem_seg = PixelData(data=labels)
        inputs.append(image.to(torch.uint8)), samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def total(losses):
    return sum(losses.values())


@pytest.mark.parametrize("tower", ["pe", "timm"])
@both_heads
def test_semantic_training_and_prediction(method, tower):
    model = semantic_model(method, tower).train()
    data = model.data_preprocessor(semantic_batch(), training=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    values = []
    for _ in range(8):
        losses = model(**data, mode="loss")
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        values.append(total(losses).item())
    assert len(losses) == 3 * 3  # two blocks and the end
    assert all(parameter.grad is not None for parameter in trained)
    assert np.mean(values[-3:]) < 0.8 * values[0]
    model.eval()
    model.decode_head.attn_mask_probs.zero_()
    with torch.no_grad():
        found = model(**model.data_preprocessor(semantic_batch()), mode="predict")
    assert found[0].seg_logits.data.shape == (3, 32, 32)
    assert found[0].pred_sem_seg.data.shape == (1, 32, 32)


@pytest.mark.parametrize("tower", ["pe core", "dinov3"])
@pytest.mark.parametrize("share", [0.0, 1.0])
@both_heads
def test_results_do_not_depend_on_the_batch(method, tower, share):
    model = semantic_model(method, tower).eval()
    model.decode_head.attn_mask_probs.fill_(share)
    images = torch.rand(3, 3, 32, 24) * 2 - 1
    with torch.no_grad():
        together = model(images)
        for image, expected in zip(images, together, strict=True):
            torch.testing.assert_close(model(image[None])[0], expected, rtol=0, atol=1e-5)


def test_extra_tokens_do_not_change_a_tower_that_does_not_attend_to_them():
    """`run_block` on all blocks equals the tower's own features, for every kind of tower."""
    for config in TOWERS.values():
        torch.manual_seed(0)
        tower = MODELS.build(config).eval()
        images, grid = torch.randn(1, 3, 24, 32), (6, 8)
        extra = 5
        with torch.no_grad():
            (_, tokens), (_, expected) = tower.iter_tokens(images, [0, tower.num_layers - 1])
            tokens = torch.cat([torch.randn(1, extra, tower.embed_dim), tokens], dim=1)
            attn_mask = torch.ones(1, 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
            attn_mask[..., extra:, :extra] = False
            for block in range(1, tower.num_layers):
                tokens = tower.run_block(block, tokens, grid, attn_mask)
        torch.testing.assert_close(tokens[:, extra:], expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(
            tower.final_norm(expected), next(tower.iter_tokens(images, [tower.num_layers - 1], norm=True))[1]
        )


def detector(method, **test_cfg):
    init_default_scope("mmdet")
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type="pe_dense.MaskTransformerDetector",
            backbone=dict(TOWERS["pe"], frozen=method == "pmt"),
            panoptic_head=dict(HEADS[method], num_things_classes=2, num_stuff_classes=2),
            data_preprocessor=dict(
                type="mmdet.DetDataPreprocessor",
                mean=[127.5] * 3,
                std=[127.5] * 3,
                pad_size_divisor=32,
                pad_mask=True,
                pad_seg=True,
                seg_pad_value=255,
            ),
            test_cfg=test_cfg,
        )
    )


def panoptic_batch(objects=1):
    mask = np.zeros((objects, 24, 32), np.uint8)
    mask[:, 4:20, 4:20] = 1
    labels = torch.full((1, 24, 32), 3)
    labels[:, 4:20, 4:20] = 255
    sample = DetDataSample(metainfo=dict(img_shape=(24, 32), ori_shape=(48, 64), scale_factor=(0.5, 0.5)))
    sample.gt_instances = InstanceData(
        labels=torch.ones(objects, dtype=torch.long),
        bboxes=torch.tensor([[4.0, 4.0, 20.0, 20.0]] * objects).view(-1, 4),
        masks=BitmapMasks(mask, 24, 32),
    )
    sample.gt_sem_seg = PixelData(sem_seg=labels)
    image = torch.full((3, 24, 32), 60, dtype=torch.uint8)
    image[:, 4:20, 4:20] = 220
    return dict(inputs=[image], data_samples=[sample])


@both_heads
def test_panoptic_and_instance_results(method):
    model = detector(method, panoptic_on=True, instance_on=True, object_mask_thr=0.4, iou_thr=0.5, max_per_image=5)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(25):
        data = model.data_preprocessor(copy.deepcopy(panoptic_batch()), training=True)
        losses = model(**data, mode="loss")
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        (found,) = model(**model.data_preprocessor(panoptic_batch()), mode="predict")
    segments = found.pred_panoptic_seg.sem_seg[0]
    assert segments.shape == (48, 64)
    assert segments[24, 24] % 1000 == 1 and segments[24, 24] >= 1000  # an object
    assert segments[4, 60] == 3  # stuff
    assert found.pred_instances.masks.shape[1:] == (48, 64)
    best = found.pred_instances[found.pred_instances.scores.argmax().item()]
    assert best.labels.item() == 1 and best.masks[0, 24, 24]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_training_step_of_every_config(path):
    """With a tiny tower and images of 64 px in place of the published ones."""
    config = load_config(path)
    init_default_scope(config.default_scope)
    semantic = "decode_head" in config.model
    part = config.model.decode_head if semantic else config.model.panoptic_head
    config.model.backbone.update(arch=ARCH | dict(layers=6), init_cfg=None)
    part.num_points = 64
    if "interaction_indices" in part:
        part.update(num_heads=2, interaction_indices=(1, -1))
    config.model.data_preprocessor.update(dict(size=(64, 64)) if semantic else dict(pad_size_divisor=64))
    model = MODELS.build(config.model).train()
    batch = semantic_batch() if semantic else panoptic_batch()
    for sample in batch["data_samples"] if part.num_stuff_classes == 0 else ():
        del sample.gt_sem_seg
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    assert len(losses) == 3 * (part.get("num_blocks", 6) + 1)
    total(losses).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    annealing = config.custom_hooks[-1]
    assert len(annealing.intervals) == part.get("num_blocks", 6)
    assert annealing.intervals[-1][1] < config.train_cfg.max_iters


def test_images_without_objects_have_losses():
    model = detector("eomt").train()
    batch = panoptic_batch(objects=0)
    batch["data_samples"][0].gt_sem_seg.sem_seg.fill_(255)
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    assert torch.isfinite(total(losses))
    assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0
    total(losses).backward()


def test_masks_restrict_queries_to_their_patches():
    head = EoMTHead(tiny_tower(), 2, 1, num_queries=2, num_blocks=1)
    masks = torch.full((1, 2, 4, 4), -1.0)
    masks[0, 0, :2] = 1.0
    allowed = head.attention_mask(masks, (2, 2), 1.0)[0, 0]
    # two queries, four patches
    assert allowed[0].tolist() == [True] * 2 + [True, True, False, False]
    assert allowed[1].tolist() == [True] * 2 + [False] * 4
    assert allowed[2:].all()
    torch.manual_seed(0)
    free = torch.cat([head.attention_mask(masks, (2, 2), 0.25)[0, 0, :2].all(1) for _ in range(200)])
    assert 0.65 < free.float().mean() < 0.85


def test_mask_annealing():
    hook = MaskAnnealingHook([(0, 10), (10, 20)])
    assert hook.shares(0) == [1.0, 1.0]
    assert hook.shares(5) == pytest.approx([0.5**0.9, 1.0])
    assert hook.shares(12) == pytest.approx([0.0, 0.8**0.9])
    assert hook.shares(20) == [0.0, 0.0]
    head = EoMTHead(tiny_tower(), 2, 1, num_queries=2, num_blocks=2)
    runner = SimpleNamespace(model=torch.nn.ModuleDict(dict(head=head)), iter=0, max_iters=20)
    hook.before_train(runner)
    assert head.attn_mask_probs.tolist() == [1.0, 1.0]
    runner.iter = 14
    hook.after_train_iter(runner, 14)
    assert head.attn_mask_probs.tolist() == pytest.approx([0.0, 0.5**0.9])


def test_learning_rates():
    """Of EoMT's code: the embedding as the first block, the last block and the head at the full rate."""
    model = semantic_model("eomt")
    layers = {}
    for full_rate_blocks in (0, 2):
        settings = dict(decay_rate=0.5, full_rate_blocks=full_rate_blocks)
        build = EoMTOptimWrapperConstructor(dict(optimizer=dict(type="AdamW", lr=1.0)), settings)
        layers[full_rate_blocks] = {group["layer"]: group["lr"] for group in build.parameter_groups(model, 1.0)}
    assert layers[0] == {0: 0.25, 1: 0.25, 2: 0.5, 3: 1.0, 4: 1.0}
    assert layers[2] == {0: 0.25, 1: 0.25, 2: 1.0, 3: 1.0, 4: 1.0}


def test_warmup_of_the_head_and_then_of_the_tower():
    head, tower = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [dict(params=[head], lr=1.0, in_tower=False), dict(params=[tower], lr=0.5, in_tower=True)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = TwoStageWarmupPolyLR(optimizer, warmup=(2, 4), end=10)
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    of_head, of_tower = np.transpose(rates)
    assert of_head[:3].tolist() == [0.0, 0.5, 1.0]
    assert of_head[6] == pytest.approx(0.5**0.9)
    assert of_tower[:7] == pytest.approx([0, 0, 0, 0.125, 0.25, 0.375, 0.5])
    assert of_tower[8] == pytest.approx(0.5 * 0.5**0.9)


def test_windows_are_spread_evenly():
    boxes = EvenWindows(32, 75, (32, 32)).boxes
    assert [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in boxes] == [
        (0, 32, 0, 32),
        (0, 32, 21, 53),
        (0, 32, 43, 75),
    ]
    model = semantic_model("eomt", test_cfg=dict(mode="slide", crop_size=(32, 32))).eval()
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        whole, left, right = model(image), *(model.encode_decode(image[..., x : x + 32]) for x in (0, 16))
    torch.testing.assert_close(whole[..., :16], left[..., :16])
    torch.testing.assert_close(whole[..., 16:32], (left[..., 16:] + right[..., :16]) / 2)


def frozen():
    return tiny_tower(frozen=True)


def check_hook(intervals, max_iters=10):
    head = EoMTHead(tiny_tower(), 2, 1, num_blocks=2)
    MaskAnnealingHook(intervals).before_train(SimpleNamespace(model=head, iter=0, max_iters=max_iters))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EoMTHead(tiny_tower(), 2, 1, num_blocks=3), "num_blocks 3 leaves no block .* use at most 2"),
        (lambda: EoMTHead(tiny_tower(), 2, 1, num_queries=0), "num_queries is 0, it must be at least 1"),
        (lambda: EoMTHead(tiny_tower(), 0, 0), "num_stuff_classes is 0, it must be at least 1"),
        (lambda: EoMTHead(tiny_tower(), 2, 1, importance_sample_ratio=1.5), "importance_sample_ratio 1.5 between 0"),
        (lambda: PMTHead(tiny_tower(), 2, 1, 2, (0,)), "needs a frozen backbone.* set backbone.frozen=True"),
        (lambda: PMTHead(frozen(), 2, 1, 3, (0,)), "num_heads 3 does not divide 32 channels"),
        (lambda: PMTHead(frozen(), 2, 1, 2, (7,)), "interaction_indices: block 7 is out of range for 3 blocks"),
        (lambda: semantic_model("eomt", test_cfg=dict(mode="tiles")), "mode 'tiles' is not one of whole, slide"),
        (lambda: semantic_model("eomt", test_cfg=dict(mode="slide")), r"needs test_cfg.crop_size=\(height, width\)"),
        (lambda: detector("eomt", max_per_image=100), "max_per_image 100 is more than queries times classes, 24"),
        (lambda: MaskAnnealingHook([(5, 5)]), r"interval \(5, 5\) must start at 0 or later and end later"),
        (lambda: check_hook([(0, 5)]), "has 1 intervals for 2 blocks"),
        (lambda: check_hook([(0, 5), (5, 11)]), "ends at iteration 11, the run at 10"),
        (lambda: EoMTOptimWrapperConstructor({}, dict(decay_rate=0.5, full_rate_blocks=-1)), "-1 is negative"),
        (
            lambda: tiny_tower(window_size=2, global_blocks=(2,)).run_block(1, torch.zeros(1, 18, 32), (4, 4)),
            "block 1 has window attention.* set window_size=None or add 1 to global_blocks",
        ),
        (
            lambda: TimmTower("test_vit_relpos").run_block(0, torch.zeros(1, 257, 64), (16, 16)),
            "timm/test_vit_relpos does not run blocks with extra tokens: use a PETower",
        ),
        (
            lambda: semantic_model("eomt", backbone=dict(type="mmseg.ResNet", depth=18)),
            "need a PETower or a TimmTower as backbone, got a ResNet",
        ),
    ],
)
def test_user_errors(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
