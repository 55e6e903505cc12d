"""Weights and the optimizer's moments: divided among processes (FSDP2), and whole in one file from
which an interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from accelerate.state import PartialState
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from introspect_utils.explainer.projection import Projection
from introspect_utils.settings.paths import replaced

RESUME = Path("resume", "state.safetensors")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def shard(module: nn.Module, compute_dtype: torch.dtype | None) -> None:
    """Divide a module: a unit for each decoder layer, one for the projection, one for the rest.
    Products are taken in `compute_dtype`; gradients are summed, and the loss given, in float32."""
    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (PartialState().num_processes,))
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    units = (GradientCheckpointingLayer, Projection)
    for part in (*(part for part in module.modules() if isinstance(part, units)), module):
        fully_shard(part, mesh=mesh, mp_policy=policy)


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its division among processes, all of which must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of `like`, and divided as it is."""
    tensor = tensor.to(like.device)
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements)


def checkpoint(
    path: Path, trained: dict, moments: dict, losses: list[float], seconds: float, made_from: str
) -> None:
    """Put weights and, of a run that goes on, the optimizer's moments at `path` in one go. The
    first process writes, one tensor after another: memory holds one whole tensor at a time."""
    state = {f"weight/{name}": parameter.detach() for name, parameter in trained.items()}
    for name, parameter in trained.items():
        of_parameter = moments.get(parameter, {}).items()
        state |= {f"{key}/{name}": torch.as_tensor(m) for key, m in of_parameter}
    about = {"made_from": made_from, "losses": json.dumps(losses), "seconds": str(seconds)}
    if PartialState().is_main_process:
        with replaced(path) as temporary:
            write(state, temporary, about)
    else:
        for tensor in state.values():
            whole(tensor)


def write(state: dict[str, Tensor], path: Path, about: dict[str, str]) -> None:
    """A safetensors file: the length of its header, the header as JSON, the tensors' bytes."""
    header, end = {"__metadata__": about}, 0
    for key, tensor in state.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        shape, dtype = list(tensor.shape), DTYPES[tensor.dtype]
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in state.values():
            file.write(whole(tensor).cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def resume(path: Path, trained: dict, optimizer, made_from: str) -> tuple[list[float], float]:
    """(losses, seconds) so far, weights and moments restored; ([], 0) without a checkpoint of this
    very run."""
    if not path.is_file():
        return [], 0.0
    with safe_open(path, "pt") as saved:
        about, keys = saved.metadata(), set(saved.keys())
        if about["made_from"] != made_from:
            return [], 0.0
        for name, parameter in trained.items():
            parameter.data.copy_(divided(saved.get_tensor(f"weight/{name}"), parameter))
            for moment in MOMENTS if f"step/{name}" in keys else ():  # none of a finished run
                m = saved.get_tensor(f"{moment}/{name}")
                m = divided(m, parameter) if m.dim() else m.to(parameter.device)
                optimizer.state[parameter][moment] = m
    losses = json.loads(about["losses"])
    if losses and PartialState().is_main_process:
        print(f"resuming after step {len(losses)}", flush=True)
    return losses, float(about["seconds"])
