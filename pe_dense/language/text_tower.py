"""Text tower of PE Core: a causal transformer pooled at the end-of-text token (published parameter names).

Source: Perception Encoder (arXiv 2504.13181), Table 16, and the published configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pe_dense.backbones.attention import attend
from pe_dense.backbones.transformer import LAYER_NORM_EPS, MLP, Attention
from pe_dense.utils.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Architecture of a text tower.

    Args:
        context_length: number of tokens of a text, including the start and end tokens.
        width: channels of a token.
        heads: attention heads of a block.
        layers: number of blocks.
        output_dim: channels of the embedding.
        mlp_ratio: hidden width of a block's MLP divided by ``width``.
        vocab_size: size of the vocabulary.

    Raises:
        ValueError: for sizes that are not positive, or a width that is not a multiple of the heads.
    """

    context_length: int
    width: int
    heads: int
    layers: int
    output_dim: int
    mlp_ratio: float = 4.0
    vocab_size: int = 49408

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise InputError(f"{field.name} of a text tower is a positive number, got {value!r}")
        if self.width % self.heads:
            raise InputError(f"width {self.width} of a text tower is not a multiple of heads {self.heads}")
        if self.context_length < 2:
            raise InputError(f"context_length {self.context_length} leaves no room for the start and end tokens")


_SMALL = TextConfig(context_length=32, width=512, heads=8, layers=12, output_dim=512)
_LARGE = TextConfig(context_length=32, width=1024, heads=16, layers=24, output_dim=1024)
_MINI = TextConfig(context_length=48, width=64, heads=2, layers=2, output_dim=128)
_GIANT = TextConfig(context_length=72, width=1280, heads=20, layers=24, output_dim=1280)

TEXT_CONFIGS: dict[str, TextConfig] = {
    "PE-Core-T16-384": _SMALL,
    "PE-Core-S16-384": _SMALL,
    "PE-Core-B16-224": _LARGE,
    "PE-Core-L14-336": _LARGE,
    "PE-Core-G14-448": _GIANT,
    "PE-Mini-Core": _MINI,
}


def get_text_config(text: str | dict | TextConfig) -> TextConfig:
    """Look up the text tower config of a published model, or build one from fields.

    Args:
        text: a name of :data:`TEXT_CONFIGS`, a dict of :class:`TextConfig` fields, or a config.

    Raises:
        ValueError: for a model without a text tower, an unknown name, or unknown or missing fields.
    """
    if isinstance(text, TextConfig):
        return text
    if isinstance(text, str):
        check_has_text_tower(text)
        return TEXT_CONFIGS[text]
    known = [field.name for field in fields(TextConfig)]
    if unknown := sorted(set(text) - set(known)):
        raise InputError(f"unknown text tower fields {', '.join(unknown)}; allowed: {', '.join(known)}")
    if missing := sorted({"context_length", "width", "heads", "layers", "output_dim"} - set(text)):
        raise InputError(f"the text tower lacks the fields {', '.join(missing)}")
    return TextConfig(**text)


def check_has_text_tower(name: str) -> None:
    """Check that a name is that of a published model with a text tower.

    Raises:
        ValueError: if it is not; the message lists the models that have one.
    """
    if name in TEXT_CONFIGS:
        return
    models = f"models with a text tower: {', '.join(TEXT_CONFIGS)}"
    if name.startswith(("PE-Lang", "PE-Spatial", "PE-Mini-Spatial")):
        raise InputError(f"{name} has no text tower; {models}")
    close = get_close_matches(name, TEXT_CONFIGS, n=1, cutoff=0.6)
    hint = f" did you mean {close[0]}?" if close else ""
    raise InputError(f"{name!r} is not a published model;{hint} {models}")


class CausalAttention(Attention):
    """Causal multi-head self-attention: a token attends to itself and to the tokens before it."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)."""
        q, k, v = self.qkv(x[:, None], None)
        out = attend(q, k, v, is_causal=True)  # (N, heads, L, head_dim)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TextBlock(nn.Module):
    """Causal attention and MLP, each with LayerNorm before and a residual connection."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.attn = CausalAttention(config.width, config.heads)
        self.ln_2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(config.width, int(config.width * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TextTransformer(nn.Module):
    """Blocks of the text tower, with their published names ``transformer.resblocks``."""

    def __init__(self, config: TextConfig, with_cp: bool = False):
        super().__init__()
        self.with_cp = with_cp
        self.resblocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)."""
        for block in self.resblocks:
            if self.with_cp and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


class TextTower(nn.Module):
    """Text tower with the published parameter names.

    Padding (id 0) is not masked: the pooled token only attends to tokens before it, and padding follows it.

    Args:
        text: as of :func:`get_text_config`.
        with_cp: activation checkpointing of each block in training.

    Raises:
        ValueError: as :func:`get_text_config`.
    """

    def __init__(self, text: str | dict | TextConfig, with_cp: bool = False):
        super().__init__()
        self.text_config = config = get_text_config(text)
        self.context_length = config.context_length
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.transformer = TextTransformer(config, with_cp)
        self.ln_final = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.text_projection = nn.Parameter(torch.empty(config.width, config.output_dim))
        self._reset_text_parameters()

    def _reset_text_parameters(self) -> None:
        """Initialize the weights as in CLIP (arXiv 2103.00020)."""
        width, layers = self.text_config.width, self.text_config.layers
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        residual = width**-0.5 * (2 * layers) ** -0.5
        for block in self.transformer.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.zeros_(block.attn.in_proj_bias)
            nn.init.normal_(block.attn.out_proj.weight, std=residual)
            nn.init.zeros_(block.attn.out_proj.bias)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.zeros_(block.mlp.c_fc.bias)
            nn.init.normal_(block.mlp.c_proj.weight, std=residual)
            nn.init.zeros_(block.mlp.c_proj.bias)
        nn.init.normal_(self.text_projection, std=width**-0.5)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Embed texts.

        Args:
            text: (N, L) token ids, L at most the context length.
            normalize: scale embeddings to unit length.

        Returns:
            (N, output_dim).

        Raises:
            ValueError: if the shape or dtype is wrong, or texts are longer than the context.
        """
        if not isinstance(text, Tensor):
            raise InputError(
                f"text is a batch (N, L) of token ids, got a {type(text).__name__}: tokenize with "
                f"get_text_tokenizer({self.context_length})"
            )
        if text.dim() != 2 or text.is_floating_point():
            raise InputError(f"text is a batch (N, L) of token ids, got {text.dtype} of shape {tuple(text.shape)}")
        if text.shape[1] > self.context_length:
            raise InputError(
                f"texts of {text.shape[1]} tokens are longer than the context length {self.context_length}: tokenize "
                f"with get_text_tokenizer({self.context_length})"
            )
        x = self.token_embedding(text) + self.positional_embedding[: text.shape[1]]
        x = self.ln_final(self.transformer(x))
        # The end-of-text token has the largest id; of several, the first is taken.
        x = x[torch.arange(x.shape[0], device=x.device), text.argmax(dim=1)]
        embeddings = x @ self.text_projection
        return F.normalize(embeddings, dim=-1) if normalize else embeddings
