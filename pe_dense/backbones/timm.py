"""timm vision transformers as backbones: DINOv2, DINOv3, SigLIP 2, TIPS, timm's own PE, ..."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pe_dense.backbones.base import TIMM_PREFIX, Backbone, resolve_indices
from pe_dense.backbones.lora import add_lora
from pe_dense.registry import MODELS
from pe_dense.utils.checkpoint import CheckpointError
from pe_dense.utils.errors import InputError, first_line
from pe_dense.utils.lora_state import has_lora, merge_lora, with_lora
from pe_dense.utils.state_dict import check_state_dict, match_state_dict

TIMM_HUB = "timm"
_AFTER_BLOCKS = ("norm", "fc_norm", "attn_pool", "head_drop", "head")


@MODELS.register_module()
class TimmTower(Backbone):
    """Backbone that wraps a plain vision transformer of timm.

    Args:
        name: name of a timm model, with or without the tag of its weights (``vit_small_patch16_dinov3.lvd1689m``).
        out_indices: blocks whose maps :meth:`forward` returns; negative ones count from the end, None for all.
        img_size: side in pixels of the input images for which position embeddings are created; the default of the model
            if None. Models with ``dynamic_img_size`` accept other sizes too; weights are resampled on load if needed.
        drop_path_rate: stochastic depth rate, increasing linearly over the blocks as in timm.
        with_cp: activation checkpointing of each block in training.
        frozen: disable gradients and training mode.
        pad_to_patch: pad images at the bottom and right to a multiple of the patch size instead of raising an error.
        model_args: further arguments of ``timm.create_model``, such as ``dict(reg_tokens=4)``.
        lora: ``dict(rank=...)`` trains low-rank adapters only, see :func:`~pe_dense.backbones.lora.add_lora`.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with a path, an ``hf://`` name, or ``'timm'`` for the
            weights that timm's configuration of the model names. Without it weights are random.

    Raises:
        ValueError: if the model is unknown or not a plain vision transformer.
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] | None = (-1,),
        img_size: int | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        frozen: bool = False,
        pad_to_patch: bool = False,
        model_args: dict | None = None,
        lora: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.timm_name = name.removeprefix(TIMM_PREFIX)
        self.name = self.label = f"{TIMM_PREFIX}{self.timm_name}"
        self._options = dict(num_classes=0, drop_path_rate=drop_path_rate) | (model_args or {})
        if img_size is not None:
            self._options["img_size"] = img_size
        self.model, self.dynamic = self._create()
        config = self.model.pretrained_cfg
        self.embed_dim = self.model.embed_dim
        self.num_layers = len(self.model.blocks)
        self.patch_size = self.model.patch_embed.patch_size[0]
        self.num_prefix_tokens = self.model.num_prefix_tokens
        self.image_size = img_size or config["input_size"][-1]
        self.mean = tuple(255 * value for value in config["mean"])
        self.std = tuple(255 * value for value in config["std"])
        self.out_indices = resolve_indices("out_indices", out_indices, self.num_layers)
        self.frozen = frozen
        self.pad_to_patch = pad_to_patch
        self.model.set_grad_checkpointing(with_cp)
        self._awaits_weights = init_cfg is not None
        self.register_load_state_dict_post_hook(_mark_loaded)
        if frozen:
            self.requires_grad_(False)
        if lora:
            add_lora(self, lora)
        self.train()

    def _create(self, **weights) -> tuple[nn.Module, bool]:
        """Create the timm model; also return whether it accepts images of any size."""
        import timm  # deferred, because it takes seconds and other backbones do not need it

        arch, _, tag = self.timm_name.partition(".")
        if not timm.is_model(arch):
            close = timm.list_models(f"*{arch}*")[:3] or get_close_matches(arch, timm.list_models(), n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else ": timm.list_models() lists all names"
            raise InputError(f"timm has no model {self.timm_name!r}{hint}")
        known = timm.models.get_arch_pretrained_cfgs(arch)
        if tag and self.timm_name not in known:
            raise InputError(f"timm has no weights {tag!r} of {arch}; it has: {', '.join(known) or 'none'}")
        try:
            try:
                options = dict(dynamic_img_size=True, **self._options)
                model, dynamic = timm.create_model(self.timm_name, **options, **weights), True
            except TypeError:  # the constructor has no such argument
                model, dynamic = timm.create_model(self.timm_name, **self._options, **weights), False
        except TypeError as error:
            raise InputError(f"timm's {self.timm_name} cannot be created: {first_line(error)}") from error
        if reason := _why_not_plain(model):
            raise InputError(
                f"timm's {self.timm_name} is not a plain vision transformer: {reason}. Choose one whose first layer "
                "cuts square patches, such as vit_small_patch16_dinov3"
            )
        return model, dynamic

    def init_weights(self) -> None:
        """Load the weights of ``init_cfg``, if it is set (MMEngine calls this before training).

        Raises:
            FileNotFoundError, CheckpointError: if the file is missing or does not match the model.
        """
        if self._is_init:
            return
        if self.init_cfg is not None:
            if set(self.init_cfg) != {"type", "checkpoint"} or self.init_cfg["type"] != "Pretrained":
                raise InputError(f"init_cfg must be dict(type='Pretrained', checkpoint=...), got {self.init_cfg}")
            self.load_pretrained(self.init_cfg["checkpoint"])
        self._is_init = True

    def load_pretrained(self, source: str | Path, content: Mapping | None = None, **options) -> None:
        """See :meth:`Backbone.load_pretrained`; ``'timm'`` selects the default weights of the timm model."""
        if source == TIMM_HUB:
            self.load_state_dict(self._pretrained(dict(pretrained=True), source))
        elif str(source).endswith(".npz"):  # JAX weights, converted by the model class
            overlay = dict(file=str(source), custom_load=True)
            self.load_state_dict(self._pretrained(dict(pretrained=True, pretrained_cfg_overlay=overlay), source))
        else:
            super().load_pretrained(source, content, **options)

    def _pretrained(self, weights: dict, source: str | Path) -> dict[str, Tensor]:
        """Return the state dict of the model with weights loaded and converted by timm."""
        try:
            model, _ = self._create(**weights)
        except (RuntimeError, OSError, KeyError) as error:
            raise CheckpointError(
                f"{source} could not be loaded as weights of {self.name}: {first_line(error)}"
            ) from error
        return with_lora({f"model.{key}": value for key, value in model.state_dict().items()}, self.state_dict())

    def adapt_state_dict(self, checkpoint: Mapping, source: str | Path) -> dict[str, Tensor]:
        """See :meth:`Backbone.adapt_state_dict`; published files are converted by timm."""
        own = self.state_dict()
        state = dict(checkpoint)
        while isinstance(inner := next((state.get(key) for key in ("state_dict", "model")), None), Mapping):
            state = dict(inner)
        if has_lora(state):
            state = merge_lora(check_state_dict(state, str(source)), str(source))
        for prefix in ("", "backbone."):
            part = {
                key.removeprefix(prefix): value for key, value in state.items() if key.startswith(f"{prefix}model.")
            }
            if part:
                part = with_lora(part, own)
                match_state_dict(own, part, str(source), self.name)
                return part
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise CheckpointError(f"{source} is not a state dict of {self.name}")
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        try:
            state = convert(state, self.model) if convert else state
        except (RuntimeError, KeyError, IndexError) as error:
            raise CheckpointError(f"{source} does not fit {self.name}: {error}") from error
        # timm loads with strict=False if the classifier is removed, so the keys are compared here.
        dropped = (*_classifiers(self.model.pretrained_cfg), "mask_token")
        state = {f"model.{key}": value for key, value in state.items() if not key.startswith(dropped)}
        state = with_lora(state, own)
        match_state_dict(own, state, str(source), self.name)
        return state

    def train(self, mode: bool = True) -> TimmTower:
        """Set the training mode, except that a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """See :meth:`Backbone.grid_of`; models without ``dynamic_img_size`` only accept their native image size."""
        grid = super().grid_of(images)
        native = (self.image_size // self.patch_size,) * 2
        if not self.dynamic and grid != native:
            raise InputError(
                f"{self.name} only accepts images of {self.image_size} x {self.image_size} px, got "
                f"{images.shape[-2]} x {images.shape[-1]}: resize them, or build it with another img_size"
            )
        return grid

    def iter_tokens(
        self, images: Tensor, indices: Sequence[int], *, norm: bool = False, **masking: Tensor | None
    ) -> Iterator[tuple[int, Tensor]]:
        """See :meth:`Backbone.iter_tokens`. timm computes all requested blocks before the first one is yielded."""
        if self._awaits_weights:
            raise RuntimeError(f"weights of {self.name} are not loaded; call init_weights()")
        if masking.get("mask") is not None:
            raise InputError(f"{self.name} does not support masked patches: use a PETower as the student")
        images = self.pad_images(images).to(next(self.model.parameters()).dtype)
        indices = sorted(indices)
        features = self.model.forward_intermediates(
            images,
            indices=indices,
            norm=norm,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
            return_prefix_tokens=self.num_prefix_tokens > 0,
        )
        for index, tokens in zip(indices, features, strict=True):
            if self.num_prefix_tokens:
                patches, prefix = tokens
                tokens = torch.cat([prefix, patches], dim=1)
            yield index, tokens

    @property
    def final_norm(self) -> nn.Module:
        """See :attr:`Backbone.final_norm`."""
        return self.model.norm

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int], attn_mask: Tensor | None = None) -> Tensor:
        """See :meth:`Backbone.run_block`; for models of timm's classes ``VisionTransformer`` and ``Eva``."""
        from timm.models.eva import Eva
        from timm.models.vision_transformer import VisionTransformer

        options: dict = dict(attn_mask=attn_mask)
        if isinstance(self.model, Eva):
            options["rope"] = self._rope(index, grid, tokens.shape[1] - self.num_prefix_tokens - grid[0] * grid[1])
        elif not isinstance(self.model, VisionTransformer):
            return super().run_block(index, tokens, grid, attn_mask)
        block = self.model.blocks[index]
        if self.model.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, tokens, use_reentrant=False, **options)
        return block(tokens, **options)

    def _rope(self, index: int, grid: tuple[int, int], extra: int) -> Tensor | None:
        """Return sines and cosines of a block's rotary positions, with entries of extra tokens in front.

        The attention of timm rotates all tokens after the first ``num_prefix_tokens``, which are the first extra ones.
        """
        if self.model.rope is None:
            return None
        table = self.model.rope.get_embed(shape=grid)
        if getattr(self.model, "rope_mixed", False):
            table = table[index]
        sines = table.new_zeros(*table.shape[:-2], extra, table.shape[-1] // 2)
        return torch.cat([torch.cat([sines, torch.ones_like(sines)], dim=-1), table], dim=-2)

    def forward_pooled(self, images: Tensor) -> Tensor:
        """See :meth:`Backbone.forward_pooled`; uses the pooling of the timm model."""
        images = self.pad_images(images).to(next(self.model.parameters()).dtype)
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True)

    def layer_id(self, parameter_name: str) -> int:
        """See :meth:`Backbone.layer_id`."""
        try:
            self.get_parameter(parameter_name)
        except AttributeError as error:
            raise KeyError(f"{self.name} has no parameter {parameter_name!r}") from error
        part, *rest = parameter_name.removeprefix("model.").split(".")
        if part == "blocks":
            return int(rest[0]) + 1
        return self.num_layers + 1 if part in _AFTER_BLOCKS else 0

    def fsdp_units(self) -> Iterable[nn.Module]:
        """See :meth:`Backbone.fsdp_units`."""
        return self.model.blocks

    def no_weight_decay(self) -> set[str]:
        """See :meth:`Backbone.no_weight_decay`."""
        return {f"model.{name}" for name in self.model.no_weight_decay()}

    def prune_intermediate_layers(self, last: int) -> None:
        """See :meth:`Backbone.prune_intermediate_layers`."""
        self.model.prune_intermediate_layers([last], prune_norm=False, prune_head=False)


def _why_not_plain(model: nn.Module) -> str | None:
    """Return what a timm model lacks of a vision transformer with a grid of patches and tokens of one size."""
    from timm.layers import PatchEmbed

    needed = ("blocks", "patch_embed", "num_prefix_tokens", "forward_intermediates", "embed_dim")
    if missing := [attribute for attribute in needed if not hasattr(model, attribute)]:
        return f"it has no {', '.join(missing)}"
    if not isinstance(model.patch_embed, PatchEmbed):  # of hybrid models and convolutional stems
        return f"its input goes through a {type(model.patch_embed).__name__}, not to patches directly"
    if len(set(model.patch_embed.patch_size)) != 1:
        return "its patches are not square"
    if "return_prefix_tokens" not in signature(model.forward_intermediates).parameters:
        return "its forward_intermediates returns no class tokens"
    return None


def _classifiers(config: Mapping) -> tuple[str, ...]:
    """Return the prefixes of the classifier parameters in a timm config."""
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _mark_loaded(tower: TimmTower, _incompatible) -> None:
    tower._awaits_weights = False
