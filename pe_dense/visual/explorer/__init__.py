"""A local page to explore features by hand; see `tools/explore.py`."""

from pe_dense.visual.explorer.explorer import Explorer
from pe_dense.visual.explorer.server import make_server

__all__ = ["Explorer", "make_server"]
