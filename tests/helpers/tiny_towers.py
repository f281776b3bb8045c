"""Tiny towers and images for them."""

import io

import numpy as np
import torch
from PIL import Image

from pe_dense.backbones import PETower

ARCH = dict(
    patch_size=4, width=32, layers=3, heads=2, mlp_ratio=2.0, image_size=16, use_ln_post=False, pool_type="none"
)


def tiny_tower(**options):
    """Build a tower of three blocks with random weights and biases of a fixed seed."""
    torch.manual_seed(0)
    tower = PETower(**{"arch": ARCH} | options).eval()
    with torch.no_grad():
        for block in tower.transformer.resblocks:
            block.attn.in_proj_bias.normal_(std=0.2)
    return tower


def photo_file(size=(64, 48), seed=0, kind="PNG", **options):
    """Return the content of an image file with smooth random colors."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(content, kind, **options)
    return content.getvalue()
