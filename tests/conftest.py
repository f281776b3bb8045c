"""mmcv's stand-in operators must be known before any test module imports mmdet."""

import pe_dense  # noqa: F401
