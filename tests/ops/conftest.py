"""Install the replacement of ``mmcv._ext`` before a test module imports ``mmcv.ops``."""

import pe_dense  # noqa: F401
