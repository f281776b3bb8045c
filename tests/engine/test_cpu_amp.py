"""Mixed precision on CPUs with and without bfloat16 instructions."""

from pathlib import Path

import mmdet
import pytest
import torch
from helpers.linear_run import Linear, make_runner
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from pe_dense.engine import build_runner
from pe_dense.engine.optimizers.cpu_amp import CPUAmpOptimWrapper, bfloat16_instructions, fused

SGD = dict(type="SGD", lr=0.1)


@pytest.fixture
def on_a_cpu(monkeypatch):
    """Pretend that the CPU has the given instructions; returns the lines that are logged about precision."""
    lines = []

    def pretend(instructions):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(build_runner, "bfloat16_instructions", lambda: instructions)
        monkeypatch.setattr(build_runner, "print_log", lambda line, *_: lines.append(line))
        return lines

    return pretend


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [(True, True, "AMX"), (False, True, "AVX512-BF16"), (False, False, None)],
)
def test_instructions(amx, avx512, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert bfloat16_instructions() == expected


@pytest.mark.parametrize(
    ("wrapper", "amp", "line"),
    [
        (dict(type="OptimWrapper"), True, "CPU with AMX: training in bfloat16 mixed precision"),
        (
            dict(type="AmpOptimWrapper", dtype="bfloat16", loss_scale=dict(enabled=False)),
            False,
            "CPU with AMX: training in bfloat16 mixed precision",
        ),
        (
            dict(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic"),
            False,
            "CPU with AMX: training in bfloat16 mixed precision instead of float16",
        ),
    ],
)
def test_bfloat16_where_the_cpu_has_instructions(wrapper, amp, line, on_a_cpu, tmp_path):
    """The forward pass of training is in bfloat16; losses, parameters and validation are in float32."""
    lines = on_a_cpu("AMX")
    runner = make_runner(tmp_path, optim_wrapper=dict(wrapper, optimizer=SGD), amp=amp)
    assert lines == [line]
    dtypes = []
    runner.model.linear.register_forward_hook(lambda _layer, _inputs, output: dtypes.append(output.dtype))
    runner.train()
    assert isinstance(runner.optim_wrapper, CPUAmpOptimWrapper)
    assert dtypes == [torch.bfloat16] * 4
    assert runner.model.linear.weight.dtype == torch.float32
    assert runner.model(torch.ones(1, 4)).dtype == torch.float32  # as in MMEngine's validation loop


@pytest.mark.parametrize(
    ("wrapper", "amp", "lines"),
    [
        (dict(type="OptimWrapper"), True, 1),
        (dict(type="AmpOptimWrapper", dtype="bfloat16", loss_scale="dynamic"), False, 1),
        (dict(type="OptimWrapper"), False, 0),
    ],
)
def test_float32_on_other_cpus(wrapper, amp, lines, on_a_cpu, tmp_path):
    logged = on_a_cpu(None)
    runner = make_runner(tmp_path, optim_wrapper=dict(wrapper, optimizer=SGD), amp=amp)
    warning = "No GPU, and this CPU has neither AMX nor AVX512-BF16: training in float32 instead of mixed precision"
    assert logged == [warning] * lines
    runner.train()
    assert type(runner.optim_wrapper) is OptimWrapper


def test_float32_by_request(on_a_cpu, tmp_path):
    lines = on_a_cpu("AMX")
    wrapper = dict(type="AmpOptimWrapper", dtype="float32", optimizer=SGD)
    runner = make_runner(tmp_path, optim_wrapper=wrapper)
    runner.train()
    assert lines == [] and type(runner.optim_wrapper) is OptimWrapper


def test_state_of_a_gpu_run():
    """The state of a GPU's loss scaling has no effect on a CPU."""
    model = Linear()
    wrapper = CPUAmpOptimWrapper(dtype="bfloat16", optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    state = wrapper.state_dict()
    assert "loss_scaler" not in state
    state["param_groups"][0]["lr"] = 0.5
    wrapper.load_state_dict(dict(state, loss_scaler=dict(scale=65536.0)))
    assert wrapper.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (dict(type="SGD", lr=0.1), True),
        (dict(type="AdamW", lr=0.1), True),
        (dict(type="AdamW", lr=0.1, foreach=True), None),
        (dict(type="AdamW", lr=0.1, fused=False), False),
    ],
)
def test_optimizers_are_fused_on_a_cpu(optimizer, expected, on_a_cpu, tmp_path):
    """Unless the config chooses another implementation."""
    on_a_cpu(None)
    runner = make_runner(tmp_path, optim_wrapper=dict(type="OptimWrapper", optimizer=optimizer))
    runner.train()
    assert runner.optim_wrapper.optimizer.defaults["fused"] is expected
    assert "fused" not in optimizer or optimizer["fused"] is False


def test_other_optimizers_are_left_alone():
    assert fused(dict(type="Adagrad", lr=0.1)) == dict(type="Adagrad", lr=0.1)


@pytest.mark.parametrize(("amp", "expected"), [(True, "pe_dense.SingleRoIExtractor"), (False, "SingleRoIExtractor")])
def test_detectors_of_mmdet_keep_exact_boxes_in_mixed_precision(amp, expected, on_a_cpu):
    on_a_cpu("AMX")
    config = Config.fromfile(f"{Path(mmdet.__file__).parent}/.mim/configs/_base_/models/mask-rcnn_r50_fpn.py")
    config.optim_wrapper = dict(type="OptimWrapper", optimizer=SGD)
    build_runner._set_precision(config, amp)
    head = config.model.roi_head
    assert head.bbox_roi_extractor.type == head.mask_roi_extractor.type == expected
