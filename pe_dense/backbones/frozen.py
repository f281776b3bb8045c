"""A frozen backbone under a model that trains on its features."""

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
    """A frozen :class:`~pe_dense.backbones.base.Backbone` under a model that trains on its features.

    It runs without autograd, and its parameters are none of the model's: no optimizer sees them and no checkpoint
    repeats them (a probe of the largest tower is saved in megabytes, not in gigabytes). A checkpoint holds instead
    which taps were used and one weight of each of the tower's tensors; loading it loads the tower, too, and compares.

    Args:
        arch: published name or fields of a :class:`~pe_dense.backbones.PETower`, or ``timm/<model name>``.
        out_indices: block numbers from 0; negative ones count from the end, None for every block.
        dtype: of weights and activations, 'float32', 'bfloat16' or 'float16'. Maps come out in float32.
        init_cfg: as of the tower. Without it weights are random, the same in every run of a seed.
        tower: further arguments of the tower.

    Raises:
        ValueError: as the tower, or for another dtype.
    """

    def __init__(
        self,
        arch: str | dict,
        out_indices: Sequence[int] | None = (-1,),
        dtype: str = "float32",
        init_cfg: dict | None = None,
        **tower,
    ):
        super().__init__()
        if dtype not in DTYPES:
            raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        options = dict(tower, out_indices=out_indices, init_cfg=init_cfg, frozen=True)
        with fork_rng_at_initial_seed():
            frozen: Backbone = MODELS.build(backbone_config(arch, **options))
        # In a list, which hides it from the model's parameters and state.
        self._hidden = [frozen.to(DTYPES[dtype])]
        self.register_buffer("taps", torch.tensor(frozen.out_indices))
        self.register_buffer("weights", _sample(frozen))

    @property
    def tower(self) -> Backbone:
        return self._hidden[0]

    @property
    def out_indices(self) -> tuple[int, ...]:
        """Taps, as block numbers from 0."""
        return self.tower.out_indices

    @property
    def out_channels(self) -> int:
        """Channels of every map, C."""
        return self.tower.out_channels

    @property
    def label(self) -> str:
        """A short name."""
        return self.tower.label

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        return self.tower.patch_size

    @property
    def is_init(self) -> bool:
        """Whether there is nothing left to load."""
        return self.tower.is_init

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, if there is one."""
        if not self.is_init:
            self.tower.init_weights()
            self.weights.copy_(_sample(self.tower))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> one (B, C, H / p, W / p) per tap, in their order."""
        maps = dict(self.iter_maps(images))
        return tuple(maps[index] for index in self.out_indices)

    @torch.no_grad()
    def iter_maps(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Give each tap's map as soon as it is there, and keep none.

        Args:
            images: (B, 3, H, W), normalized.

        Yields:
            (block number, (B, C, H / p, W / p) float32) in rising order of the blocks.
        """
        for index, features in self.tower.iter_intermediates(images, self.out_indices):
            yield index, features.float()

    @torch.no_grad()
    def maps_and_class_tokens(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """Maps and class tokens of a backbone whose first prefix token is a class token.

        Args:
            images: (B, 3, H, W), normalized.

        Returns:
            per tap, in their order, a map (B, C, H / p, W / p) and the class token (B, C), float32.
        """
        pairs = self.tower.forward_intermediates(images, self.out_indices, return_prefix_tokens=True)
        return tuple((features.float(), prefix[:, 0].float()) for features, prefix in pairs)

    def _apply(self, function, recurse: bool = True) -> FrozenTower:
        """Move with the model, but keep the dtype."""
        dtype = next(self.tower.parameters()).dtype
        self.tower._apply(function, recurse)
        self.tower.to(dtype)
        return super()._apply(function, recurse)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        self.init_weights()
        taps, weights = state_dict.get(f"{prefix}taps"), state_dict.get(f"{prefix}weights")
        if taps is not None and tuple(taps.tolist()) != self.out_indices:
            raise CheckpointError(
                f"The checkpoint is of taps {taps.tolist()}, the config has {list(self.out_indices)}: set "
                f"model.backbone.out_indices={str(taps.tolist()).replace(' ', '')}"
            )
        # A weight in bfloat16 is off by 2^-9 of its value.
        if weights is not None and not torch.allclose(weights.to(self.weights), self.weights, rtol=1e-2, atol=1e-6):
            source = (self.tower.init_cfg or {}).get("checkpoint", "none: its weights are random")
            raise CheckpointError(
                f"The checkpoint was trained on a tower with other weights than this one of {self.tower.name} "
                f"({source}): name the right ones as model.backbone.init_cfg.checkpoint"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _sample(tower: Backbone) -> Tensor:
    """One number of each tensor, (T,) float32: tells towers apart."""
    parameters = [parameter.detach().flatten() for parameter in tower.parameters()]
    return torch.stack([values[len(values) // 2] for values in parameters]).float()
