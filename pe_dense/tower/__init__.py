"""Perception Encoder towers."""

from pe_dense.tower.checkpoint import load_tower, load_weights, save_state, save_weights
from pe_dense.tower.tower import PETower
from pe_dense.tower.variants import VARIANTS, Variant, get_variant

__all__ = [
    "VARIANTS",
    "PETower",
    "Variant",
    "get_variant",
    "load_tower",
    "load_weights",
    "save_state",
    "save_weights",
]
