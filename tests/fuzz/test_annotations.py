"""Short run of the annotation fuzzer with a fixed seed."""

from fuzz.annotations import run


def test_corrupted_files_are_repaired_or_refused_in_one_line(tmp_path):
    outcomes, failures = run(80, 0, tmp_path)
    assert failures == []
    assert outcomes["refused"] > 40
    assert outcomes["repaired"] > 3
