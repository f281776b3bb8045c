"""Interactive feature explorer: a local web page; see `tools/explore.py`."""

from pe_dense.apps.explorer.explorer import Explorer
from pe_dense.apps.explorer.server import ExplorerServer

__all__ = ["Explorer", "ExplorerServer"]
