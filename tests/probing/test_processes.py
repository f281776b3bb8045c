"""Probes trained and evaluated in two processes."""

import json

import pytest
from helpers import probe_processes
from helpers.warm_process import run_ranks


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_ranks(probe_processes.__file__, folder, output=folder / "output.txt")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_numbers_are_those_of_one_process(results, task):
    expected = probe_processes.evaluate(task, range(probe_processes.IMAGES))
    assert results[0][task] == results[1][task]
    assert results[0][task] == {key: pytest.approx(value, rel=1e-6) for key, value in expected.items()}


def test_a_sweeps_probe_learns_from_both_processes_as_if_alone(results):
    first, second = results
    assert first["sweep"]["weights"] == pytest.approx(second["sweep"]["weights"], rel=1e-6)
    assert first["sweep"]["losses"] != pytest.approx(second["sweep"]["losses"], rel=1e-3)  # of its own images
    for rank in results:
        assert rank["sweep"]["losses"] == pytest.approx(rank["probe"]["losses"], rel=1e-6)
        assert rank["sweep"]["weights"] == pytest.approx(rank["probe"]["weights"], rel=1e-5)
