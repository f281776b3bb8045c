"""Every published tower, at reduced depth, equals timm's with the same weights."""

import pytest
import timm
import torch
from timm.models.eva import checkpoint_filter_fn

from pe_dense.backbones import PE_CONFIGS, PETower, get_pe_config

SIZES = {"T16": "tiny", "S16": "small", "B16": "base", "L14": "large", "G14": "gigantic"}


def timm_name(arch):
    _, kind, size, image_size = arch.removesuffix("-Tiling").split("-")  # tiling changes the data, not the tower
    return f"vit_pe_{kind.lower()}_{SIZES[size]}_patch{size[1:]}_{image_size}"


@pytest.mark.parametrize("arch", [name for name in PE_CONFIGS if "SAM3" not in name and "Mini" not in name])
@torch.no_grad()
def test_equals_timm(arch):
    generator = torch.Generator().manual_seed(0)
    depth = 2
    tower = PETower(dict(base=arch, layers=depth)).eval()
    for parameter in tower.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    other = timm.create_model(timm_name(arch), depth=depth).eval()
    other.load_state_dict(checkpoint_filter_fn(tower.state_dict(), other))

    side = get_pe_config(arch).image_size
    image = torch.randn(1, 3, side, side, generator=generator)
    torch.testing.assert_close(
        tower.forward_features(image, norm=True), other.forward_features(image), atol=1e-5, rtol=0
    )
    if "Core" in arch:
        torch.testing.assert_close(tower.embed(image), other(image), atol=1e-5, rtol=0)
