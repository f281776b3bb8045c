"""List parameter groups and learning rates without data or weights."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

from pe_dense.engine.config import load_config
from pe_dense.engine.optimizers.layer_decay import ParameterGroup, describe, parameter_groups

CONFIGS = Path(__file__).parents[2] / "configs"


def layer_of(name):
    """The published recipe's rule for PE-Spatial-G14, on names."""
    tower = "backbone."
    if name.startswith(tower + "transformer.resblocks."):
        return int(name.split(".")[3]) + 1
    if name in (tower + "conv1.weight", tower + "positional_embedding", tower + "ln_pre.weight", tower + "ln_pre.bias"):
        return 0
    return 51


def test_flagship():
    config = load_config(CONFIGS / "lvis_maskrcnn_pe_g14.py")
    groups = parameter_groups(config)
    assert [group.layer for group in groups] == list(range(52))
    for group in groups:
        assert {layer_of(name) for name in group.names} == {group.layer}
        assert group.lr == pytest.approx(5e-5 * 0.9 ** (51 - group.layer), rel=1e-12)
        assert group.weight_decay == 0.1
    with torch.device("meta"):
        model = MODELS.build(config.model)
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    named = [name for group in groups for name in group.names]
    assert sorted(named) == sorted(trainable)
    assert [group.size for group in groups] == [sum(trainable[name] for name in group.names) for group in groups]
    # A block: attention 4 C^2 + 4 C, MLP 2 C * 8960 + 8960 + C, two norms and two scales 6 C, with C = 1536
    assert {group.size for group in groups[1:51]} == {4 * 1536**2 + 2 * 1536 * 8960 + 8960 + 11 * 1536}
    assert config.optim_wrapper.type == "AmpOptimWrapper"  # the config stays as it was


def test_config_without_layer_decay():
    (group,) = parameter_groups(load_config(CONFIGS / "shapes_linear_pe_tiny.py"))
    assert (group.layer, group.lr, group.weight_decay) == (None, 5e-3, 1e-4)


def test_table():
    groups = [
        ParameterGroup(layer=0, names=("a", "b", "c"), size=12_345, lr=2.5e-6, weight_decay=0.1),
        ParameterGroup(layer=None, names=("d",), size=5, lr=1e-3, weight_decay=0.0),
    ]
    assert describe(groups).splitlines() == [
        "layer  tensors     parameters          lr  decay  names",
        "    0        3         12,345  2.5000e-06    0.1  a ... c",
        "    -        1              5  1.0000e-03      0  d",
        "  all        4         12,350  in 2 groups",
    ]
