"""CLIP's byte-pair tokenizer with the context length of PE's text towers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log

from pe_dense.utils.errors import InputError

START_OF_TEXT, END_OF_TEXT = 49406, 49407
_SHOWN = 60  # characters of a text in a warning


class TextTokenizer:
    """Convert texts to token ids.

    Texts are cleaned (``ftfy``, HTML entities, white space), converted to lower case and padded with 0. Ids are those
    of the published tokenizer.

    Args:
        context_length: tokens of a text, the start and end tokens included.
    """

    def __init__(self, context_length: int):
        if not isinstance(context_length, int) or context_length < 2:
            raise InputError(f"context_length is an integer of at least 2, got {context_length!r}")
        self.context_length = context_length

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> torch.Tensor:
        """Tokenize texts. A text that is too long is truncated, keeping the end-of-text token, with one warning.

        Args:
            texts: one or several.
            context_length: another length for this call.

        Returns:
            (N, context_length), int64.

        Raises:
            ValueError: if there is no text, or something other than text.
        """
        from mmseg.utils.tokenizer import tokenize

        texts = [texts] if isinstance(texts, str) else list(texts)
        length = context_length or self.context_length
        if not texts:
            raise InputError("no text to tokenize: give at least one")
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise InputError(f"a text is a str, got {wrong[0]!r}")
        # One more token than fits shows which texts are truncated.
        ids = tokenize(texts, context_length=length + 1)
        longer = ids[:, length] != 0
        if longer.any():
            cut = [text for text, is_longer in zip(texts, longer.tolist(), strict=True) if is_longer]
            others = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
            shown = cut[0] if len(cut[0]) <= _SHOWN else cut[0][:_SHOWN] + "..."
            print_log(
                f"text {shown!r}{others} has more than the {length} tokens of the context and was truncated",
                logger="current",
                level=logging.WARNING,
            )
        ids = ids[:, :length].clone()
        ids[longer, -1] = END_OF_TEXT
        return ids


def get_text_tokenizer(context_length: int) -> TextTokenizer:
    """Tokenizer of a text tower.

    Args:
        context_length: ``model.context_length``: 32, or 72 for PE-Core-G14-448.

    Raises:
        ValueError: if it is not an integer of at least 2.
    """
    return TextTokenizer(context_length)
