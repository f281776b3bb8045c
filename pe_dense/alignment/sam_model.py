"""SAM 2.1 from the package `sam2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from pe_dense.io import read_checkpoint, require_match

SIZES = ("t", "s", "b+", "l")


def build_sam(
    size: str, checkpoint: str | Path | None, *, image_size: int = 1024, overrides: Sequence[str] = (), seed: int = 0
) -> nn.Module:
    """Build SAM 2.1 by the package's own config.

    Args:
        size: 't', 's', 'b+' or 'l'.
        checkpoint: path or ``hf://`` name of the weights (``hf://facebook/sam2.1-hiera-large`` finds its file);
            None for random ones.
        image_size: side in pixels of the images that it sees, a multiple of 32.
        overrides: of the package's config, in Hydra's syntax (``model.image_encoder.trunk.embed_dim=16``).
        seed: of random weights.

    Returns:
        the package's ``SAM2Base``, in evaluation mode, without gradients.

    Raises:
        ValueError: for an unknown size, an image size that does not fit, or if the package is not installed.
        CheckpointError, FileNotFoundError: for weights that are missing or do not fit.
    """
    if size not in SIZES:
        raise ValueError(f"SAM 2.1 of size {size!r} does not exist; sizes are {', '.join(SIZES)}")
    if image_size % 32 or image_size <= 0:
        raise ValueError(f"SAM's image size of {image_size} px is not a multiple of 32")
    try:
        from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES, build_sam2
    except ImportError as error:
        raise ValueError(
            "SAM 2.1 comes from the package sam2, which is not installed: "
            "SAM2_BUILD_CUDA=0 pip install 'pe_dense[distill]'"
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_sam2(
            f"configs/sam2.1/sam2.1_hiera_{size}.yaml",
            device="cpu",
            hydra_overrides_extra=[f"++model.image_size={image_size}", *overrides],
            apply_postprocessing=False,
        )
    if checkpoint is not None:
        name = _file_of(str(checkpoint), HF_MODEL_ID_TO_FILENAMES)
        content = read_checkpoint(name)
        state = content["model"] if isinstance(content.get("model"), dict) else content
        require_match(model.state_dict(), state, name, f"SAM 2.1 of size {size}")
        model.load_state_dict(state)
    return model.requires_grad_(False).eval()


def _file_of(checkpoint: str, known: dict[str, tuple[str, str]]) -> str:
    """Add a hub repository's file, where only the repository is named."""
    match = re.fullmatch(r"hf://([^/@]+/[^/@]+)(@[^/]+)?", checkpoint)
    return f"{checkpoint}/{known[match[1]][1]}" if match and match[1] in known else checkpoint
