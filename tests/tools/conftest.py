"""One short training run, shared by the tests of the tools and of the detector."""

from types import SimpleNamespace

import pytest
from helpers.tool_runs import CONFIG, run_tool


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Four iterations on eight generated images."""
    folder = tmp_path_factory.mktemp("tools")
    options = [
        f"data_root={folder / 'shapes'}",
        *(
            f"{dataset}.generator.num_{part}=8"
            for dataset in ("train_dataloader.dataset", "val_dataloader.dataset", "test_dataloader.dataset")
            for part in ("train", "val")
        ),
        "train_dataloader.batch_size=2",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "train_cfg.max_iters=4",
        "train_cfg.val_interval=4",
        "default_hooks.checkpoint.interval=2",
    ]
    done = run_tool("train", CONFIG, "--work-dir", folder / "run", "--cfg-options", *options, fresh=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return SimpleNamespace(folder=folder, work_dir=folder / "run", options=options, output=done.stdout + done.stderr)
