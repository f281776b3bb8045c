"""Registries: former names, and every registered class found by its package alone."""

from importlib.util import find_spec

import pytest
from mmengine.registry import init_default_scope

from pe_dense import registry

FORMER = [
    ("TASK_UTILS", "OverlapAssigner", "DETAAssigner"),
    ("MODELS", "TestTimeMaskRCNN", "MaskRCNNTTAModel"),
    ("MODELS", "TestTimeDETA", "DETATTAModel"),
    ("OPTIM_WRAPPER_CONSTRUCTORS", "LayerDecayConstructor", "LayerDecayOptimWrapperConstructor"),
    ("OPTIM_WRAPPER_CONSTRUCTORS", "SweepConstructor", "SweepOptimWrapperConstructor"),
    ("OPTIM_WRAPPER_CONSTRUCTORS", "DeformableConstructor", "DETAOptimWrapperConstructor"),
    ("HOOKS", "FiniteLossHook", "NaNLossHook"),
]


@pytest.mark.parametrize(("kind", "former", "current"), FORMER)
def test_former_names_in_configs_and_checkpoints(kind, former, current):
    init_default_scope("mmdet")
    found = getattr(registry, kind).get(f"pe_dense.{former}")
    assert found is not None
    assert found.__name__ == current
    assert found is getattr(registry, kind).get(f"pe_dense.{current}")


def test_locations_are_packages():
    registries = {name: value for name, value in vars(registry).items() if hasattr(value, "_locations")}
    assert len(registries) > 8
    modules = {
        (name, location)
        for name, one in registries.items()
        for location in one._locations
        if find_spec(location).submodule_search_locations is None
    }
    # `pe_dense.engine` stays light, since it is imported before PyTorch, and `pe_dense.language` for the explorer.
    language = {(name, "pe_dense.language.registered") for name in ("MODELS", "HOOKS", "INFERENCERS", "METRICS")}
    assert modules == {("RUNNERS", "pe_dense.engine.runner")} | language
