"""Short run of the checkpoint fuzzer."""

from fuzz import checkpoints


def test_corrupted_checkpoints_are_refused_in_one_line():
    counts, failures = checkpoints.run(rounds=60, seed=0)
    assert not failures
    assert sum(count for (_, result), count in counts.items() if result == "refused") > 20
