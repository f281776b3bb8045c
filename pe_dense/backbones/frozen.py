"""Frozen backbone for models that are trained on its features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pe_dense.backbones.base import Backbone, backbone_config
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError
from pe_dense.utils.errors import InputError
from pe_dense.utils.rng import fork_rng_at_initial_seed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@MODELS.register_module()
class FrozenTower(nn.Module):
    """Frozen :class:`~pe_dense.backbones.base.Backbone` for models that are trained on its features.

    The backbone runs without autograd and is not registered as a submodule: its parameters are not passed to the
    optimizer and not saved in checkpoints (a probe of the largest tower takes megabytes instead of gigabytes). A
    checkpoint stores the block numbers and one weight of each tensor instead; on loading, the backbone is loaded from
    its own file and compared with them.

    Args:
        arch: published name, or dict of fields, of a :class:`~pe_dense.backbones.PETower`, or ``timm/<model name>``.
        out_indices: block numbers from 0; negative ones count from the end, None for every block.
        dtype: data type of weights and activations, 'float32', 'bfloat16' or 'float16'. Maps are returned in float32.
        norm: apply the final norm of the backbone to the maps, as DINOv3's probes do.
        init_cfg: see the backbone class. Without it weights are random and depend only on the seed.
        tower: further arguments of the backbone.

    Raises:
        ValueError: for invalid arguments of the backbone, or another dtype.
    """

    def __init__(
        self,
        arch: str | dict,
        out_indices: Sequence[int] | None = (-1,),
        dtype: str = "float32",
        norm: bool = False,
        init_cfg: dict | None = None,
        **tower,
    ):
        super().__init__()
        if dtype not in DTYPES:
            raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        options = dict(tower, out_indices=out_indices, init_cfg=init_cfg, frozen=True)
        with fork_rng_at_initial_seed():
            frozen: Backbone = MODELS.build(backbone_config(arch, **options))
        self.norm = norm
        # A list keeps it out of the parameters and the state dict of the model.
        self._hidden = [frozen.to(DTYPES[dtype])]
        self.register_buffer("taps", torch.tensor(frozen.out_indices))
        self.register_buffer("weights", _sample(frozen))

    @property
    def tower(self) -> Backbone:
        return self._hidden[0]

    @property
    def out_indices(self) -> tuple[int, ...]:
        """Block numbers of the feature maps, from 0."""
        return self.tower.out_indices

    @property
    def out_channels(self) -> int:
        """Number of channels C of every map."""
        return self.tower.out_channels

    @property
    def label(self) -> str:
        """Short name of the backbone."""
        return self.tower.label

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        return self.tower.patch_size

    @property
    def is_init(self) -> bool:
        """Whether the weights are initialized."""
        return self.tower.is_init

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, if it is set."""
        if not self.is_init:
            self.tower.init_weights()
            self.weights.copy_(_sample(self.tower))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps: (B, 3, H, W) -> one (B, C, H / p, W / p) per entry of ``out_indices``."""
        maps = dict(self.iter_intermediates(images))
        return tuple(maps[index] for index in self.out_indices)

    @torch.no_grad()
    def iter_intermediates(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each feature map as soon as it is computed, without keeping it.

        Args:
            images: (B, 3, H, W), normalized.

        Yields:
            (block number, (B, C, H / p, W / p) float32) in increasing order of the blocks.
        """
        for index, features in self.tower.iter_intermediates(images, self.out_indices, norm=self.norm):
            yield index, features.float()

    @torch.no_grad()
    def maps_and_class_tokens(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """Compute feature maps and class tokens of a backbone whose first prefix token is a class token.

        Args:
            images: (B, 3, H, W), normalized.

        Returns:
            for each entry of ``out_indices``, a map (B, C, H / p, W / p) and the class token (B, C), float32.
        """
        pairs = self.tower.forward_intermediates(images, self.out_indices, norm=self.norm, return_prefix_tokens=True)
        return tuple((features.float(), prefix[:, 0].float()) for features, prefix in pairs)

    def _apply(self, function, recurse: bool = True) -> FrozenTower:
        """Apply device changes of the model to the backbone, but keep its dtype."""
        dtype = next(self.tower.parameters()).dtype
        self.tower._apply(function, recurse)
        self.tower.to(dtype)
        return super()._apply(function, recurse)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        self.init_weights()
        taps, weights = state_dict.get(f"{prefix}taps"), state_dict.get(f"{prefix}weights")
        if taps is not None and tuple(taps.tolist()) != self.out_indices:
            raise CheckpointError(
                f"the checkpoint was trained on blocks {taps.tolist()}, the config has {list(self.out_indices)}: set "
                f"model.backbone.out_indices={str(taps.tolist()).replace(' ', '')}"
            )
        # The tolerance covers rounding to bfloat16, a relative error of up to 2^-9.
        if weights is not None and not torch.allclose(weights.to(self.weights), self.weights, rtol=1e-2, atol=1e-6):
            source = (self.tower.init_cfg or {}).get("checkpoint", "random weights")
            raise CheckpointError(
                f"the checkpoint was trained on a backbone with other weights than {self.tower.name} ({source}); "
                "set model.backbone.init_cfg.checkpoint to the weights that it was trained on"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _sample(tower: Backbone) -> Tensor:
    """Sample one value of each of T tensors, (T,) float32, as a fingerprint of the weights."""
    parameters = [parameter.detach().flatten() for parameter in tower.parameters()]
    return torch.stack([values[len(values) // 2] for values in parameters]).float()
