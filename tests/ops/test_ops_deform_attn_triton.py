"""Triton kernels of deformable attention: interpreted on the CPU, compiled for GPUs, and their selection."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from pe_dense.ops import deform_attn, deform_attn_torch, deform_attn_triton

CASES = ("one_map", "maps", "many_rows", "odd_channels", "far_outside", "no_queries", "bfloat16", "autocast", "float16")
TOLERANCES = dict(float32=1e-6, float16=1e-3, bfloat16=8e-3)  # relative to the largest value


@pytest.fixture(scope="module")
def interpreted():
    """Return the interpreter's results from a separate process."""
    script = Path(__file__).with_name("deform_attn_interpreted.py")
    env = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_interpreted_kernels_against_the_formula(interpreted, case):
    for name, found in interpreted[case].items():
        assert found["shape"], name
        assert found["off"] <= TOLERANCES[found["dtype"]] * found["size"], name
    dtypes = [found["dtype"] for found in interpreted[case].values()]
    expected = dict(autocast=["bfloat16", "bfloat16", "float32", "bfloat16"]).get(case)
    assert dtypes == (expected or [case if case in TOLERANCES else "float32"] * 4)
    assert case == "no_queries" or all(found["size"] > 0.1 for found in interpreted[case].values())


def test_interpreted_kernels_meet_what_is_not_finite(interpreted):
    assert interpreted["not_finite"]


@pytest.mark.parametrize("kernel", ["_forward", "_backward"])
def test_kernels_compile(kernel):
    """For compute capability 8.0, without a GPU; nothing is spilled to memory."""
    import triton
    from triton.backends.compiler import GPUTarget

    function = getattr(deform_attn_triton, kernel)
    kinds = dict.fromkeys(("shapes", "starts"), "*i64") | dict.fromkeys(("value", "grad", "output"), "*bf16")
    kinds |= dict.fromkeys(("locations", "weights", "of_value", "of_locations", "of_weights"), "*fp32")
    signature = {name: "constexpr" if name.isupper() else kinds.get(name, "i32") for name in function.arg_names}
    source = triton.compiler.ASTSource(
        fn=function,
        signature=signature,
        constexprs=dict(LEVELS=5, POINTS=4, ROWS=16, CHANNELS=32),
        attrs={
            (number,): [["tt.divisibility", 16]]
            for number, name in enumerate(function.arg_names)
            if signature[name].startswith("*") or name == "channels"
        },
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32))
    assert "ld.global.v" in compiled.asm["ptx"]  # several channels at once
    assert ".local" not in compiled.asm["ptx"]


class TestChoice:
    """Selection of the implementation; `gpu` mocks a GPU tensor."""

    gpu = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda", 0))

    @pytest.fixture(autouse=True)
    def anew(self, monkeypatch):
        monkeypatch.delenv(deform_attn.SWITCH, raising=False)
        deform_attn._kernels.cache_clear()
        yield
        deform_attn._kernels.cache_clear()

    def test_kernels_on_gpus_where_they_agree(self, monkeypatch):
        checked = []
        monkeypatch.setattr(deform_attn_triton, "check", checked.append)
        for _ in range(2):
            assert deform_attn._implementation(self.gpu) is deform_attn_triton
        assert checked == [torch.device("cuda", 0)]

    @pytest.mark.parametrize("change", [dict(is_cuda=False), dict(dtype=torch.float64)])
    def test_formula_elsewhere(self, monkeypatch, change):
        monkeypatch.setattr(deform_attn_triton, "check", lambda device: None)
        assert deform_attn._implementation(SimpleNamespace(**vars(self.gpu) | change)) is deform_attn_torch

    def test_switch(self, monkeypatch):
        monkeypatch.setattr(deform_attn_triton, "check", lambda device: None)
        monkeypatch.setenv("PE_DENSE_TRITON", "0")
        assert deform_attn._implementation(self.gpu) is deform_attn_torch

    def test_what_fails_is_reported_once(self, monkeypatch, caplog):
        def fail(device):
            raise RuntimeError("Failed to find C compiler")

        monkeypatch.setattr(deform_attn_triton, "check", fail)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert deform_attn._implementation(self.gpu) is deform_attn_torch
        (record,) = caplog.records
        assert "PyTorch operators" in record.getMessage() and "Failed to find C compiler" in record.getMessage()

    def test_check_detects_wrong_kernels(self, monkeypatch):
        wrong = {name: getattr(deform_attn_torch, name) for name in ("forward", "backward")}
        monkeypatch.setattr(deform_attn_triton, "forward", wrong["forward"])
        monkeypatch.setattr(deform_attn_triton, "backward", wrong["backward"])
        with torch.inference_mode():
            deform_attn_triton.check("cpu")
        monkeypatch.setattr(deform_attn_triton, "forward", lambda *inputs: 1.01 * wrong["forward"](*inputs))
        with pytest.raises(RuntimeError, match="results differ from PyTorch by .* on cpu"):
            deform_attn_triton.check("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_compiled_kernels_on_the_gpu():
    deform_attn_triton.check("cuda")
