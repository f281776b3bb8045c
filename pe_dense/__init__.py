"""Dense prediction on Meta's Perception Encoder."""

from pe_dense.ops import install_replacements

__version__ = "0.1.0"

# `import mmdet.models` needs mmcv's operators, so the stand-ins must be known before anything else is imported.
install_replacements()
