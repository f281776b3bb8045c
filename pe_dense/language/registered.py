"""Modules with classes that configs name; the registries import this one, so that the package itself stays light."""

from pe_dense.language import contrastive, inferencer, lit, open_vocabulary

__all__ = ["contrastive", "inferencer", "lit", "open_vocabulary"]
