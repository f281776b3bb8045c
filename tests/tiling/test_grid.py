"""Overlapping tiles."""

import numpy as np
import pytest

from pe_dense.tiling import Tiling


@pytest.mark.parametrize(("height", "width"), [(9000, 12000), (1024, 1025), (300, 5000), (1843, 1844)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.7])
def test_tiles_cover_the_image_with_the_overlap(height, width, overlap):
    grid = Tiling(1024, overlap).grid(height, width)
    for length, spans in ((height, grid.rows), (width, grid.columns)):
        assert spans[0].start == 0 and spans[-1].stop == length
        assert {span.stop - span.start for span in spans} == {min(1024, length)}
        shared = [one.stop - other.start for one, other in zip(spans, spans[1:], strict=False)]
        assert min(shared, default=1024) >= int(1024 * overlap) - 1
        assert np.ptp(shared) <= 1 if shared else True
    assert len(list(grid)) == len(grid)


def test_no_more_tiles_than_needed():
    assert len(Tiling(1024, 0.2).grid(9000, 12000)) == 11 * 15
    assert len(Tiling(1000, 0.0).grid(9000, 12000)) == 9 * 12
