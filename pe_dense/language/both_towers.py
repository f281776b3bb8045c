"""Open both towers of a PE Core model by the names of the command line."""

from __future__ import annotations

import torch

from pe_dense.backbones.build import RANDOM
from pe_dense.language.clip import CLIP, load_clip
from pe_dense.language.text_tower import check_has_text_tower
from pe_dense.utils.errors import ConfigError


def open_both_towers(arch: str | None, weights: str | None, *, device: str | torch.device) -> CLIP:
    """Load both towers of a PE Core model; arguments as of :func:`~pe_dense.backbones.build.open_tower`.

    Raises:
        ValueError, CheckpointError, FileNotFoundError: if there is no text tower, and as
            :func:`~pe_dense.language.load_clip`.
    """
    if arch is not None:
        check_has_text_tower(arch)
    if weights == RANDOM and arch is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return CLIP(arch).to(device).eval()
    if weights is None and arch is None:
        raise ConfigError(
            "no model given: set --arch, such as PE-Core-B16-224, or --weights to a file with both towers"
        )
    return load_clip(weights or arch, arch, device=device)
