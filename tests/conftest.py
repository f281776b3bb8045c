"""mmcv's stand-in operators must be known before any test module imports mmdet."""

import pytest
from mmengine.registry import init_default_scope

import pe_dense  # noqa: F401


@pytest.fixture(autouse=True)
def scope():
    """Every test begins under mmdet's scope, whichever the one before left."""
    init_default_scope("mmdet")
