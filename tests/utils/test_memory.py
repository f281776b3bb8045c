"""Freed memory stays with the process, within limits, unless the user has other settings."""

import os
import subprocess
import sys

import pytest

# Page faults of a process that frees and allocates 24 MB again and again, below a block that stays.
CODE = """
import resource
from pe_dense.utils.memory import keep_freed_memory
import numpy as np

if KEEP:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.empty(6 * 2**20, np.float32).fill(0)
before = faults()
for _ in range(20):
    np.empty(6 * 2**20, np.float32).fill(0)
    blocks = [np.empty(2**20, np.float32) for _ in range(20)]
    for block in blocks:
        block.fill(0)
    del blocks, block
print(faults() - before)
"""


def faults(keep):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    code = CODE.replace("KEEP", str(keep))
    return int(subprocess.run([sys.executable, "-c", code], env=clean, check=True, capture_output=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_is_used_again():
    kept, returned = faults(True), faults(False)
    assert kept < 30_000 < returned  # 20 rounds of 80 MB are 410,000 pages


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_user_are_left_alone(monkeypatch, name):
    from pe_dense.utils.memory import keep_freed_memory

    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
