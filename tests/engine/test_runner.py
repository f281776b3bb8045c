"""Load models strictly, resume, and do not overwrite runs."""

import pytest
import torch
from helpers.linear_run import Linear, make_runner
from mmengine.config import Config

from pe_dense.engine.build_runner import training_runner
from pe_dense.engine.runner import load_model_state
from pe_dense.utils import CheckpointError
from pe_dense.utils.errors import ConfigError, one_line_errors


def test_a_run_is_never_overwritten(tmp_path):
    make_runner(tmp_path).train()
    with pytest.raises(ConfigError, match="already contains a run: continue it with --resume"):
        make_runner(tmp_path)


@pytest.mark.parametrize("resume", ["auto", "path"])
def test_resuming_goes_on_from_the_last_checkpoint(tmp_path, resume):
    make_runner(tmp_path, max_iters=4).train()
    resume = "auto" if resume == "auto" else str(tmp_path / "run" / "iter_2.pth")
    runner = make_runner(tmp_path, max_iters=6, resume=resume)
    runner.load_or_resume()
    assert runner.train_loop.iter == (4 if resume == "auto" else 2)
    saved = torch.load(tmp_path / "run" / f"iter_{runner.train_loop.iter}.pth", weights_only=False)["state_dict"]
    assert torch.equal(saved["linear.weight"], runner.model.linear.weight)


def test_resume_without_a_run_starts_from_scratch(tmp_path):
    runner = make_runner(tmp_path, resume="auto")
    runner.train()
    assert runner.iter == 4


def test_model_state_is_strict():
    model = Linear()
    state = {f"module.{k}": v + 1 for k, v in model.state_dict().items()}
    load_model_state(model, dict(state_dict=state), "a.pth")
    assert torch.equal(model.linear.bias, state["module.linear.bias"])
    with pytest.raises(CheckpointError, match=r"a\.pth does not fit .*Linear: .*linear\.weight \(1, 4\) for \(2, 4\)"):
        load_model_state(Linear(2), state, "a.pth")
    with pytest.raises(CheckpointError, match="1 unknown to the model: head.bias"):
        load_model_state(model, {**state, "head.bias": torch.zeros(1)}, "a.pth")
    with pytest.raises(CheckpointError, match="contains a list, not a state dict"):
        load_model_state(model, [1], "a.pth")
    with pytest.raises(CheckpointError, match="a.pth is not a state dict that can be loaded: iter is a int"):
        load_model_state(model, {**state, "iter": 3}, "a.pth")


def test_launcher_without_torchrun(monkeypatch, tmp_path):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun --nproc_per_node"):
        training_runner(
            Config(dict(model={}, train_dataloader={})),
            work_dir=str(tmp_path),
            resume=None,
            amp=False,
            launcher="pytorch",
        )


@pytest.mark.parametrize("error", [ConfigError("bad thing"), FileNotFoundError("bad thing")])
def test_one_line_errors(error, capsys, monkeypatch):
    monkeypatch.delenv("PE_DENSE_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise error
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: bad thing\n"
    monkeypatch.setenv("PE_DENSE_TRACEBACK", "1")
    with pytest.raises(type(error)), one_line_errors():
        raise error
