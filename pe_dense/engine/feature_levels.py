"""Find the strides and channels of a backbone of mmdet or mmseg by running it, without weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pe_dense.engine.config_parts import kind_of
from pe_dense.utils.errors import ConfigError, library_errors

PATCH = 16  # px, of the towers
_SIDE = 256  # px, of the image on which a backbone is measured


@dataclass(frozen=True)
class Level:
    """One feature map: its stride in pixels and its number of channels."""

    stride: int
    channels: int


def measure(config: Config, backbone: dict, neck: dict | None = None) -> list[Level]:
    """Run a backbone, and optionally a neck, without weights, and return the levels of the result.

    Args:
        config: a whole config, for its ``default_scope``.
        backbone, neck: their configs, which are not changed.

    Raises:
        ConfigError: if they can't be built, or return something else than maps.
    """
    name = f"{config.filename}: model.{'neck' if neck else 'backbone'} {kind_of(neck or backbone)}"
    parts = [deepcopy(part) for part in (backbone, neck) if part]
    for part in parts:
        for key in ("init_cfg", "pretrained", "dcn", "stage_with_dcn", "conv_cfg", "with_cp"):
            part.pop(key, None)
    scope = config.get("default_scope") or "mmdet"
    try:
        maps = _run(parts, scope, _OnMeta(), "meta")
    except (RuntimeError, NotImplementedError, ValueError):  # not every class can be run without memory
        with library_errors(f"--tower: {name} can't be run to find its strides and channels"):
            maps = _run(parts, scope, nullcontext(), "cpu")
    if not isinstance(maps, list | tuple) or not all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
        raise ConfigError(
            f"--tower: {name} returns more than feature maps, such as class tokens, which the heads read: it can't "
            "be replaced"
        )
    return [Level(round(_SIDE / x.shape[-1]), x.shape[1]) for x in maps]


class _OnMeta(TorchFunctionMode):
    """Create parameters without memory, but other tensors, whose values a constructor may read, with it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.empty, torch.zeros, torch.ones, torch.randn) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


@torch.no_grad()
def _run(parts: list[dict], scope: str, mode: AbstractContextManager, device: str):
    """Build modules and apply them, one after the other, to an image."""
    features = torch.zeros(1, 3, _SIDE, _SIDE, device=device)
    with torch.random.fork_rng(devices=[]), MODELS.switch_scope_and_registry(scope) as registry:
        for part in parts:
            with mode:
                module: nn.Module = registry.build(part)
            module.to(device)
            module.eval()  # returns nothing in some classes of mmdet
            features = module(features)
    return features
