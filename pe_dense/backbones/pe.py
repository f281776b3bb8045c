"""The Perception Encoder's vision tower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pe_dense.backbones.checkpoint import load_weights
from pe_dense.backbones.pe_configs import Variant, get_variant
from pe_dense.backbones.pos_embed import POSITION_MODES, resize_positions
from pe_dense.backbones.transformer import DROP_PATH_SCHEDULES, LAYER_NORM_EPS, AttentionPooling, Transformer
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class PETower(BaseModule):
    """A Perception Encoder tower that gives feature maps from any of its blocks.

    With no window and no resampling it is the published tower, with its parameter names. With windows it is the tower
    of the published detectors. Images are RGB, normalised by ``(x / 255 - 0.5) / 0.5``; in shapes B is the batch,
    H and W an image's sides, p the patch size, C the width, N the number of tokens.

    Args:
        arch: a name of :data:`~pe_dense.backbones.VARIANTS`, or a dict of :class:`~pe_dense.backbones.Variant` fields
            (``dict(base=<name>, ls_init_value=0.1)`` changes a published one).
        out_indices: taps: block numbers from 0; negatives count from the end.
        img_size: side in pixels of the image that ``rope_reference_grid`` spans; the native one by default.
        patch_size: side of a patch in pixels, if not the published one; weights are resampled on load.
        grid_size: patches along a side of the grid of learned positions, if not the published one; likewise.
        window_size: side of an attention window in tokens; None for global attention everywhere.
        global_blocks: blocks that attend globally although ``window_size`` is set, numbered as ``out_indices``.
        pos_embed: how learned positions reach another grid: 'interpolate' (bilinear, the published tower),
            'bicubic' or 'tile' (the published detectors).
        rope_reference_grid: rotary positions run over this many patches whatever the grid (the detectors' ``pt``);
            None for the integer positions of the published tower.
        drop_path_rate: rate of stochastic depth; the arch's ``drop_path`` by default.
        drop_path_schedule: 'constant' (the rate in every block, as in the published tower) or 'linear' (rising from
            0 in the first block to the rate in the last, as in the published detectors). The default is 'linear' with
            ``window_size``, else 'constant'.
        with_cp: checkpoint each block's activations in training: less memory, about a third more time.
        frozen: no gradients, no training mode.
        pad_to_patch: pad images at the bottom and right to a multiple of the patch size instead of refusing them.
        with_cls_token, with_head: keep the class token, and what follows the last block (``ln_post``, pooling,
            projection), where the arch has them. By default they are kept, but dropped in a windowed tower.
        memory_efficient: save fewer activations for the backward pass, see
            :mod:`~pe_dense.backbones.memory_efficient`. Set it to False for double backward or ``torch.func``.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads a path or ``hf://`` name strictly in
            ``init_weights``; using the tower before raises.

    Raises:
        ValueError: for an unknown arch, taps out of range, or arguments that contradict each other.
    """

    def __init__(
        self,
        arch: str | dict | Variant,
        out_indices: Sequence[int] = (-1,),
        img_size: int | None = None,
        patch_size: int | None = None,
        grid_size: int | None = None,
        window_size: int | None = None,
        global_blocks: Sequence[int] = (),
        pos_embed: str = "interpolate",
        rope_reference_grid: int | None = None,
        drop_path_rate: float | None = None,
        drop_path_schedule: str | None = None,
        with_cp: bool = False,
        frozen: bool = False,
        pad_to_patch: bool = False,
        with_cls_token: bool | None = None,
        with_head: bool | None = None,
        memory_efficient: bool = True,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        variant = get_variant(arch)
        self.name = arch if isinstance(arch, str) else f"a tower of {variant}"
        if pos_embed not in POSITION_MODES:
            raise InputError(f"pos_embed {pos_embed!r} is not one of {', '.join(POSITION_MODES)}")
        if global_blocks and window_size is None:
            raise InputError(f"global_blocks {tuple(global_blocks)} have no meaning without window_size")
        windowed = window_size is not None
        drop_path_schedule = drop_path_schedule or ("linear" if windowed else "constant")
        if drop_path_schedule not in DROP_PATH_SCHEDULES:
            raise ValueError(
                f"drop_path_schedule {drop_path_schedule!r} is not one of {', '.join(DROP_PATH_SCHEDULES)}"
            )
        keep_cls = not windowed if with_cls_token is None else with_cls_token
        if windowed and keep_cls and variant.use_cls_token:
            raise InputError(
                "A class token has no place in a window: with_cls_token and window_size exclude each other"
            )
        patch_size = patch_size or variant.patch_size
        self.variant = variant = replace(
            variant,
            patch_size=patch_size,
            image_size=(grid_size or variant.grid_size) * patch_size,
            use_cls_token=variant.use_cls_token and keep_cls,
            drop_path=variant.drop_path if drop_path_rate is None else drop_path_rate,
            # Pooling by a class token that was dropped can't be asked for; `has_head` is then False.
            pool_type="none" if variant.pool_type == "tok" and not keep_cls else variant.pool_type,
        )
        self.has_head = not windowed if with_head is None else with_head
        self.out_indices = block_numbers("out_indices", out_indices, variant.layers)
        self.pos_embed = pos_embed
        self.frozen = frozen
        self.pad_to_patch = pad_to_patch

        width, entries = variant.width, int(variant.use_cls_token)
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        if variant.use_cls_token:
            self.class_embedding = nn.Parameter(torch.empty(width))
        if variant.use_abs_posemb:
            self.positional_embedding = nn.Parameter(torch.empty(entries + variant.grid_size**2, width))
        self.ln_pre = nn.LayerNorm(width, eps=LAYER_NORM_EPS) if variant.use_ln_pre else nn.Identity()
        self.transformer = Transformer(
            variant,
            window_size=window_size,
            global_blocks=block_numbers("global_blocks", global_blocks, variant.layers),
            rope_reference_grid=rope_reference_grid,
            rope_native_grid=(img_size or variant.image_size) // patch_size,
            with_cp=with_cp,
            drop_path_schedule=drop_path_schedule,
            memory_efficient=memory_efficient,
        )
        self.ln_post = (
            nn.LayerNorm(width, eps=LAYER_NORM_EPS) if variant.use_ln_post and self.has_head else nn.Identity()
        )
        if self.has_head and variant.pool_type == "attn":
            self.attn_pool = AttentionPooling(width, variant.attn_pooler_heads)
        self.proj = (
            nn.Parameter(torch.empty(width, variant.output_dim)) if self.has_head and variant.output_dim else None
        )
        self._reset_parameters()
        self._awaits_weights = init_cfg is not None
        self.register_load_state_dict_post_hook(_weights_arrived)
        if frozen:
            self.requires_grad_(False)
        self.train()

    def _reset_parameters(self) -> None:
        """Random weights for training from nothing: CLIP's (arXiv 2103.00020), which scale with width and depth."""
        width, layers = self.variant.width, self.variant.layers
        residual = width**-0.5 * (2 * layers) ** -0.5
        for block in self.transformer.resblocks:
            for weight, std in (
                (block.attn.in_proj_weight, width**-0.5),
                (block.attn.out_proj.weight, residual),
                (block.mlp.c_fc.weight, (2 * width) ** -0.5),
                (block.mlp.c_proj.weight, residual),
            ):
                nn.init.normal_(weight, std=std)
            for bias in (block.attn.in_proj_bias, block.attn.out_proj.bias, block.mlp.c_fc.bias, block.mlp.c_proj.bias):
                nn.init.zeros_(bias)
        parameters = [getattr(self, name, None) for name in ("class_embedding", "positional_embedding", "proj")]
        if hasattr(self, "attn_pool"):
            parameters.append(self.attn_pool.probe)
        for parameter in parameters:
            if parameter is not None:
                nn.init.normal_(parameter, std=width**-0.5)

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, if there is one (MMEngine calls this before training)."""
        if self._is_init:
            return
        if self.init_cfg is not None:
            if set(self.init_cfg) != {"type", "checkpoint"} or self.init_cfg["type"] != "Pretrained":
                raise InputError(f"init_cfg of a tower is dict(type='Pretrained', checkpoint=...), got {self.init_cfg}")
            load_weights(self, self.init_cfg["checkpoint"])
        self._is_init = True

    def train(self, mode: bool = True) -> PETower:
        """As of any module, but a frozen tower stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    @property
    def out_channels(self) -> int:
        """Channels of every map, C."""
        return self.variant.width

    @property
    def num_layers(self) -> int:
        return self.variant.layers

    def layer_index(self, parameter_name: str) -> int:
        """Depth of a parameter for layer-wise learning rates (recipe of the published detectors).

        Args:
            parameter_name: a name of ``named_parameters()``.

        Returns:
            0 for patch embedding, class token, positions and ``ln_pre``; i + 1 for block i; ``num_layers`` + 1 for
            what follows.

        Raises:
            KeyError: if the tower has no such parameter.
        """
        try:
            self.get_parameter(parameter_name)
        except AttributeError as error:
            raise KeyError(f"{self.name} has no parameter {parameter_name!r}") from error
        part, _, rest = parameter_name.partition(".")
        if part == "transformer":
            return int(rest.split(".")[1]) + 1
        return 0 if part in ("conv1", "class_embedding", "positional_embedding", "ln_pre") else self.num_layers + 1

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the taps.

        Args:
            images: (B, 3, H, W).

        Returns:
            one (B, C, H / p, W / p) per entry of ``out_indices``, in their order.
        """
        height, width = self.grid_of(images)
        maps = {}
        for index, tokens in self.iter_taps(images, self.out_indices):
            patches = tokens[:, int(self.variant.use_cls_token) :]
            maps[index] = patches.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H / p, W / p)
        return tuple(maps[index] for index in self.out_indices)

    def forward_features(
        self,
        images: Tensor,
        norm: bool = False,
        layer_idx: int = -1,
        strip_cls_token: bool = False,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Tokens after one block, as in the reference.

        Args:
            images: (B, 3, H, W).
            norm: apply ``ln_post``, where the tower has it.
            layer_idx: block number from 0; negatives count from the end.
            strip_cls_token: leave out the class token, where there is one.
            mask, mask_token: as of :meth:`iter_taps`.

        Returns:
            (B, N, C).
        """
        (layer,) = block_numbers("layer_idx", [layer_idx], self.num_layers)
        ((_, tokens),) = self.iter_taps(images, [layer], mask, mask_token)
        if norm:
            tokens = self.ln_post(tokens)
        return tokens[:, 1:] if strip_cls_token and self.variant.use_cls_token else tokens

    def embed(self, images: Tensor) -> Tensor:
        """The pooled embedding of a Core tower (not normalised).

        Args:
            images: (B, 3, H, W).

        Returns:
            (B, output_dim), or (B, C) without a projection.

        Raises:
            RuntimeError: if the tower has no pooling.
        """
        if not self.has_head or self.variant.pool_type == "none":
            raise RuntimeError(
                f"{self.name} has no pooled embedding here: use a Core tower, without windows and with its head"
            )
        tokens = self.forward_features(images, norm=True)
        if self.variant.pool_type == "attn":
            pooled = self.attn_pool(tokens)
        else:
            pooled = tokens[:, 0] if self.variant.pool_type == "tok" else tokens.mean(dim=1)
        return pooled if self.proj is None else pooled @ self.proj

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of a batch (B, 3, H, W).

        Raises:
            ValueError: if the sides are not multiples of the patch size and ``pad_to_patch`` is not set.
        """
        p = self.variant.patch_size
        height, width = images.shape[-2:]
        if not self.pad_to_patch and (height % p or width % p):
            down = f"{max(height // p, 1) * p} x {max(width // p, 1) * p}"
            raise InputError(
                f"Images of {height} x {width} px are not a multiple of the patch size {p}: resize them, for example "
                f"to {down}, or build the tower with pad_to_patch=True"
            )
        return -(-height // p), -(-width // p)

    def iter_taps(
        self, images: Tensor, indices: Sequence[int], mask: Tensor | None = None, mask_token: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Give each tap as soon as it is there; blocks after the last tap do not run.

        Args:
            images: (B, 3, H, W).
            indices: block numbers from 0.
            mask: (B, H / p, W / p), bool: patches that the tower shall not see.
            mask_token: (C,), what stands for their embedding; they keep their positions.

        Yields:
            (block number, tokens (B, N, C)) in rising order of the blocks.

        Raises:
            RuntimeError: if the weights that ``init_cfg`` names have not been loaded.
        """
        if self._awaits_weights:
            raise RuntimeError(
                f"{self.name} was told to load {self.init_cfg['checkpoint']} but has not: call init_weights() first"
            )
        grid = self.grid_of(images)
        return self.transformer.iter_taps(self._embed_patches(images, grid, mask, mask_token), grid, indices)

    def _embed_patches(
        self, images: Tensor, grid: tuple[int, int], mask: Tensor | None, mask_token: Tensor | None
    ) -> Tensor:
        """(B, 3, H, W) -> (B, N, C), with positions."""
        p = self.variant.patch_size
        height, width = images.shape[-2:]
        if (height, width) != (grid[0] * p, grid[1] * p):
            images = F.pad(images, (0, grid[1] * p - width, 0, grid[0] * p - height))
        dtype = self.conv1.weight.dtype
        # Under autocast the convolution returns half precision; positions are added before rounding to it, in the
        # precision of the parameters, as in the published tower.
        x = self.conv1(images.to(dtype)).to(dtype).flatten(2).transpose(1, 2)  # (B, N, C)
        if mask is not None:
            x = torch.where(mask.flatten(1)[..., None], mask_token.to(x.dtype), x)
        if self.variant.use_cls_token:
            x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        if self.variant.use_abs_posemb:
            entries = int(self.variant.use_cls_token)
            cls_entry, positions = self.positional_embedding[:entries], self.positional_embedding[entries:]
            x = x + torch.cat([cls_entry, resize_positions(positions, grid, self.pos_embed)]).to(x.dtype)
        return self.ln_pre(x)


def block_numbers(argument: str, indices: Sequence[int], layers: int) -> tuple[int, ...]:
    """Resolve block numbers: from 0, negatives from the end.

    Raises:
        ValueError: for a number out of range; the message prints the legal one.
    """
    if not len(indices) and argument == "out_indices":
        raise InputError("out_indices is empty: name at least one block")
    for index in indices:
        if not -layers <= index < layers:
            raise InputError(
                f"{argument}: block {index} is out of range for {layers} blocks, legal are {-layers}..{layers - 1}"
            )
    return tuple(index % layers for index in indices)


def _weights_arrived(tower: PETower, _incompatible) -> None:
    tower._awaits_weights = False
