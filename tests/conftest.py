"""Install the replacement of mmcv's operators before any test module imports mmdet."""

import signal

import pytest
from mmengine.registry import init_default_scope

import pe_dense  # noqa: F401


@pytest.fixture(autouse=True)
def scope():
    """Start every test with mmdet's default scope."""
    init_default_scope("mmdet")


@pytest.fixture
def bounded():
    """Fail a test that blocks, such as on a FIFO without a writer, after a minute."""
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still waiting after a minute"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
