"""The checkpoint of a training run: weights and the optimizer's moments in one safetensors file,
from which an interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from accelerate.state import PartialState
from safetensors import safe_open

from introspect_utils.explainer.sharding import divided, whole
from introspect_utils.settings.paths import replaced

RESUME = Path("resume", "state.safetensors")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


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


def write(state: dict[str, torch.Tensor], path: Path, about: dict[str, str]) -> None:
    """A safetensors file: the length of its header, the header as JSON, the tensors' bytes."""
    header, end = {"__metadata__": about}, 0
    for key, tensor in state.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        of_key = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape)}
        header[key] = of_key | {"data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in state.values():
            file.write(whole(tensor).cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def own_checkpoint(path: Path, made_from: str) -> dict[str, str] | None:
    """What the checkpoint of this very run says of itself; None without one."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as saved:
        about = saved.metadata()
    return about if about["made_from"] == made_from else None


def resume(path: Path, trained: dict, optimizer, made_from: str) -> tuple[list[float], float]:
    """(losses, seconds) so far, weights and moments restored; ([], 0) without a checkpoint of this
    very run."""
    about = own_checkpoint(path, made_from)
    if about is None:
        return [], 0.0
    with safe_open(path, "pt") as saved:
        keys = set(saved.keys())
        for name, parameter in trained.items():
            parameter.data.copy_(divided(saved.get_tensor(f"weight/{name}"), parameter))
            of_parameter = {key: f"{key}/{name}" for key in MOMENTS if f"{key}/{name}" in keys}
            for key, saved_key in of_parameter.items():  # none of a finished run
                m = saved.get_tensor(saved_key)
                m = divided(m, parameter) if m.dim() else m.to(parameter.device)
                optimizer.state[parameter][key] = m
    losses = json.loads(about["losses"])
    if losses and PartialState().is_main_process:
        print(f"resuming after step {len(losses)}", flush=True)
    return losses, float(about["seconds"])
