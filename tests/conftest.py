"""Install the replacement of mmcv's operators before any test module imports mmdet."""

import pytest
from mmengine.registry import init_default_scope

import pe_dense  # noqa: F401


@pytest.fixture(autouse=True)
def scope():
    """Start every test with mmdet's default scope."""
    init_default_scope("mmdet")
