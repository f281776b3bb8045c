"""Several processes that train together."""

from __future__ import annotations

import os
import subprocess
import time

import torch
from mmengine.config import Config

from pe_dense.utils.errors import ConfigError

# What each launcher calls a process's rank, the number of processes, and the rank among those of one machine.
_NAMES = dict(
    pytorch=("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    slurm=("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    mpi=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)
# Variables that count the processes of one launch. SLURM_NTASKS is none of them: a batch script has it without srun.
_COUNTS = dict(WORLD_SIZE="pytorch", SLURM_STEP_NUM_TASKS="slurm", OMPI_COMM_WORLD_SIZE="mpi")
_COMMANDS = dict(pytorch="torchrun --nproc_per_node=N", slurm="srun --ntasks=N python", mpi="mpirun -n N python")


def check_launcher(launcher: str) -> None:
    """Refuse to be one of several processes that do not know of each other.

    Without ``--launcher`` each of them would be a run of its own, and all would write to one folder.

    Args:
        launcher: as given.

    Raises:
        ConfigError: naming the variable that shows it, and the option that is missing.
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
    """Set a config up for the processes of a launcher, and meet them where there is no GPU.

    Args:
        config: a whole config.
        launcher: 'pytorch', 'slurm' or 'mpi'.

    Raises:
        ConfigError: if the launcher did not start this process; the message shows the command that does.
    """
    addresses = () if launcher == "slurm" else ("MASTER_ADDR",)
    missing = [name for name in (*_NAMES[launcher], *addresses) if name not in os.environ]
    if missing:
        raise ConfigError(
            f"--launcher {launcher} found no {', '.join(missing)} in the environment: start with "
            f"`{_COMMANDS[launcher]} tools/train.py CONFIG --launcher {launcher}`"
        )
    # Without it a parameter that takes no part in a loss makes the processes wait for its gradient forever.
    unused = config.setdefault("find_unused_parameters", True)
    if torch.cuda.is_available():
        return
    config.pop("sync_bn", None)  # PyTorch's needs GPUs
    for name, given in zip(_NAMES["pytorch"], _NAMES[launcher], strict=True):
        os.environ[name] = os.environ[given]
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_host()
    os.environ.setdefault("MASTER_PORT", "29500")
    # MMEngine leaves a process group alone that is there already; its own set-up and wrapper ask for a CUDA device.
    torch.distributed.init_process_group("gloo")
    wrapper = config.get("model_wrapper_cfg") or dict(broadcast_buffers=False, find_unused_parameters=unused)
    config.model_wrapper_cfg = dict(dict(type="MMDistributedDataParallel"), **wrapper, device_ids=None)


def is_main_process(launcher: str) -> bool:
    """Whether this is the run's only process, or its first; can be asked before the processes have met."""
    return launcher == "none" or os.environ.get(_NAMES[launcher][0]) == "0"


def destroy_distributed() -> None:
    """Part from the other processes when all is done, before the interpreter ends."""
    if torch.distributed.is_initialized():
        # Gloo's threads let go of the last tensors under Python's lock. One that still waits for the lock when the
        # interpreter ends aborts the process (pytorch/pytorch issue 190489; every tenth run on a busy machine), so it
        # gets a moment.
        time.sleep(0.1)
        torch.distributed.destroy_process_group()


def _first_host() -> str:
    """The machine of a Slurm job where the processes meet."""
    nodes = os.environ.get("SLURM_NODELIST", "")
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return listed.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError(
            f"`scontrol show hostnames {nodes}` does not tell the job's machines ({error}): set MASTER_ADDR to the "
            "first of them"
        ) from error
