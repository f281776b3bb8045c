"""Fully sharded data-parallel training (PyTorch's FSDP 2)."""

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
    """Shard a model's parameters across all processes with FSDP 2, on the GPU if available.

    Each block of a backbone is a separate FSDP unit that is gathered when it runs and freed afterwards; everything else
    is one unit. A GPU's memory therefore contains its own shard, one or two blocks, and the modules outside of the
    backbone. Parameter names do not change. The model must be initialized, on the CPU and identical in every process:
    during sharding, the host needs memory for one copy per GPU (Mask R-CNN on PE-Spatial-G14: 7.6 GB each).

    Parameters are gathered in float32. Mixed precision uses autocast, as without sharding, with the same results.

    Args:
        model: unsharded model, on the CPU.

    Returns:
        the model, modified in place.
    """
    device = get_device()
    mesh = init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    for module in list(model.modules()):
        if isinstance(module, Backbone):
            for block in module.fsdp_units():
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if hasattr(model, "feature_maps"):  # called by visualization hooks in addition to forward
        register_fsdp_forward_method(model, "feature_maps")
    # Parameters are already on the device; this moves buffers and sets the device of the data preprocessor.
    return model.to(device)


def local_numel(model: nn.Module) -> tuple[int, int]:
    """Count the parameters (elements, not tensors) of a sharded model in this process and in total."""
    parameters = list(model.parameters())
    return sum(p.to_local().numel() for p in parameters), sum(p.numel() for p in parameters)


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model was sharded by :func:`shard`."""
    return isinstance(model, FSDPModule)


def full_state_dict(state, keep: bool):
    """Gather sharded tensors on the CPU. All processes must call this function.

    Args:
        state: nested dicts and lists of tensors, such as a ``state_dict()``.
        keep: whether this process keeps the gathered tensors.

    Returns:
        the same structure with full tensors, or None in place of tensors if not ``keep``.
    """

    def full_tensor(tensor: Tensor) -> Tensor | None:
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return tensor.cpu() if keep else None

    return apply_to(state, torch.is_tensor, full_tensor)


def distribute_state_dict(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Shard full tensors like a model's parameters. All processes must call this; the tensors of rank 0 are used.

    Args:
        state: full tensors with exactly the model's keys and shapes.
        model: sharded or not.
    """
    own = model.state_dict()
    return {key: _cut(value, own[key]) for key, value in state.items()}


def accept_full_optimizer_state(optimizer: Optimizer) -> None:
    """Let the optimizer of a sharded model load the state of unsharded parameters."""
    optimizer.register_load_state_dict_pre_hook(_share_out_optimizer)


def _share_out_optimizer(optimizer: Optimizer, content: dict) -> dict:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in content["param_groups"] for number in group["params"]]
    owners = dict(zip(numbers, parameters, strict=True))
    state = {
        number: {
            # Moments have the parameter's shape and are sharded; step counters are not.
            name: _cut(value, owners[number]) if getattr(value, "shape", None) == owners[number].shape else value
            for name, value in values.items()
        }
        for number, values in content["state"].items()
    }
    return dict(content, state=state)


def _cut(value: Tensor, like: Tensor) -> Tensor:
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value
