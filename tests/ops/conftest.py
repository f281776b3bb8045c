"""The stand-in must be known before a test module imports ``mmcv.ops``."""

import pe_dense  # noqa: F401
