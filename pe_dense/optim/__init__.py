"""Optimisation of models around a tower."""

from pe_dense.optim.layer_decay import LayerDecayConstructor

__all__ = ["LayerDecayConstructor"]
