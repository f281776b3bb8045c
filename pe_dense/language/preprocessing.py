"""Preprocess PE Core's inputs: tokenize texts, transform images, sample video frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from pe_dense.utils.errors import InputError
from pe_dense.utils.image import as_rgb

START_OF_TEXT, END_OF_TEXT = 49406, 49407
VIDEO_FRAMES = 8
_SHOWN = 60  # characters of a text in a warning


class TextTokenizer:
    """Convert texts to token ids.

    Texts are cleaned (``ftfy``, HTML entities, white space), converted to lower case and padded with 0. Ids are those
    of the published tokenizer.

    Args:
        context_length: number of tokens of a text, including the start and end tokens.
    """

    def __init__(self, context_length: int):
        if not isinstance(context_length, int) or context_length < 2:
            raise InputError(f"context_length is an integer of at least 2, got {context_length!r}")
        self.context_length = context_length

    def __call__(
        self, texts: str | Sequence[str], context_length: int | None = None, names: Sequence[str] | None = None
    ) -> torch.Tensor:
        """Tokenize texts. A text that is too long is truncated, keeping the end-of-text token, with one warning.

        Args:
            texts: one text or several.
            context_length: number of tokens; that of the tokenizer by default.
            names: what the warning calls each text, such as the word that a prompt is made of; by default the text.

        Returns:
            (N, context_length), int64.

        Raises:
            ValueError: if there is no text, or an item is not a str.
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
            named = zip(texts if names is None else names, longer.tolist(), strict=True)
            cut = list(dict.fromkeys(name for name, is_longer in named if is_longer))
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
    """Create the tokenizer of a text tower.

    Args:
        context_length: ``model.context_length``: 32, or 72 for PE-Core-G14-448.

    Raises:
        ValueError: if it is not an integer of at least 2.
    """
    return TextTokenizer(context_length)


def get_image_transform(
    image_size: int, center_crop: bool = False, interpolation: InterpolationMode = InterpolationMode.BILINEAR
) -> transforms.Compose:
    """Create the transform from a PIL image to a normalized tensor (3, S, S).

    The image is resized to a square without keeping its aspect ratio ("squash"), with antialiasing, and normalized by
    ``(x / 255 - 0.5) / 0.5``. Unlike the published transform it is converted to RGB before it is resized, so that
    palettes and transparency are resolved first; results for RGB images are the same.

    Args:
        image_size: side S in pixels, ``model.image_size``.
        center_crop: keep the aspect ratio, resize the short side and crop the center instead.
        interpolation: interpolation mode of the resizing.

    Raises:
        ValueError: if the size is not a positive integer.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size <= 0:
        raise InputError(f"image_size must be a positive integer, got {image_size!r}")
    if center_crop:
        resize = [transforms.Resize(image_size, interpolation), transforms.CenterCrop(image_size)]
    else:
        resize = [transforms.Resize((image_size, image_size), interpolation)]
    return transforms.Compose(
        [as_rgb, *resize, transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    )


def video_frame_indices(num_frames: int, count: int = VIDEO_FRAMES) -> list[int]:
    """Return evenly spaced frame indices of a video, including the first and the last frame.

    Args:
        num_frames: number of frames of the video.
        count: number of frames to sample; the middle one if it is 1. Frames repeat if the video has fewer.

    Raises:
        ValueError: if a number is not positive.
    """
    if num_frames < 1 or count < 1:
        raise InputError(f"cannot sample {count} frames of a video of {num_frames} frames")
    if count == 1:
        return [num_frames // 2]
    return [int(i * (num_frames - 1) / (count - 1)) for i in range(count)]
