"""Resume from the newest undamaged checkpoint, or raise an error."""

import pytest
import torch
from helpers.linear_run import make_runner

from pe_dense.utils import CheckpointError
from pe_dense.utils.errors import ConfigError


@pytest.fixture
def run(tmp_path):
    make_runner(tmp_path, max_iters=4).train()
    return tmp_path / "run"


def spoil(path, change):
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize("note", [None, b"", b"\x00\xff"])
def test_a_missing_or_empty_note_resumes_the_newest(tmp_path, run, note):
    (run / "last_checkpoint").unlink()
    if note is not None:
        (run / "last_checkpoint").write_bytes(note)
    runner = make_runner(tmp_path, max_iters=6, resume="auto")
    runner.load_or_resume()
    assert runner.iter == 4


def test_no_run_replaces_checkpoints_of_another(tmp_path, run):
    content = (run / "iter_2.pth").read_bytes()
    (tmp_path / "other").mkdir()
    make_runner(tmp_path / "other", max_iters=2).train()
    with pytest.raises(
        ConfigError, match=r"contains checkpoints of a run other than that of .*iter_2\.pth, which would be"
    ):
        make_runner(tmp_path, resume=str(tmp_path / "other" / "run" / "iter_2.pth"))
    (run / "last_checkpoint").unlink()
    with pytest.raises(ConfigError, match="already contains a run"):
        make_runner(tmp_path)
    for path in run.glob("iter_*.pth"):
        path.rename(run / f"best_{path.name}")
    with pytest.raises(ConfigError, match=r"contains best_iter_2\.pth, .*to resume"):
        make_runner(tmp_path, resume="auto")
    assert (run / "best_iter_2.pth").read_bytes() == content


@pytest.mark.parametrize("resume", ["auto", "iter_4.pth"])
def test_a_damaged_checkpoint_names_the_one_before(tmp_path, run, resume):
    content = bytearray((run / "iter_4.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "iter_4.pth").write_bytes(content)
    before = {path.name: path.read_bytes() for path in run.glob("*.pth")}
    runner = make_runner(tmp_path, max_iters=6, resume=resume if resume == "auto" else str(run / resume))
    with pytest.raises(CheckpointError, match=r"iter_4\.pth .*is damaged.*train\.py .*--resume \S*iter_2\.pth$"):
        runner.train()
    assert {path.name: path.read_bytes() for path in run.glob("*.pth")} == before
    runner = make_runner(tmp_path, max_iters=6, resume=str(run / "iter_2.pth"))
    runner.train()
    assert runner.iter == 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(meta=3), "meta is a int"),
        (lambda c: c["meta"].update(iter="4"), "meta.iter is 4, not a number of steps"),
        (lambda c: c["meta"].update(iter=-1), "meta.iter"),
        (lambda c: c["meta"].pop("epoch"), "meta.epoch is None"),
        (lambda c: c["meta"].update(seed="x"), "meta.seed"),
        (lambda c: c.pop("message_hub"), "message_hub"),
        (lambda c: c.update(message_hub={}), "message_hub"),
        (lambda c: c["message_hub"]["resumed_keys"].update(cfg=3), "resumed_keys.cfg is 3, not True"),
        (lambda c: c.pop("optimizer"), "optimizer"),
        (lambda c: c["optimizer"].update(param_groups=[]), "does not fit this run"),
        (lambda c: c["optimizer"]["param_groups"][0].update(lr=float("nan")), "optimizer.param_groups.lr"),
        (lambda c: c["optimizer"]["param_groups"][0].update(lr="0.1"), "optimizer.param_groups.lr"),
        (lambda c: c["optimizer"]["param_groups"][0].pop("momentum"), "param_groups.momentum is missing"),
        (lambda c: c["optimizer"]["param_groups"][0].update(nesterov=2), "param_groups.nesterov is 2"),
        (lambda c: c["optimizer"]["state"].update({0: dict(momentum_buffer=torch.zeros(7))}), "momentum_buffer"),
        (lambda c: c["optimizer"]["state"].update({0: dict(momentum_buffer=torch.full((1, 4), torch.nan))}), "NaN"),
        (lambda c: c["state_dict"].update({"linear.bias": torch.tensor([torch.inf])}), "linear.bias has NaN"),
        (lambda c: c.update(ema_state_dict=3), "ema"),
    ],
)
def test_corrupted_training_state(tmp_path, run, change, reason):
    spoil(run / "iter_4.pth", change)
    with pytest.raises((CheckpointError, ConfigError), match=reason) as error:
        make_runner(tmp_path, max_iters=6, resume="auto").train()
    assert "\n" not in str(error.value)


def test_text_of_a_checkpoint_is_not_executed(tmp_path, run):
    """MMEngine executes `meta.config` of a checkpoint as Python."""
    text = f"open({str(tmp_path / 'touched')!r}, 'w')\nmodel = dict()"
    spoil(run / "iter_4.pth", lambda content: content["meta"].update(config=text))
    make_runner(tmp_path, max_iters=6, resume="auto").train()
    assert not (tmp_path / "touched").exists()


class Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_other_libraries_read_checkpoints_safely_within_a_run(tmp_path):
    """MMEngine falls back to unpickling without restriction when modules load what their ``init_cfg`` names."""
    torch.save({"state_dict": Malicious(tmp_path / "touched")}, tmp_path / "bad.pth")
    runner = make_runner(tmp_path)
    runner.model.init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "bad.pth"))
    runner.model._is_init = False
    with pytest.raises(CheckpointError, match=r"bad\.pth.*never loaded"):
        runner.train()
    assert not (tmp_path / "touched").exists()
