"""Runs of a detector and of probes with random weights, shared by the tests of the API."""

import numpy as np
import pytest
from helpers.run_folder import write_run
from PIL import Image

import pe_dense


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The run of a Mask R-CNN of eight classes."""
    return write_run(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def detector(run):
    """The Mask R-CNN, loaded from its run."""
    return pe_dense.load(run, device="cpu")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three files of 96 x 128 px."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(folder / f"{name}.png")
    return sorted(folder.iterdir())
