"""Set-up and tear-down of distributed training."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import timedelta

import torch
from mmengine.config import Config

from pe_dense.utils.errors import ConfigError

# Environment variables of each launcher: rank, world size and local rank.
_NAMES = dict(
    pytorch=("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    slurm=("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    mpi=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)
# Variables that count the processes of one launch. SLURM_NTASKS is excluded: batch scripts have it without srun.
_COUNTS = dict(WORLD_SIZE="pytorch", SLURM_STEP_NUM_TASKS="slurm", OMPI_COMM_WORLD_SIZE="mpi")
_COMMANDS = dict(pytorch="torchrun --nproc_per_node=N", slurm="srun --ntasks=N python", mpi="mpirun -n N python")


def check_launcher(launcher: str) -> None:
    """Raise an error if several processes were started without ``--launcher``.

    Each of them would be a separate run, and all would write to the same folder.

    Args:
        launcher: value of ``--launcher``.

    Raises:
        ConfigError: with the environment variable that shows it and the missing option.
    """
    if launcher != "none":
        return
    for name, option in _COUNTS.items():
        count = os.environ.get(name, "")
        if count.isdigit() and int(count) > 1:
            raise ConfigError(
                f"{count} processes were started ({name}={count}), but without --launcher each would be a separate run "
                f"in the same folder: add --launcher {option}, or start a single process"
            )


def init_distributed(config: Config, launcher: str) -> None:
    """Set up a config for a launcher, and initialize the process group (Gloo) if there is no GPU.

    Args:
        config: complete config.
        launcher: 'pytorch', 'slurm' or 'mpi'.

    Raises:
        ConfigError: if the launcher did not start this process; the message shows the command that does.
    """
    _check_environment(launcher, "tools/train.py CONFIG")
    # Without it, a parameter that is not used in the loss makes DDP wait for its gradient forever.
    unused = config.setdefault("find_unused_parameters", True)
    if torch.cuda.is_available():
        return
    config.pop("sync_bn", None)  # PyTorch's needs GPUs
    # MMEngine keeps an existing process group; its own set-up and model wrapper require a CUDA device.
    _init_gloo(launcher)
    wrapper = config.get("model_wrapper_cfg") or dict(broadcast_buffers=False, find_unused_parameters=unused)
    config.model_wrapper_cfg = dict(dict(type="MMDistributedDataParallel"), **wrapper, device_ids=None)


def start_processes(launcher: str) -> None:
    """Initialize the process group (Gloo) of a tool whose processes exchange only their results, however late.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        ConfigError: if the launcher did not start this process, or several were started without one.
    """
    check_launcher(launcher)
    if launcher != "none":
        _check_environment(launcher, "tools/bench.py TOWER...")
        _init_gloo(launcher, timeout=timedelta(days=30))


def _check_environment(launcher: str, command: str) -> None:
    addresses = () if launcher == "slurm" else ("MASTER_ADDR",)
    missing = [name for name in (*_NAMES[launcher], *addresses) if name not in os.environ]
    if missing:
        raise ConfigError(
            f"--launcher {launcher} found no {', '.join(missing)} in the environment: start with "
            f"`{_COMMANDS[launcher]} {command} --launcher {launcher}`"
        )


def _init_gloo(launcher: str, **options) -> None:
    for name, given in zip(_NAMES["pytorch"], _NAMES[launcher], strict=True):
        os.environ[name] = os.environ[given]
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_host()
    os.environ.setdefault("MASTER_PORT", "29500")
    torch.distributed.init_process_group("gloo", **options)


def is_main_process(launcher: str) -> bool:
    """Return whether this process has rank 0; may be called before the process group is initialized."""
    return launcher == "none" or os.environ.get(_NAMES[launcher][0]) == "0"


def destroy_distributed() -> None:
    """Destroy the process group at the end of a run, before the interpreter exits."""
    if torch.distributed.is_initialized():
        # Gloo's threads release their last tensors under the GIL. A thread that still waits for the GIL when the
        # interpreter exits aborts the process (pytorch/pytorch issue 190489; every tenth run on a busy machine), hence
        # the short wait.
        time.sleep(0.1)
        torch.distributed.destroy_process_group()


def _first_host() -> str:
    """Return the first host of a Slurm job, which is the master address."""
    nodes = os.environ.get("SLURM_NODELIST", "")
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return listed.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError(
            f"`scontrol show hostnames {nodes}` does not list the job's hosts ({error}): set MASTER_ADDR to the "
            "first host"
        ) from error
