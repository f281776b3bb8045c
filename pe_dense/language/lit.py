"""Locked-image tuning: a frozen backbone, a light head on its tokens and a text tower, trained on captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pe_dense.backbones import FrozenTower, PEConfig
from pe_dense.backbones.build import allowed_options, trained_model
from pe_dense.backbones.transformer import LAYER_NORM_EPS, Block
from pe_dense.language.clip import clip_state
from pe_dense.language.contrastive import ContrastiveModel
from pe_dense.language.text_tower import TextConfig, TextTower, get_text_config
from pe_dense.language.zero_shot import class_embeddings
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError, match_state_dict, read_checkpoint
from pe_dense.utils.errors import InputError
from pe_dense.utils.package_weights import published_weights
from pe_dense.utils.state_dict import unwrap_state

_HEAD_DIM = 64
_LAYER_SCALE = 1e-5


class SwiGLU(nn.Module):
    """Gated MLP (arXiv 2002.05202) with two thirds of the hidden channels of an MLP of ratio 4, a multiple of 64."""

    def __init__(self, width: int):
        super().__init__()
        hidden = -(-8 * width // 3 // 64) * 64
        self.gate_and_values = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        gate, values = self.gate_and_values(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * values)


class TokenHead(nn.Module):
    """Transformer blocks on the tokens of a frozen backbone, then LayerNorm.

    Source: dino.txt (arXiv 2412.16334) as released with DINOv3: two blocks with SwiGLU, LayerScale and stochastic
    depth, without positions of their own.

    Args:
        width: channels C.
        layers: number of blocks.
        drop_path: stochastic depth rate.
    """

    def __init__(self, width: int, layers: int, drop_path: float):
        super().__init__()
        heads = max(1, width // _HEAD_DIM)
        while width % heads:
            heads -= 1
        config = PEConfig(
            patch_size=1, width=width, layers=layers, heads=heads, mlp_ratio=4.0, use_rope2d=False,
            ls_init_value=_LAYER_SCALE, pool_type="none", image_size=1,
        )  # fmt: skip
        self.blocks = nn.ModuleList(Block(config, drop_path) for _ in range(layers))
        for block in self.blocks:
            nn.init.trunc_normal_(block.attn.in_proj_weight, std=0.02)
            nn.init.zeros_(block.attn.in_proj_bias)
            block.mlp = SwiGLU(width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = tokens[:, None]
        for block in self.blocks:
            x = block(x, None)
        return self.norm(x[:, 0])


@MODELS.register_module()
class LiT(ContrastiveModel):
    """Text embeddings for the patches of a frozen backbone: locked-image tuning (LiT) with dino.txt's image vector.

    The image vector is the class token and the mean of the patches of the head's output, one after the other, or the
    mean alone for a backbone without a class token. Text vectors have as many channels; their last C are compared with
    single patches.

    Source: LiT (arXiv 2111.07991), dino.txt (arXiv 2412.16334).

    Args:
        backbone: config of a :class:`~pe_dense.backbones.FrozenTower` of any backbone; the first prefix token of a
            backbone is its class token.
        image_size: side of its input in pixels.
        text: name of a Core model, or fields of :class:`~pe_dense.language.TextConfig`; ``output_dim`` is replaced.
        head_layers, drop_path: see :class:`TokenHead`.
        text_with_cp: activation checkpointing of the text tower's blocks.
        loss, data_preprocessor: see :class:`ContrastiveModel`.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with a Core model whose text tower is the initial one; its
            projection is used if it has as many channels. Random weights by default.

    Raises:
        ValueError: as the classes above.
    """

    def __init__(
        self,
        backbone: dict,
        image_size: int,
        text: str | dict,
        head_layers: int = 2,
        drop_path: float = 0.3,
        text_with_cp: bool = False,
        loss: str = "softmax",
        init_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
    ):
        if head_layers < 1 or not 0.0 <= drop_path < 1.0:
            raise InputError(f"head_layers is at least 1 and drop_path in [0, 1), got {head_layers} and {drop_path}")
        config = _text_config(text)
        super().__init__(image_size, config.context_length, loss, init_cfg, data_preprocessor)
        self.backbone: FrozenTower = MODELS.build(backbone)
        if not isinstance(self.backbone, FrozenTower):
            raise InputError(f"the backbone of LiT is a pe_dense.FrozenTower, got {backbone['type']}")
        self.grid = self.backbone.tower.grid_of(torch.empty(0, 3, image_size, image_size))
        width = self.backbone.out_channels
        self.has_class_token = self.backbone.tower.num_prefix_tokens > 0
        self.head = TokenHead(width, head_layers, drop_path)
        self.text_tower = TextTower(
            replace(config, output_dim=width * (2 if self.has_class_token else 1)), text_with_cp
        )
        self.logit_scale = nn.Parameter(torch.tensor(self.initial_scale))

    @property
    def patch_size(self) -> int:
        """Side of a patch of the frozen backbone, in pixels."""
        return self.backbone.tower.patch_size

    def load_initial(self, checkpoint: str | None) -> None:
        """See :class:`ContrastiveModel`; the backbone loads the weights of its own ``init_cfg``."""
        self.backbone.init_weights()
        if checkpoint is None:
            return
        state = clip_state(read_checkpoint(checkpoint), checkpoint)
        own = self.text_tower.state_dict()
        state = {key: value for key, value in state.items() if not key.startswith("visual.") and key != "logit_scale"}
        if state.get("text_projection", torch.empty(0)).shape != own["text_projection"].shape:
            state["text_projection"] = own["text_projection"]
        match_state_dict(own, state, checkpoint, "the text tower")
        self.text_tower.load_state_dict(state)

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Compute class tokens and patch tokens after the head.

        Args:
            images: (B, 3, H, W), normalized for the backbone.

        Returns:
            (B, C), None without a class token; (B, h * w, C).
        """
        tower = self.backbone.tower
        with torch.no_grad():
            ((patches, prefix),) = tower.forward_intermediates(
                images, [-1], norm=True, output_fmt="NLC", return_prefix_tokens=True
            )
        count = prefix.shape[1]
        tokens = self.head(torch.cat([prefix, patches], dim=1).to(self.logit_scale.dtype))
        return tokens[:, 0] if count else None, tokens[:, count:]

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """See :class:`ContrastiveModel`."""
        first, patches = self.tokens(images)
        embeddings = patches.mean(dim=1)
        if first is not None:
            embeddings = torch.cat([first, embeddings], dim=1)
        return F.normalize(embeddings, dim=-1) if normalize else embeddings

    @torch.no_grad()
    def patch_embeddings(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed patches for the comparison with :meth:`patch_text_embeddings`.

        Args:
            images: (B, 3, H, W), normalized for the backbone (``backbone.tower.mean`` and ``std``); sides are multiples
                of its patch size.

        Returns:
            (B, h * w, C) of unit length, and the grid h, w.
        """
        return F.normalize(self.tokens(images)[1], dim=-1), self.backbone.tower.grid_of(images)

    @torch.no_grad()
    def patch_text_embeddings(self, names: Sequence[str], templates: str | Sequence[str] = "photo") -> Tensor:
        """Embed class names for the comparison with patches.

        Args:
            names, templates: see :func:`~pe_dense.language.zero_shot.class_embeddings`.

        Returns:
            (K, C) of unit length.
        """
        embeddings = class_embeddings(self, names, templates)
        return F.normalize(embeddings[:, -self.backbone.out_channels :], dim=-1)


def _text_config(text: str | dict) -> TextConfig:
    if isinstance(text, dict):
        return get_text_config(dict(text, output_dim=text.get("output_dim", 1)))
    return get_text_config(text)


def load_lit(source: str | Path, weights: str | Path | None = None, *, device: str | torch.device = "cpu") -> LiT:
    """Load a model from a checkpoint of a training run.

    Args:
        source: checkpoint or work dir of a run of :class:`LiT` on a PE tower.
        weights: path or ``hf://`` name of the frozen backbone's weights, which the checkpoint does not contain; by
            default the published ones that its config names. Other files named inside a checkpoint are not opened.
        device: where the model goes.

    Returns:
        the model, in evaluation mode.

    Raises:
        CheckpointError: if the checkpoint is of another model, does not match, or was trained on other weights.
        FileNotFoundError: if a file does not exist.
    """
    source = str(source)
    checkpoint = read_checkpoint(source)
    run = trained_model(checkpoint)
    if run is None or run.get("type") != "pe_dense.LiT" or not isinstance(run.get("backbone"), dict):
        raise CheckpointError(f"{source} is not a checkpoint of a training run of pe_dense.LiT")
    options = allowed_options(run["backbone"], source)
    if weights is None:
        start = run["backbone"].get("init_cfg")
        weights = start.get("checkpoint") if isinstance(start, dict) else None
        if weights != published_weights(options["arch"]):
            raise CheckpointError(
                f"{source} was trained on a frozen tower whose weights are in another file ({str(weights)[:200]}). "
                "Files named inside a checkpoint are not opened: pass that file as `weights`"
            )
    init_cfg = dict(type="Pretrained", checkpoint=str(weights))
    given = {key: run[key] for key in ("image_size", "head_layers", "loss") if key in run}
    try:
        model = LiT(
            dict(options, type="pe_dense.FrozenTower", init_cfg=init_cfg), text=_recorded_text(run.get("text")), **given
        )
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{source}: its config does not describe a LiT model: {error}") from error
    state = unwrap_state(checkpoint, source, ("state_dict",))
    match_state_dict(model.state_dict(), state, source, "a LiT model")
    model.load_state_dict(state)
    model._is_init = True
    return model.to(device).eval()


def _recorded_text(text) -> str | dict:
    """Text tower of a run's config, which may come from anywhere; sizes are limited before memory is allocated."""
    config = asdict(_text_config(text if isinstance(text, str | dict) else {}))
    if max(config.values()) > 1 << 17 or config["layers"] > 256:
        raise InputError(f"the text tower is too large: {config}")
    return config
