"""Tiny Spatial alignment: a Core tower of four blocks, and a SAM 2.1 that runs in 0.3 s."""

import pytest
import torch

import pe_dense  # noqa: F401
from pe_dense.backbones import PETower
from pe_dense.registry import MODELS

CORE = dict(
    patch_size=16,
    width=32,
    layers=4,
    heads=2,
    mlp_ratio=2.0,
    image_size=64,
    use_cls_token=True,
    use_ln_post=True,
    pool_type="attn",
    attn_pooler_heads=2,
    output_dim=8,
)
STUDENT = dict(CORE, ls_init_value=0.1, use_ln_post=False, pool_type="none", output_dim=None)
TINY_SAM = [
    "model.image_encoder.trunk.embed_dim=16",
    "model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    "model.image_encoder.neck.d_model=64",
    "model.image_encoder.neck.position_encoding.num_pos_feats=64",
]


def write_core(folder, **fields):
    """Write a file of a Core tower with all keys of published files."""
    torch.manual_seed(0)
    tower = PETower(dict(CORE, **fields))
    for block in tower.transformer.resblocks:
        block.attn.in_proj_weight.data *= 2  # as drawn, attention is so even that tokens hardly differ
    torch.save(tower.state_dict(), folder / "core.pt")
    return str(folder / "core.pt")


def aligner_config(checkpoint, **changes):
    """Return the config of the aligner, by default without SAM."""
    config = dict(
        type="pe_dense.SpatialAligner",
        image_size=64,
        backbone=dict(type="pe_dense.PETower", arch=dict(STUDENT), with_head=False, drop_path_rate=0.4),
        init_cfg=dict(type="Pretrained", checkpoint=checkpoint),
        core=dict(tower=dict(type="pe_dense.PETower", arch=dict(CORE), with_head=False), layer=2),
        sam=dict(
            type="pe_dense.SAMTeacher",
            size="t",
            checkpoint=None,
            image_size=128,
            points_per_side=4,
            overrides=TINY_SAM,
        ),
        locality_weight=0.0,
    )
    return {**config, **changes}


def make_aligner(checkpoint, **changes):
    """Build an initialized aligner."""
    if changes.get("locality_weight"):
        pytest.importorskip("sam2")
    torch.manual_seed(0)
    model = MODELS.build(aligner_config(checkpoint, **changes))
    model.init_weights()
    return model


def photos(count=2, side=64, seed=1):
    """(count, 3, side, side) between 0 and 1, smooth enough that neighbors are alike."""
    noise = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(side, side), mode="bilinear", antialias=False)
