import pytest

from pe_dense.datasets.synthetic import write_shapes

SMALL = dict(num_train=24, num_val=8, image_size=64)


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory):
    """Return the root of a small data set, which tests must not change, and its arguments."""
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", **SMALL), SMALL
