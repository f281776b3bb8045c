"""Layer-wise learning-rate decay."""

import pytest
import torch
from torch import nn

from pe_dense.backbones import PETower
from pe_dense.engine.optimizers import LayerDecayOptimWrapperConstructor

ARCH = dict(
    patch_size=16, width=16, layers=3, heads=2, mlp_ratio=2.0, image_size=32, use_ln_post=False, pool_type="none"
)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = PETower(ARCH, window_size=2)
        self.head = nn.Linear(16, 2)


def build(decay_rate=0.5, **options):
    optimizer = dict(type="AdamW", lr=0.8, weight_decay=0.1)
    return LayerDecayOptimWrapperConstructor(dict(optimizer=optimizer, **options), dict(decay_rate=decay_rate))


def test_rates():
    model = Model()
    wrapper = build()(model)
    rates = {name: group["lr"] for group in wrapper.optimizer.param_groups for name in group["names"]}
    assert set(rates) == {name for name, _ in model.named_parameters()}
    # Three blocks: layers 0 (embedding), 1-3 (blocks), 4 (all else); 0.8 * 0.5 ** (4 - layer)
    assert rates["backbone.conv1.weight"] == rates["backbone.positional_embedding"] == 0.05
    assert rates["backbone.ln_pre.bias"] == 0.05
    assert rates["backbone.transformer.resblocks.0.attn.in_proj_weight"] == 0.1
    assert rates["backbone.transformer.resblocks.2.ln_2.weight"] == 0.4
    assert rates["head.weight"] == rates["head.bias"] == 0.8
    assert {group["weight_decay"] for group in wrapper.optimizer.param_groups} == {0.1}


def test_wrapper_options_and_frozen_parameters():
    model = Model()
    model.head.requires_grad_(False)
    wrapper = build(type="OptimWrapper", clip_grad=dict(max_norm=1.0), accumulative_counts=2)(model)
    assert wrapper.clip_grad_kwargs == dict(max_norm=1.0)
    assert wrapper._accumulative_counts == 2
    assert not any(name.startswith("head") for group in wrapper.optimizer.param_groups for name in group["names"])


def test_biases_and_norms_without_weight_decay():
    optimizer = dict(type="AdamW", lr=0.8, weight_decay=0.1)
    constructor = LayerDecayOptimWrapperConstructor(
        dict(optimizer=optimizer), dict(decay_rate=0.5, flat_decay_mult=0.0)
    )
    groups = constructor(Model()).optimizer.param_groups
    found = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert set(found) == {name for name, _ in Model().named_parameters()}
    assert found["backbone.transformer.resblocks.0.attn.in_proj_weight"] == (0.1, 0.1)
    assert found["backbone.transformer.resblocks.0.attn.in_proj_bias"] == (0.1, 0.0)
    assert found["backbone.ln_pre.weight"] == (0.05, 0.0)
    assert found["head.weight"] == (0.8, 0.1) and found["head.bias"] == (0.8, 0.0)


def test_rate_of_one_is_no_decay():
    assert {group["lr"] for group in build(1.0)(Model()).optimizer.param_groups} == {0.8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, r"takes paramwise_cfg=dict\(decay_rate=...\), got {}"),
        (dict(decay_rate=0.9, norm_decay_mult=0.0), "norm_decay_mult"),
        (dict(decay_rate=0.0), r"decay_rate 0.0 is not in \(0, 1\]"),
        (dict(decay_rate=1.1), "decay_rate 1.1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LayerDecayOptimWrapperConstructor(dict(optimizer=dict(type="SGD", lr=1.0)), settings)


def test_model_needs_one_tower():
    with pytest.raises(ValueError, match="one backbone, got 0 in Linear"):
        build()(nn.Linear(2, 2))
    model = Model()
    model.teacher = PETower(ARCH)
    with pytest.raises(ValueError, match="got 2"):
        build()(model)


def test_built_from_config():
    from mmengine.optim import build_optim_wrapper

    config = dict(
        optimizer=dict(type="SGD", lr=1.0),
        constructor="pe_dense.LayerDecayOptimWrapperConstructor",
        paramwise_cfg=dict(decay_rate=0.5),
    )
    wrapper = build_optim_wrapper(Model(), config)
    assert isinstance(wrapper.optimizer, torch.optim.SGD)
    assert min(group["lr"] for group in wrapper.optimizer.param_groups) == 0.5**4
