"""Perception Encoder vision tower."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pe_dense.backbones.attention import Windows
from pe_dense.backbones.base import Backbone, resolve_indices
from pe_dense.backbones.checkpoint import adapt_backbone_state, extract_backbone_state
from pe_dense.backbones.lora import add_lora
from pe_dense.backbones.pe_configs import PE_CONFIGS, PEConfig, get_pe_config
from pe_dense.backbones.pos_embed import POSITION_MODES, resize_positions
from pe_dense.backbones.transformer import DROP_PATH_SCHEDULES, LAYER_NORM_EPS, Attention, AttentionPool, Transformer
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class PETower(Backbone):
    """Perception Encoder vision tower with feature maps of any of its blocks.

    Without window attention and resampling it is the published tower, with the same parameter names. With window
    attention it is the tower of the published detectors. Images are RGB, normalized by ``(x / 255 - 0.5) / 0.5``; in
    shapes B is the batch, H and W an image's sides, p the patch size, C the width, N the number of tokens.

    Args:
        arch: a name of :data:`~pe_dense.backbones.PE_CONFIGS`, or a dict of
            :class:`~pe_dense.backbones.PEConfig` fields (``dict(base=<name>, ls_init_value=0.1)`` modifies a published
            tower).
        out_indices: blocks whose maps :meth:`forward` returns; negative ones count from the end, None for all.
        img_size: side in pixels of the image that ``rope_reference_grid`` spans; the native one by default.
        patch_size: side of a patch in pixels, if not the published one; weights are resampled on load.
        grid_size: patches along a side of the grid of learned positions, if not the published one; likewise.
        window_size: side of an attention window in tokens; None for that of the arch, which is global attention
            everywhere except for SAM 3's tower (``dict(base='PE-SAM3-L14-1008', window_size=None)`` is without).
        global_blocks: blocks with global attention even if ``window_size`` is set, numbered like ``out_indices``.
        pos_embed: how learned position embeddings are resized to another grid: 'interpolate' (bilinear, the published
            tower), 'bicubic' or 'tile' (the published detectors and SAM 3); that of the arch by default.
        rope_reference_grid: number of patches that rotary positions are rescaled to on any grid (``pt`` of the
            published detectors); None for that of the arch: integer positions, except for SAM 3's tower.
        drop_path_rate: stochastic depth rate; the ``drop_path`` of the arch by default.
        drop_path_schedule: 'constant' (the same rate in every block, as in the published tower) or 'linear' (increasing
            from 0 in the first block to the rate in the last, as in the published detectors). The default is 'linear'
            with ``window_size``, otherwise 'constant'.
        with_cp: activation checkpointing of each block: less memory, about a third more training time.
        frozen: disable gradients and training mode.
        pad_to_patch: pad images at the bottom and right to a multiple of the patch size instead of raising an error.
        with_cls_token, with_head: keep the class token, and the layers after the last block (``ln_post``, pooling,
            projection), if the arch has them. By default they are kept without and dropped with ``window_size``.
        memory_efficient: save fewer activations for the backward pass, see
            :mod:`~pe_dense.backbones.memory_efficient`. Set it to False for double backward or ``torch.func``.
        lora: ``dict(rank=...)`` trains low-rank adapters only, see :func:`~pe_dense.backbones.lora.add_lora`.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads a path or ``hf://`` name in ``init_weights``;
            keys and shapes must match exactly, and running the tower before that raises an error.

    Raises:
        ValueError: for an unknown arch, block numbers out of range, or contradictory arguments.
    """

    def __init__(
        self,
        arch: str | dict | PEConfig,
        out_indices: Sequence[int] | None = (-1,),
        img_size: int | None = None,
        patch_size: int | None = None,
        grid_size: int | None = None,
        window_size: int | None = None,
        global_blocks: Sequence[int] = (),
        pos_embed: str | None = None,
        rope_reference_grid: int | None = None,
        drop_path_rate: float | None = None,
        drop_path_schedule: str | None = None,
        with_cp: bool = False,
        frozen: bool = False,
        pad_to_patch: bool = False,
        with_cls_token: bool | None = None,
        with_head: bool | None = None,
        memory_efficient: bool = True,
        lora: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        config = get_pe_config(arch)
        self.name = arch if isinstance(arch, str) else f"a tower of {config}"
        if window_size is None:
            window_size, global_blocks = config.window_size, global_blocks or config.global_blocks
        pos_embed = pos_embed or config.pos_embed
        rope_reference_grid = rope_reference_grid or config.rope_reference_grid
        if pos_embed not in POSITION_MODES:
            raise InputError(f"pos_embed {pos_embed!r} is not one of {', '.join(POSITION_MODES)}")
        if global_blocks and window_size is None:
            raise InputError(f"global_blocks {tuple(global_blocks)} requires window_size")
        windowed = window_size is not None
        drop_path_schedule = drop_path_schedule or ("linear" if windowed else "constant")
        if drop_path_schedule not in DROP_PATH_SCHEDULES:
            raise InputError(
                f"drop_path_schedule {drop_path_schedule!r} is not one of {', '.join(DROP_PATH_SCHEDULES)}"
            )
        keep_cls = not windowed if with_cls_token is None else with_cls_token
        if windowed and keep_cls and config.use_cls_token:
            raise InputError(
                "window attention does not support a class token: set with_cls_token=False or window_size=None"
            )
        patch_size = patch_size or config.patch_size
        self.config = config = replace(
            config,
            patch_size=patch_size,
            image_size=(grid_size or config.grid_size) * patch_size,
            use_cls_token=config.use_cls_token and keep_cls,
            drop_path=config.drop_path if drop_path_rate is None else drop_path_rate,
            # Pooling by the class token is not possible without one; `has_head` is then False.
            pool_type="none" if config.pool_type == "tok" and not keep_cls else config.pool_type,
        )
        native_size = img_size or config.input_size or config.image_size
        self.has_head = not windowed if with_head is None else with_head
        self.out_indices = resolve_indices("out_indices", out_indices, config.layers)
        self.pos_embed = pos_embed
        self.frozen = frozen
        self.pad_to_patch = pad_to_patch
        self.label = self.name if self.name in PE_CONFIGS else f"{config.layers} blocks, {config.width} channels"
        self.embed_dim, self.num_layers, self.patch_size = config.width, config.layers, patch_size
        self.num_prefix_tokens = int(config.use_cls_token)
        self.image_size = native_size // patch_size * patch_size
        self.mean = self.std = (127.5, 127.5, 127.5)

        width, entries = config.width, int(config.use_cls_token)
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        if config.use_cls_token:
            self.class_embedding = nn.Parameter(torch.empty(width))
        if config.use_abs_posemb:
            self.positional_embedding = nn.Parameter(torch.empty(entries + config.grid_size**2, width))
        self.ln_pre = nn.LayerNorm(width, eps=LAYER_NORM_EPS) if config.use_ln_pre else nn.Identity()
        self.transformer = Transformer(
            config,
            window_size=window_size,
            global_blocks=resolve_indices("global_blocks", global_blocks, config.layers),
            rope_reference_grid=rope_reference_grid,
            rope_native_grid=native_size // patch_size,
            with_cp=with_cp,
            drop_path_schedule=drop_path_schedule,
            memory_efficient=memory_efficient,
        )
        self.ln_post = (
            nn.LayerNorm(width, eps=LAYER_NORM_EPS) if config.use_ln_post and self.has_head else nn.Identity()
        )
        if self.has_head and config.pool_type == "attn":
            self.attn_pool = AttentionPool(width, config.attn_pooler_heads)
        self.proj = nn.Parameter(torch.empty(width, config.output_dim)) if self.has_head and config.output_dim else None
        self._reset_parameters()
        self._awaits_weights = init_cfg is not None
        self.register_load_state_dict_post_hook(_weights_arrived)
        if frozen:
            self.requires_grad_(False)
        if lora:
            add_lora(self, lora)
        self.train()

    def _reset_parameters(self) -> None:
        """Initialize random weights as in CLIP (arXiv 2103.00020), scaled by width and depth, to train from scratch."""
        width, layers = self.config.width, self.config.layers
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
        """Load the checkpoint of ``init_cfg``, if it is set (MMEngine calls this before training)."""
        if self._is_init:
            return
        if self.init_cfg is not None:
            if set(self.init_cfg) != {"type", "checkpoint"} or self.init_cfg["type"] != "Pretrained":
                raise InputError(f"init_cfg must be dict(type='Pretrained', checkpoint=...), got {self.init_cfg}")
            self.load_pretrained(self.init_cfg["checkpoint"])
        self._is_init = True

    def train(self, mode: bool = True) -> PETower:
        """Set the training mode, except that a frozen tower stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def layer_id(self, parameter_name: str) -> int:
        """Return the layer index of a parameter for layer-wise learning-rate decay (as in the published detectors).

        Args:
            parameter_name: a name of ``named_parameters()``.

        Returns:
            0 for patch embedding, class token, position embedding and ``ln_pre``; i + 1 for block i;
            ``num_layers`` + 1 for the layers after the blocks.

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

    def fsdp_units(self) -> Iterable[nn.Module]:
        """See :meth:`Backbone.fsdp_units`."""
        return self.transformer.resblocks

    def adapt_state_dict(
        self, checkpoint: Mapping, source: str | Path, *, add_layer_scale: bool = False
    ) -> dict[str, Tensor]:
        """See :meth:`Backbone.adapt_state_dict`; for ``add_layer_scale`` see
        :func:`~pe_dense.backbones.checkpoint.adapt_backbone_state`."""
        return adapt_backbone_state(
            self, extract_backbone_state(checkpoint, source), source, add_layer_scale=add_layer_scale
        )

    def prune_intermediate_layers(self, last: int) -> None:
        """See :meth:`Backbone.prune_intermediate_layers`."""
        del self.transformer.resblocks[last + 1 :]

    def forward_features(
        self,
        images: Tensor,
        norm: bool = False,
        layer_idx: int = -1,
        strip_cls_token: bool = False,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Compute the tokens after one block, with the interface of the reference implementation.

        Args:
            images: (B, 3, H, W).
            norm: apply ``ln_post``, if the tower has it.
            layer_idx: block number from 0; negative ones count from the end.
            strip_cls_token: remove the class token, if the tower has one.
            mask, mask_token: see :meth:`iter_tokens`.

        Returns:
            (B, N, C).
        """
        (layer,) = resolve_indices("layer_idx", [layer_idx], self.num_layers)
        ((_, tokens),) = self.iter_tokens(images, [layer], norm=norm, mask=mask, mask_token=mask_token)
        return tokens[:, 1:] if strip_cls_token and self.config.use_cls_token else tokens

    def forward_pooled(self, images: Tensor) -> Tensor:
        """Compute the pooled embedding of a Core tower, without normalization.

        Args:
            images: (B, 3, H, W).

        Returns:
            (B, output_dim), or (B, C) without a projection.

        Raises:
            RuntimeError: if the tower has no pooling.
        """
        if not self.has_head or self.config.pool_type == "none":
            raise RuntimeError(
                f"{self.name} has no pooled embedding: use a Core tower without window_size and with with_head=True"
            )
        tokens = self.forward_features(images, norm=True)
        if self.config.pool_type == "attn":
            pooled = self.attn_pool(tokens)
        else:
            pooled = tokens[:, 0] if self.config.pool_type == "tok" else tokens.mean(dim=1)
        return pooled if self.proj is None else pooled @ self.proj

    embed = forward_pooled  # former name

    def iter_tokens(
        self,
        images: Tensor,
        indices: Sequence[int],
        *,
        norm: bool = False,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """See :meth:`Backbone.iter_tokens`; blocks after the last requested one do not run."""
        if self._awaits_weights:
            raise RuntimeError(f"weights of {self.init_cfg['checkpoint']} are not loaded; call init_weights()")
        grid = self.grid_of(images)
        embedded = self._embed_patches(images, grid, mask, mask_token)
        for index, tokens in self.transformer.iter_intermediates(embedded, grid, indices):
            yield index, self.ln_post(tokens) if norm else tokens

    @property
    def final_norm(self) -> nn.Module:
        """See :attr:`Backbone.final_norm`."""
        return self.ln_post

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int], attn_mask: Tensor | None = None) -> Tensor:
        """See :meth:`Backbone.run_block`; only for blocks with global attention."""
        if self.transformer.window_size and index not in self.transformer.global_blocks:
            raise InputError(
                f"block {index} has window attention, which has no place for extra tokens: set window_size=None or add "
                f"{index} to global_blocks"
            )
        return self.transformer.run_block(index, tokens, grid, attn_mask)

    @torch.no_grad()
    def attention_maps(
        self, images: Tensor, token: tuple[int, int] | None, indices: Sequence[int] = (-1,)
    ) -> dict[int, Tensor]:
        """See :meth:`Backbone.attention_maps`; computed from the queries and keys of the blocks.

        Rotary positions and window attention are included: in a block with window attention, tokens of other windows
        have weight 0. Weights sum to 1, except for the part on a class token or on padding tokens of windows. The
        blocks run once, up to the last requested one.
        """
        grid = self.grid_of(images)
        if token is None and not self.num_prefix_tokens:
            raise InputError(f"{self.name} has no class token: select a patch by its (row, column)")
        if token is not None and not all(0 <= place < length for place, length in zip(token, grid, strict=True)):
            raise InputError(f"token {token} is outside the grid of {grid[0]} x {grid[1]} patches")
        blocks = resolve_indices("blocks", indices, self.num_layers)
        number = 0 if token is None else self.num_prefix_tokens + token[0] * grid[1] + token[1]
        size = self.transformer.window_size
        maps: dict[int, Tensor] = {}

        def keep(attention: Attention, arguments: tuple, block: int) -> None:
            queries, keys, _ = attention.qkv(*arguments[:2])  # without an attention mask
            windowed = size is not None and block not in self.transformer.global_blocks
            windows = Windows(*grid, size) if windowed else None
            maps[block] = _attention_from_token(
                queries, keys, number, len(images), grid, windows, self.num_prefix_tokens
            )

        with ExitStack() as hooks:
            for block in blocks:
                attention = self.transformer.resblocks[block].attn
                hooks.enter_context(attention.register_forward_pre_hook(partial(keep, block=block)))
            for _ in self.iter_tokens(images, [max(blocks)]):
                pass
        return maps

    def _embed_patches(
        self, images: Tensor, grid: tuple[int, int], mask: Tensor | None, mask_token: Tensor | None
    ) -> Tensor:
        """Embed patches and add position embeddings: (B, 3, H, W) -> (B, N, C)."""
        images = self.pad_images(images)
        dtype = self.conv1.weight.dtype
        # Under autocast the convolution returns half precision; positions are added before rounding to it, in the
        # precision of the parameters, as in the published tower.
        x = self.conv1(images.to(dtype)).to(dtype).flatten(2).transpose(1, 2)  # (B, N, C)
        if mask is not None:
            x = torch.where(mask.flatten(1)[..., None], mask_token.to(x.dtype), x)
        if self.config.use_cls_token:
            x = torch.cat([self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        if self.config.use_abs_posemb:
            entries = int(self.config.use_cls_token)
            cls_entry, positions = self.positional_embedding[:entries], self.positional_embedding[entries:]
            x = x + torch.cat([cls_entry, resize_positions(positions, grid, self.pos_embed)]).to(x.dtype)
        return self.ln_pre(x)


def _attention_from_token(
    queries: Tensor, keys: Tensor, number: int, batch: int, grid: tuple[int, int], windows: Windows | None, first: int
) -> Tensor:
    """Compute weights (B, heads, H, W) of one token of the image from queries and keys (B * G, heads, N, d)."""
    queries, keys = (x.float().unflatten(0, (batch, -1)) for x in (queries, keys))  # (B, G, heads, N, d)
    order = torch.arange(1, first + grid[0] * grid[1] + 1, device=queries.device).view(1, 1, -1, 1)
    order = order if windows is None else windows.window_partition(order)  # (1, G, N, 1); 0 is padding
    _, group, place, _ = (order == number + 1).nonzero()[0]
    query = queries[:, group, :, place, None]  # (B, heads, 1, d)
    weights = (query @ keys[:, group].transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=-1)
    spread = weights.new_zeros(batch, order.shape[1], order.shape[2], weights.shape[1])  # (B, G, N, heads)
    spread[:, group] = weights[:, :, 0].transpose(1, 2)
    weights = spread if windows is None else windows.window_unpartition(spread)  # (B, 1, tokens, heads)
    return weights[:, 0, first:].transpose(1, 2).unflatten(2, grid)


def _weights_arrived(tower: PETower, _incompatible) -> None:
    tower._awaits_weights = False
