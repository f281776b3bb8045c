"""Text and images: both towers of PE Core, zero-shot classification and open-vocabulary segmentation."""

from pe_dense.language.clip import CLIP, load_clip, save_clip
from pe_dense.language.contrastive import ContrastiveCLIP
from pe_dense.language.inferencer import OpenVocabularyPredictor, WordsCheckHook
from pe_dense.language.lit import LiT, load_lit
from pe_dense.language.open_vocabulary import OpenVocabularySegmenter
from pe_dense.language.preprocessing import get_image_transform, get_text_tokenizer
from pe_dense.language.text_tower import TEXT_CONFIGS, TextConfig, TextTower

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
    "get_image_transform",
    "get_text_tokenizer",
    "load_clip",
    "load_lit",
    "save_clip",
]
