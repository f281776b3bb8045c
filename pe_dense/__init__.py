"""Dense prediction on Meta's Perception Encoder."""

from pe_dense.ops import install_replacements

__version__ = "0.1.0"

# `import mmdet.models` needs mmcv's operators, so the stand-ins must be known before anything else is imported.
install_replacements()

_LAZY = {"load": "pe_dense.apis.model"}  # imported on first use, because they need PyTorch


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
