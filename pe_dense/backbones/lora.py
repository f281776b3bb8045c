"""LoRA: low-rank adapters of a backbone's linear layers (arXiv 2106.09685), by the package ``peft``.

Adapters exist in training only. A checkpoint of a run contains the weights of the backbone and the adapters; loading it
into a backbone without adapters, exporting it or pushing it to the hub merges them
(:func:`pe_dense.utils.lora_state.merge_lora`), so that none of these needs ``peft``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pe_dense.backbones.base import Backbone
from pe_dense.backbones.transformer import Attention
from pe_dense.utils.errors import InputError, UserError
from pe_dense.utils.lora_state import SCALING


def add_lora(tower: Backbone, options: Mapping) -> None:
    """Freeze a backbone and add trainable adapters to all linear layers of its blocks, attention and MLP.

    The output does not change until the adapters are trained, because their second factor is 0 at first. Names of
    adapted layers are those of ``peft``; :meth:`~pe_dense.backbones.base.Backbone.layer_id` accepts them.

    Args:
        tower: a backbone, on any device; changed in place.
        options: ``rank``, the inner dimension of the adapters; optionally ``alpha`` (the product of the factors is
            multiplied by ``alpha / rank``; 2 * rank by default) and ``dropout`` (probability, 0 by default).

    Raises:
        InputError: for other options or values out of range, or a frozen backbone.
        UserError: if ``peft`` is not installed.
    """
    rank, alpha, dropout = _check_options(options, tower)
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise UserError("LoRA needs the package peft: pip install 'pe_dense[lora]'") from error

    tower.requires_grad_(False)
    # A list of the blocks shares them with the tower, and peft leaves no settings in the tower itself.
    blocks = nn.ModuleList(tower.fsdp_units())
    for module in blocks.modules():
        if isinstance(module, Attention):
            module.use_linear_in_proj()
        elif getattr(module, "qkv_bias_separate", None) is False:
            module.qkv_bias_separate = True  # timm's EVA and BEiT: call the layer instead of reading its weight
    names = [name for name, module in blocks.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise InputError(f"LoRA: {tower.name} has no linear layers in its blocks")
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none"), blocks
    )
    for module in blocks.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False  # autocast chooses the data type of both factors
    tower.register_buffer(SCALING, torch.tensor(alpha / rank, dtype=torch.float32))
    tower.register_load_state_dict_post_hook(_check_scaling)
    tower.lora = dict(rank=rank, alpha=alpha, dropout=dropout)


def describe_trainable(model: nn.Module) -> str | None:
    """Describe in one line how many parameters of a model with LoRA are trained; None for other models.

    Args:
        model: a model, sharded or not.
    """
    model = getattr(model, "module", model)
    towers = [module for module in model.modules() if isinstance(module, Backbone) and module.lora]
    if not towers:
        return None
    adapters = sum(p.numel() for tower in towers for p in tower.parameters() if p.requires_grad)
    whole = sum(p.numel() for tower in towers for p in tower.parameters()) - adapters
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters()) - adapters
    return (
        f"LoRA of rank {towers[0].lora['rank']}: {adapters:,} trained parameters in the backbone, "
        f"{adapters / whole:.1%} of its {whole:,}; with the other parts of the model {trained:,}, "
        f"{trained / total:.1%} of {total:,}"
    )


def _check_options(options: Mapping, tower: Backbone) -> tuple[int, float, float]:
    if not isinstance(options, Mapping) or "rank" not in options or set(options) - {"rank", "alpha", "dropout"}:
        raise InputError(f"lora is dict(rank=...), with alpha and dropout if needed, got {options!r}")
    rank, dropout = options["rank"], options.get("dropout", 0.0)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= tower.embed_dim:
        raise InputError(
            f"the rank of LoRA is a whole number from 1 to {tower.embed_dim}, the width of {tower.name}, got {rank!r}"
        )
    alpha = options.get("alpha", 2 * rank)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise InputError(f"alpha of LoRA must be a positive number, got {alpha!r}")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InputError(f"dropout of LoRA must be a number from 0 to below 1, got {dropout!r}")
    if getattr(tower, "frozen", False):
        raise InputError(f"LoRA trains inside of {tower.name}, which is frozen: set frozen=False, or leave lora out")
    return rank, float(alpha), float(dropout)


def _check_scaling(tower: Backbone, _incompatible) -> None:
    expected, loaded = tower.lora["alpha"] / tower.lora["rank"], float(getattr(tower, SCALING))
    if abs(loaded - expected) > 1e-6 * expected:
        getattr(tower, SCALING).fill_(expected)
        raise InputError(
            f"the checkpoint was trained with LoRA's alpha / rank = {loaded:g}, the config has {expected:g}: set "
            f"model.backbone.lora.alpha={loaded * tower.lora['rank']:g}"
        )
