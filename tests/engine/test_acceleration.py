"""Compiled and bfloat16 backbones: results stay close, copies and state dicts as they are, failures fall back."""

import copy
from types import SimpleNamespace

import pytest
import torch
from helpers.tool_runs import call_tool
from torch import nn
from torch._dynamo.testing import CompileCounter

from pe_dense.backbones import PETower
from pe_dense.engine import acceleration
from pe_dense.engine.acceleration import accelerate
from pe_dense.utils.errors import ConfigError

TINY = dict(patch_size=4, width=32, layers=3, heads=2, mlp_ratio=2.0, image_size=16, pool_type="none")


@pytest.fixture
def tower():
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield PETower(TINY).eval()
    torch._dynamo.reset()


@pytest.fixture
def counter(monkeypatch):
    """A backend that counts compilations and runs graphs eagerly."""
    counter, original = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: original(function, backend=counter, **options))
    return counter


@pytest.fixture
def messages(monkeypatch):
    messages = []
    monkeypatch.setattr(acceleration, "print_log", lambda message, *_: messages.append(message))
    return messages


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_blocks_are_compiled_once_for_all(tower, counter, images):
    model = nn.Sequential(tower)
    names = list(model.state_dict())
    with torch.no_grad():
        expected = tower(images)[0]
        accelerate(model, compiled=True)
        assert torch.allclose(model(images)[0], expected, atol=1e-6)
        assert counter.frame_count == 1
        tower.forward_intermediates(images, [0, 2])  # not only by `forward`
        assert counter.frame_count == 1
    assert list(model.state_dict()) == names
    clone = copy.deepcopy(tower)  # as for an exponential moving average: with its own weights
    clone.transformer.resblocks[0].attn.in_proj_weight.data.zero_()
    assert not torch.allclose(clone(images)[0], expected)
    assert torch.allclose(tower(images)[0], expected, atol=1e-6)


def test_gradients_of_compiled_blocks(tower, counter, images):
    tower.train()
    tower(images)[0].square().sum().backward()
    expected = {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}
    assert len(expected) > 30
    tower.zero_grad()
    accelerate(tower, compiled=True)
    tower(images)[0].square().sum().backward()
    for name, gradient in expected.items():
        assert torch.allclose(tower.get_parameter(name).grad, gradient, atol=1e-3, rtol=1e-4), name


def test_failed_compilation_falls_back_with_one_line(tower, messages, monkeypatch, images):
    def backend(graph, inputs):
        raise RuntimeError("no C++ compiler\nmore lines")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: original(function, backend=backend, **options))
    with torch.no_grad():
        expected = tower(images)[0]
        accelerate(tower, compiled=True)
        for _ in range(2):
            assert torch.equal(tower(images)[0], expected)
    (message,) = messages
    assert message == "the backbone runs without compilation: RuntimeError: no C++ compiler"


def test_bfloat16_outside_of_training_only(tower, monkeypatch, images):
    monkeypatch.setattr(acceleration, "bfloat16_instructions", lambda: "AMX")
    with torch.no_grad():
        expected = tower(images)[0]
        accelerate(tower, dtype="auto")
        found = tower(images)[0]
        assert found.dtype == torch.float32
        assert 1e-5 < (found - expected).abs().max() < 0.02 * expected.abs().max()
        assert torch.equal(tower.train()(images)[0], expected)


@pytest.mark.parametrize(("dtype", "lines"), [("bfloat16", 1), ("auto", 0)])
def test_cpus_without_bfloat16_run_in_float32(tower, messages, monkeypatch, images, dtype, lines):
    monkeypatch.setattr(acceleration, "bfloat16_instructions", lambda: None)
    with torch.no_grad():
        expected = tower(images)[0]
        accelerate(tower, dtype=dtype)
        assert torch.equal(tower(images)[0], expected)
    assert messages == lines * ["this cpu has no bfloat16 instructions: the backbone runs in float32"]


def test_models_without_a_backbone_and_other_dtypes_are_refused(tower):
    with pytest.raises(ConfigError, match="no backbone of this project"):
        accelerate(nn.Linear(2, 2), compiled=True)
    with pytest.raises(ConfigError, match="dtype is 'half', must be one of float32, bfloat16, auto"):
        accelerate(tower, dtype="half")


@pytest.mark.parametrize(
    ("tool", "options", "expected"),
    [
        ("test", ["model.pth", "--compile", "--dtype", "auto"], dict(compiled=True, dtype="auto")),
        ("train", ["--compile"], dict(compiled=True)),
    ],
)
def test_options_of_the_tools(tool, options, expected, monkeypatch):
    calls, nothing = [], lambda *_: None
    runner = SimpleNamespace(model="model", train=nothing, test=nothing, work_dir="work", log_dir="log")
    monkeypatch.setattr(f"pe_dense.engine.build_runner.{tool}ing_runner", lambda *_, **__: runner)
    monkeypatch.setattr(acceleration, "accelerate", lambda model, **options: calls.append((model, options)))
    done = call_tool(tool, "shapes_maskrcnn_pe_tiny", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert calls == [("model", expected)]


def test_sharded_training_is_not_compiled():
    done = call_tool("train", "shapes_maskrcnn_pe_tiny", "--compile", "--fsdp")
    assert done.returncode == 2
    assert "--compile does not go with --fsdp: leave one of them out" in done.stderr
