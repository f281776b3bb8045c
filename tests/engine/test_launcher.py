"""Launchers of distributed runs, and options that require or exclude them."""

import os

import pytest
import torch
from helpers.linear_run import make_runner
from mmengine.config import Config

from pe_dense.engine.build_runner import training_runner
from pe_dense.engine.distributed import init_distributed
from pe_dense.utils.errors import ConfigError

LAUNCHERS = dict(
    pytorch=dict(RANK="1", WORLD_SIZE="4", LOCAL_RANK="1", MASTER_ADDR="a"),
    slurm=dict(SLURM_PROCID="1", SLURM_NTASKS="4", SLURM_LOCALID="1", SLURM_NODELIST="node[7-8]"),
    mpi=dict(OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="4", OMPI_COMM_WORLD_LOCAL_RANK="1", MASTER_ADDR="node1"),
)


@pytest.fixture
def environment(monkeypatch):
    """Remove launcher variables and hide GPUs; restore the environment afterwards."""
    for names in LAUNCHERS.values():
        for name in (*names, "MASTER_PORT"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backends = []
    monkeypatch.setattr(torch.distributed, "init_process_group", backends.append)
    return backends


@pytest.mark.parametrize(
    ("variable", "launcher"),
    [("WORLD_SIZE", "pytorch"), ("SLURM_STEP_NUM_TASKS", "slurm"), ("OMPI_COMM_WORLD_SIZE", "mpi")],
)
def test_several_processes_without_launcher_are_refused(environment, variable, launcher, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, "2")
    with pytest.raises(ConfigError, match=rf"{variable}=2.*separate run in the same folder: add --launcher {launcher}"):
        make_runner(tmp_path)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")  # of a batch script that starts one process, without srun
    make_runner(tmp_path)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_meet_without_a_gpu(environment, launcher, monkeypatch, tmp_path):
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'node7\\nnode8\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = Config(dict(sync_bn="torch"))
    init_distributed(config, launcher)
    assert environment == ["gloo"]
    assert "sync_bn" not in config
    assert [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")] == [
        "1",
        "4",
        "1",
        "29500",
    ]
    assert os.environ["MASTER_ADDR"] == dict(pytorch="a", slurm="node7", mpi="node1")[launcher]
    assert config.model_wrapper_cfg.type == "MMDistributedDataParallel"
    assert config.model_wrapper_cfg.device_ids is None
    assert config.model_wrapper_cfg.find_unused_parameters is True


def test_settings_of_the_config_stay(environment, monkeypatch):
    for name, value in LAUNCHERS["pytorch"].items():
        monkeypatch.setenv(name, value)
    config = Config(dict(find_unused_parameters=False))
    init_distributed(config, "pytorch")
    assert config.model_wrapper_cfg.find_unused_parameters is False
    config = Config(dict(model_wrapper_cfg=dict(static_graph=True)))
    init_distributed(config, "pytorch")
    assert config.model_wrapper_cfg == dict(type="MMDistributedDataParallel", static_graph=True, device_ids=None)


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("pytorch", "found no RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR .*torchrun --nproc_per_node=N tools/train.py"),
        ("slurm", "found no SLURM_PROCID, .*srun --ntasks=N"),
        ("mpi", "found no OMPI_COMM_WORLD_RANK, .*mpirun -n N"),
    ],
)
def test_a_process_that_no_launcher_started(environment, launcher, message):
    with pytest.raises(ConfigError, match=message):
        init_distributed(Config({}), launcher)
    assert environment == []


def test_slurm_without_scontrol(environment, monkeypatch, tmp_path):
    for name, value in LAUNCHERS["slurm"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="set MASTER_ADDR"):
        init_distributed(Config({}), "slurm")


def test_sharding_needs_processes_and_excludes_averages(tmp_path):
    with pytest.raises(ConfigError, match="--fsdp .*torchrun .* --launcher pytorch --fsdp"):
        make_runner(tmp_path, fsdp=True)
    options = dict(work_dir=str(tmp_path), resume=None, amp=False, launcher="pytorch", fsdp=True)
    with pytest.raises(ConfigError, match="--ema is not supported with --fsdp"):
        training_runner(Config(dict(model={}, train_dataloader={})), **options, ema=0.1)
    with pytest.raises(ConfigError, match="optim_wrapper.dtype is float16"):
        training_runner(
            Config(dict(model={}, train_dataloader={}, optim_wrapper=dict(type="AmpOptimWrapper", dtype="float16"))),
            **options,
        )


@pytest.mark.parametrize(
    ("wrapper", "amp", "expected"),
    [
        (dict(type="OptimWrapper"), False, dict(type="OptimWrapper")),
        (
            dict(type="OptimWrapper"),
            True,
            dict(type="AmpOptimWrapper", dtype="bfloat16", loss_scale=dict(enabled=False)),
        ),
        (
            dict(type="AmpOptimWrapper", dtype="float16"),
            True,
            dict(type="AmpOptimWrapper", dtype="float16"),
        ),
    ],
)
def test_losses_are_scaled_for_float16_alone(wrapper, amp, expected, monkeypatch):
    from pe_dense.engine.build_runner import _set_precision

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = Config(dict(optim_wrapper=wrapper))
    _set_precision(config, amp)
    assert config.optim_wrapper == expected
