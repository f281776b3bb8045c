"""Architecture configurations of the published PE towers.

Sources: Perception Encoder (arXiv 2504.13181) and its README; SAM 3 (its code, ``sam3/model_builder.py``). Field names
are those of the reference implementation, so its configurations can be passed as a dict.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from pe_dense.utils.errors import InputError

POOL_TYPES = ("attn", "tok", "avg", "none")


@dataclass(frozen=True, kw_only=True)
class PEConfig:
    """Architecture of a PE tower.

    Args:
        patch_size: side of a patch in pixels.
        width: channels of a token.
        layers: number of blocks.
        heads: attention heads of a block.
        mlp_ratio: hidden width of a block's MLP divided by ``width``.
        image_size: side in pixels of the square native input image.
        output_dim: channels of the projected embedding, None without a projection.
        ls_init_value: initial value of LayerScale, None without LayerScale.
        drop_path: stochastic depth rate.
        use_cls_token, use_abs_posemb, use_rope2d, use_ln_pre, use_ln_post: enable these parts of the architecture.
        pool_type: pooling of tokens in ``forward_pooled``: 'attn', 'tok' (class token), 'avg' or 'none'.
        attn_pooler_heads: heads of the attention pooling.
        input_size: side in pixels of the native input image if it is not ``image_size``, to which the learned positions
            are then tiled or resized.
        window_size, global_blocks, pos_embed, rope_reference_grid: defaults of these arguments of
            :class:`~pe_dense.backbones.PETower`.

    Raises:
        ValueError: for inconsistent sizes.
    """

    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_ratio: float
    image_size: int = 224
    output_dim: int | None = None
    ls_init_value: float | None = None
    drop_path: float = 0.0
    use_cls_token: bool = False
    use_abs_posemb: bool = True
    use_rope2d: bool = True
    use_ln_pre: bool = True
    use_ln_post: bool = True
    pool_type: str = "attn"
    attn_pooler_heads: int = 8
    input_size: int | None = None
    window_size: int | None = None
    global_blocks: tuple[int, ...] = ()
    pos_embed: str = "interpolate"
    rope_reference_grid: int | None = None

    def __post_init__(self):
        if self.width % self.heads:
            raise InputError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.use_rope2d and self.head_dim % 4:
            raise InputError(
                f"2-D rotary positions need a head dimension that is a multiple of 4, "
                f"got width {self.width} / heads {self.heads} = {self.head_dim}"
            )
        if self.image_size % self.patch_size:
            raise InputError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.pool_type not in POOL_TYPES:
            raise InputError(f"pool_type {self.pool_type!r} is not one of {', '.join(POOL_TYPES)}")
        if self.pool_type == "tok" and not self.use_cls_token:
            raise InputError("pool_type 'tok' needs use_cls_token=True")
        if self.pool_type == "attn" and self.width % self.attn_pooler_heads:
            raise InputError(f"width {self.width} is not a multiple of attn_pooler_heads {self.attn_pooler_heads}")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Number of hidden channels of the MLP of a block."""
        return int(self.width * self.mlp_ratio)

    @property
    def grid_size(self) -> int:
        """Number of patches along a side of the native grid, on which learned position embeddings are defined."""
        return self.image_size // self.patch_size


_SIZES = {
    "T16": dict(patch_size=16, width=192, layers=12, heads=3, mlp_ratio=4.0, use_cls_token=True),
    "S16": dict(patch_size=16, width=384, layers=12, heads=6, mlp_ratio=4.0, use_cls_token=True),
    "B16": dict(patch_size=16, width=768, layers=12, heads=12, mlp_ratio=4.0, use_cls_token=True),
    "L14": dict(patch_size=14, width=1024, layers=24, heads=16, mlp_ratio=4.0, use_cls_token=True),
    "Mini": dict(patch_size=8, width=128, layers=6, heads=4, mlp_ratio=4.0, use_cls_token=True),
    "G14": dict(patch_size=14, width=1536, layers=50, heads=16, mlp_ratio=8960 / 1536, use_cls_token=False),
}


def _core(size: str, image_size: int, output_dim: int, **changes) -> PEConfig:
    return PEConfig(**{**_SIZES[size], **changes}, image_size=image_size, output_dim=output_dim)


def _headless(size: str, image_size: int, **changes) -> PEConfig:
    """Build the config of a Lang or Spatial tower, which has no layers after its last block."""
    return PEConfig(**{**_SIZES[size], **changes}, image_size=image_size, use_ln_post=False, pool_type="none")


PE_CONFIGS: dict[str, PEConfig] = {
    "PE-Core-T16-384": _core("T16", 384, 512),
    "PE-Core-S16-384": _core("S16", 384, 512),
    "PE-Core-B16-224": _core("B16", 224, 1024),
    "PE-Core-L14-336": _core("L14", 336, 1024),
    "PE-Core-G14-448": _core("G14", 448, 1280),
    "PE-Lang-L14-448": _headless("L14", 448, layers=23, ls_init_value=0.1),
    "PE-Lang-L14-448-Tiling": _headless("L14", 448, layers=23, ls_init_value=0.1),
    "PE-Lang-G14-448": _headless("G14", 448, layers=47, ls_init_value=0.1),
    "PE-Lang-G14-448-Tiling": _headless("G14", 448, layers=47, ls_init_value=0.1),
    "PE-Spatial-T16-512": _headless("T16", 512),
    "PE-Spatial-S16-512": _headless("S16", 512),
    "PE-Spatial-B16-512": _headless("B16", 512),
    "PE-Spatial-L14-448": _headless("L14", 448),
    "PE-Spatial-G14-448": _headless("G14", 448, ls_init_value=0.1),
    # The vision tower of SAM 3, which its paper names PE-L+: 24 x 24 learned positions, tiled over 72 x 72 patches.
    "PE-SAM3-L14-1008": _headless(
        "L14",
        336,
        layers=32,
        mlp_ratio=4.625,
        use_cls_token=False,
        drop_path=0.1,
        input_size=1008,
        window_size=24,
        global_blocks=(7, 15, 23, 31),
        pos_embed="tile",
        rope_reference_grid=24,
    ),
    # Trained on generated scenes; the weights come with the package (docs/miniature.md).
    "PE-Mini-Core": _core("Mini", 128, 128, attn_pooler_heads=4),
    "PE-Mini-Spatial": _headless("Mini", 128),
}


def get_pe_config(arch: str | dict | PEConfig) -> PEConfig:
    """Look up the config of a published tower by name, or build one from fields.

    Args:
        arch: a name of :data:`PE_CONFIGS`, a dict of :class:`PEConfig` fields (with ``base=<name>`` they override
            those of that published tower), or a :class:`PEConfig`.

    Raises:
        ValueError: for an unknown name, or unknown or missing fields; the message lists the known ones.
    """
    if isinstance(arch, PEConfig):
        return arch
    if isinstance(arch, str):
        if arch not in PE_CONFIGS:
            close = get_close_matches(arch, PE_CONFIGS, n=1, cutoff=0.6)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(f"Unknown tower {arch!r}.{hint} Known towers: {', '.join(PE_CONFIGS)}")
        return PE_CONFIGS[arch]

    given = dict(arch)
    base = given.pop("base", None)
    known = [field.name for field in fields(PEConfig)]
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"Unknown tower fields {', '.join(unknown)}. Known fields: {', '.join(known)}")
    if base is not None:
        return replace(get_pe_config(base), **given)
    required = ("patch_size", "width", "layers", "heads", "mlp_ratio")
    if missing := [name for name in required if name not in given]:
        raise InputError(f"A tower given by fields lacks {', '.join(missing)}; got {', '.join(sorted(given))}")
    return PEConfig(**given)


def spatial_name(core: str) -> str | None:
    """Return the name of the Spatial tower that was aligned from a Core tower; None for other names."""
    family, _, size = core.partition("-Core")
    prefix = f"{family}-Spatial{size.rpartition('-')[0]}"
    return next((name for name in PE_CONFIGS if core in PE_CONFIGS and size != core and name.startswith(prefix)), None)


def detector_rates(layers: int) -> tuple[float, float]:
    """Return the stochastic depth rate and the layer decay of detectors for a tower's depth.

    Source: the published detector for G, the paper's L-size recipe (Tab. 24) for L, ViTDet-B's for smaller towers.
    """
    return (0.5, 0.9) if layers >= 40 else (0.4, 0.8) if layers >= 20 else (0.1, 0.7)


def detector_windows(layers: int) -> dict:
    """Return the options of a tower with the published detectors' window attention, for images of 1024 px.

    Blocks with global attention are the last ones of four equal parts, such as 12, 24, 36 and 49 of 50.
    """
    return dict(
        img_size=1024,
        grid_size=32,
        window_size=32,
        global_blocks=last_blocks(layers, 4),
        pos_embed="tile",
        rope_reference_grid=32,
        drop_path_schedule="linear",
    )


def last_blocks(layers: int, parts: int) -> tuple[int, ...]:
    """Return the last blocks of equal parts of a tower, numbered from 0."""
    return tuple(round((part + 1) * layers / parts - 1) for part in range(parts))
