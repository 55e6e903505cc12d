"""The checkpoint of a training run: weights and the optimizer's moments in one file, from which a
run cut short goes on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from accelerate.state import PartialState
from safetensors import safe_open
from safetensors.torch import save_file

from introspect_utils.explainer import processes
from introspect_utils.settings.paths import replaced

RESUME = Path("resume", "state.safetensors")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter


def checkpoint(
    path: Path, trainable: dict, moments: dict, losses: list[float], seconds: float, made_from: str
) -> None:
    """Weights and, of a run that goes on, the optimizer's moments: one file, put in place whole (by
    the first process)."""
    state = {
        f"weight/{name}": processes.whole(parameter.detach())
        for name, parameter in trainable.items()
    }
    for name, parameter in trainable.items():
        state |= {
            f"{key}/{name}": processes.whole(torch.as_tensor(m))
            for key, m in moments.get(parameter, {}).items()
        }
    if not PartialState().is_main_process:
        return
    with replaced(path) as temporary:
        save_file(
            state,
            temporary,
            {"made_from": made_from, "losses": json.dumps(losses), "seconds": str(seconds)},
        )


def own_checkpoint(path: Path, made_from: str) -> dict[str, str] | None:
    """What a checkpoint says of itself; None where there is none of this very run."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as saved:
        about = saved.metadata()
    return about if about["made_from"] == made_from else None


def resume(path: Path, trainable: dict, optimizer, made_from: str) -> tuple[list[float], float]:
    """(losses, seconds) so far, weights and moments restored; ([], 0) where there is no checkpoint
    of this very run."""
    about = own_checkpoint(path, made_from)
    if about is None:
        return [], 0.0
    with safe_open(path, "pt") as saved:
        names = set(saved.keys())
        for name, parameter in trainable.items():
            parameter.data.copy_(processes.spread(saved.get_tensor(f"weight/{name}"), parameter))
            moments = {
                key: saved.get_tensor(f"{key}/{name}")
                for key in MOMENTS
                if f"{key}/{name}" in names
            }
            if moments:  # a finished run has none
                spread = {
                    key: m if key == "step" else processes.spread(m, parameter)
                    for key, m in moments.items()
                }
                optimizer.state[parameter] = spread
    losses = json.loads(about["losses"])
    if losses and PartialState().is_main_process:
        print(f"resuming after step {len(losses)}", flush=True)
    return losses, float(about["seconds"])
