"""Registries: former names, and every registered class found by its package alone."""

import sys
from importlib.util import find_spec
from types import SimpleNamespace

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
    # timm and torchvision's transforms take seconds to import.
    slow = {
        ("OPTIMIZERS", "pe_dense.engine.optimizers.lamb"),
        ("TRANSFORMS", "pe_dense.datasets.torchvision_transforms"),
    }
    # `pe_dense.engine` stays light, since it is imported before PyTorch, and `pe_dense.language` for the explorer.
    language = {(name, "pe_dense.language.registered") for name in ("MODELS", "HOOKS", "INFERENCERS", "METRICS")}
    assert modules == {("RUNNERS", "pe_dense.engine.runner")} | language | slow


def test_a_look_up_imports_modules_until_the_name_is_found(tmp_path, monkeypatch):
    for name in ("first", "second", "third"):
        text = f"from located import REGISTRY\n@REGISTRY.register_module()\nclass {name.title()}: pass\n"
        (tmp_path / f"located_{name}.py").write_text(text)
    one = registry.Registry("located", locations=["located_first", "located_second", "located_third"], scope="located")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "located", SimpleNamespace(REGISTRY=one))
    assert one.get("Second").__name__ == "Second"
    assert "located_third" not in sys.modules
    assert one.get("Third").__name__ == "Third"
