"""If saving is interrupted, ``last_checkpoint`` still names a complete checkpoint."""

import hashlib

import pytest
import torch
from helpers.linear_run import make_runner

from pe_dense.engine.hooks.checkpoint import CheckpointHook
from pe_dense.utils.errors import ConfigError


def break_save(monkeypatch, number):
    """Interrupt the `number`-th save in the middle of its file, as a kill does."""
    count, save = iter(range(1, 100)), torch.save

    def half(content, file):
        if next(count) == number:
            file.write(b"half a checkpoint")
            raise KeyboardInterrupt
        save(content, file)

    monkeypatch.setattr(torch, "save", half)


@pytest.mark.parametrize("max_keep_ckpts", [-1, 1])
def test_an_interrupted_save_costs_only_the_steps_since_the_last(tmp_path, monkeypatch, max_keep_ckpts):
    run = tmp_path / "run"
    break_save(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path, max_iters=6, max_keep_ckpts=max_keep_ckpts).train()
    assert [path.name for path in run.glob("*.pth")] == ["iter_2.pth"]
    assert (run / "last_checkpoint").read_text() == str(run / "iter_2.pth")
    assert not list(run.glob("*.part")) + list(run.glob(".pe_dense*"))

    resumed = make_runner(tmp_path, max_iters=6, max_keep_ckpts=max_keep_ckpts, resume="auto")
    resumed.load_or_resume()
    assert resumed.iter == 2
    resumed.train()
    kept = ["iter_2.pth", "iter_4.pth", "iter_6.pth"] if max_keep_ckpts == -1 else ["iter_6.pth"]
    assert sorted(path.name for path in run.glob("*.pth")) == kept

    (tmp_path / "whole").mkdir()
    make_runner(tmp_path / "whole", max_iters=6).train()
    ends = [torch.load(path / "iter_6.pth", weights_only=False) for path in (run, tmp_path / "whole" / "run")]
    assert torch.equal(*(end["state_dict"]["linear.weight"] for end in ends))


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    make_runner(tmp_path, max_iters=8, max_keep_ckpts=2).train()
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pth")) == ["iter_6.pth", "iter_8.pth"]


def test_a_moved_run_resumes(tmp_path):
    make_runner(tmp_path, max_iters=2).train()
    (tmp_path / "moved").mkdir()
    (tmp_path / "run").rename(tmp_path / "moved" / "run")
    runner = make_runner(tmp_path / "moved", max_iters=4, resume="auto")
    runner.load_or_resume()
    assert runner.iter == 2


def test_what_a_checkpoint_says(tmp_path):
    runner = make_runner(tmp_path, max_iters=2)
    runner.train()
    runner.save_checkpoint(str(tmp_path), "a.pth", save_optimizer=False, save_param_scheduler=False, by_epoch=False)
    content = torch.load(tmp_path / "a.pth", weights_only=False)
    assert set(content) == {"meta", "state_dict", "message_hub"}
    assert (content["meta"]["epoch"], content["meta"]["iter"]) == (0, 3)
    runner.save_checkpoint(str(tmp_path), "a.pth", meta=dict(note="b"))
    content = torch.load(tmp_path / "a.pth", weights_only=False)
    assert content["optimizer"]["param_groups"][0]["lr"] == 0.1
    assert (content["meta"]["epoch"], content["meta"]["iter"], content["meta"]["note"]) == (1, 2, "b")
    with pytest.raises(ConfigError, match="local folder"):
        runner.save_checkpoint(str(tmp_path), "a.pth", backend_args=dict(backend="petrel"))


def test_the_best_checkpoints_by_several_metrics(tmp_path):
    runner = make_runner(tmp_path, max_iters=2)
    runner.train()
    hook = CheckpointHook(by_epoch=False, save_best=["a", "b"], rule=["greater", "less"], save_last=False)
    hook.before_train(runner)
    best = lambda: sorted(path.name for path in (tmp_path / "run").glob("best_*"))  # noqa: E731
    hook.after_val_epoch(runner, dict(a=1.0, b=1.0))
    assert best() == ["best_a_iter_2.pth", "best_b_iter_2.pth"]
    runner.train_loop._iter = 3
    hook.after_val_epoch(runner, dict(a=0.5, b=0.5))
    assert best() == ["best_a_iter_2.pth", "best_b_iter_3.pth"]
    runner.train_loop._iter = 4
    hook.after_val_epoch(runner, dict(a=2.0, b=0.7))
    assert best() == ["best_a_iter_4.pth", "best_b_iter_3.pth"]
    assert runner.message_hub.get_info("best_ckpt_a") == str(tmp_path / "run" / "best_a_iter_4.pth")


def test_a_published_checkpoint(tmp_path):
    runner = make_runner(tmp_path, max_iters=2)
    runner.train()
    hook = CheckpointHook(by_epoch=False, published_keys=["state_dict", "meta"])
    hook.before_train(runner)
    hook.last_ckpt = str(tmp_path / "run" / "iter_2.pth")
    hook.after_train(runner)
    (path,) = (tmp_path / "run").glob("iter_2-*.pth")
    assert path.stem == "iter_2-" + hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert set(torch.load(path, weights_only=False)) == {"state_dict", "meta"}
