"""Text and images: both towers of PE Core, zero-shot classification and open-vocabulary segmentation.

The names are imported when they are first used, since some of their modules need mmseg, which takes seconds. Registries
import :mod:`pe_dense.language.registered`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pe_dense.language.clip import CLIP, export_clip, load_clip, save_clip
    from pe_dense.language.contrastive import ContrastiveCLIP
    from pe_dense.language.inferencer import OpenVocabularyPredictor, WordsCheckHook
    from pe_dense.language.lit import LiT, load_lit
    from pe_dense.language.open_vocabulary import OpenVocabularySegmenter
    from pe_dense.language.preprocessing import get_image_transform, get_text_tokenizer
    from pe_dense.language.text_tower import TEXT_CONFIGS, TextConfig, TextTower

_MODULES = {
    "clip": ("CLIP", "export_clip", "load_clip", "save_clip"),
    "contrastive": ("ContrastiveCLIP",),
    "inferencer": ("OpenVocabularyPredictor", "WordsCheckHook"),
    "lit": ("LiT", "load_lit"),
    "open_vocabulary": ("OpenVocabularySegmenter",),
    "preprocessing": ("get_image_transform", "get_text_tokenizer"),
    "text_tower": ("TEXT_CONFIGS", "TextConfig", "TextTower"),
}

__all__ = [
    "CLIP",
    "ContrastiveCLIP",
    "LiT",
    "OpenVocabularyPredictor",
    "OpenVocabularySegmenter",
    "TEXT_CONFIGS",
    "TextConfig",
    "TextTower",
    "WordsCheckHook",
    "export_clip",
    "get_image_transform",
    "get_text_tokenizer",
    "load_clip",
    "load_lit",
    "save_clip",
]


def __getattr__(name: str):
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
