"""Fully sharded training: every process holds a part of each parameter, its gradient and its optimizer state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.device import get_device
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from pe_dense.backbones.base import Backbone


def shard(model: nn.Module) -> nn.Module:
    """Share a model's parameters out among all processes (PyTorch's FSDP 2), on the GPU where there is one.

    Each block of a tower is gathered when it runs and let go afterwards; everything else is gathered together. So a
    GPU never holds more than its share, one block or two, and what is not in a tower. Names of parameters stay. The
    model comes with its weights, on the CPU and the same in every process: while it is shared out, a machine's memory
    must hold it once per GPU (Mask R-CNN on PE-Spatial-G14: 7.6 GB each).

    Parameters are gathered in float32. Mixed precision is autocast's, as without sharding, with the same numbers.

    Args:
        model: a whole model, on the CPU.

    Returns:
        the model, changed in place.
    """
    device = get_device()
    mesh = init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    for module in list(model.modules()):
        if isinstance(module, Backbone):
            for block in module.fsdp_units():
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if hasattr(model, "feature_maps"):  # what pictures ask for, beside forward
        register_fsdp_forward_method(model, "feature_maps")
    # Parameters have moved; models also note where their input goes.
    return model.to(device)


def local_numel(model: nn.Module) -> tuple[int, int]:
    """How many parameters (numbers, not tensors) of a sharded model are here, and in all processes together."""
    parameters = list(model.parameters())
    return sum(p.to_local().numel() for p in parameters), sum(p.numel() for p in parameters)


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard` was here."""
    return isinstance(model, FSDPModule)


def full_state_dict(state, keep: bool):
    """Put tensors together on the CPU. All processes must call this.

    Args:
        state: tensors in dicts and lists, as of ``state_dict()``.
        keep: whether this process wants them.

    Returns:
        the same with whole tensors, or None in their places if not ``keep``.
    """

    def whole(tensor: Tensor) -> Tensor | None:
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return tensor.cpu() if keep else None

    return apply_to(state, torch.is_tensor, whole)


def distribute_state_dict(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Cut whole tensors as a model's are. All processes must call this; the tensors of rank 0 count.

    Args:
        state: exactly the model's keys, in its shapes.
        model: sharded or not.
    """
    own = model.state_dict()
    return {key: _cut(value, own[key]) for key, value in state.items()}


def accept_full_optimizer_state(optimizer: Optimizer) -> None:
    """Let the optimizer of a sharded model load states of whole parameters."""
    optimizer.register_load_state_dict_pre_hook(_share_out_optimizer)


def _share_out_optimizer(optimizer: Optimizer, content: dict) -> dict:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in content["param_groups"] for number in group["params"]]
    owners = dict(zip(numbers, parameters, strict=True))
    state = {
        number: {
            # Beside moments in a parameter's shape there are counters.
            name: _cut(value, owners[number]) if getattr(value, "shape", None) == owners[number].shape else value
            for name, value in values.items()
        }
        for number, values in content["state"].items()
    }
    return dict(content, state=state)


def _cut(value: Tensor, like: Tensor) -> Tensor:
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value
