"""Vision backbones: Perception Encoder towers and timm models, their configurations and weights."""

from pe_dense.backbones.base import Backbone
from pe_dense.backbones.build import load_tower, save_weights
from pe_dense.backbones.checkpoint import load_weights, save_state
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.backbones.pe import PETower
from pe_dense.backbones.pe_configs import PE_CONFIGS, PEConfig, get_pe_config
from pe_dense.backbones.timm import TimmTower

__all__ = [
    "Backbone",
    "FrozenTower",
    "PETower",
    "TimmTower",
    "PE_CONFIGS",
    "PEConfig",
    "get_pe_config",
    "load_tower",
    "load_weights",
    "save_state",
    "save_weights",
]
