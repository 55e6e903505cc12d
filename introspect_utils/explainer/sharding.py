"""FSDP2: weights, gradients and moments divided among processes, and made whole for files."""

from __future__ import annotations

import torch
from accelerate.state import PartialState
from torch import Tensor, nn
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from introspect_utils.explainer.projection import Projection


def shard(module: nn.Module, compute_dtype: torch.dtype | None) -> None:
    """Divide a module: a unit for each decoder layer, one for the projection, one for the rest.

    Products are taken in `compute_dtype` (None: that of the weights). Gradients are summed, and the
    loss is given out, in float32.
    """
    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (PartialState().num_processes,))
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    for part in module.modules():
        if isinstance(part, (GradientCheckpointingLayer, Projection)):
            fully_shard(part, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its division among processes, all of which must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of `like`, and divided as it is."""
    tensor = tensor.to(like.device)
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements)
