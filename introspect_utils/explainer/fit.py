"""The training loop of explainers, simulators and siblings: resumable, and checked as it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from introspect_utils.explainer import gates
from introspect_utils.explainer.checkpoints import checkpoint, resume, shard, whole
from introspect_utils.explainer.tuning import trainable
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training


@dataclass(frozen=True)
class Trained:
    """A finished training run. `losses` has one value a step; `checkpoint` is a folder for
    `Explainer.load`."""

    checkpoint: Path
    sha256: str
    losses: list[float]
    seconds: float
    trained_parameters: int


def fit(
    module: nn.Module,
    loss_of: Callable[[nn.Module, Any], Tensor],
    steps: Sequence,
    settings: Training,
    path: Path,
    made_from: str,
    seed: int,
    depends: dict[str, Sequence[tuple[Any, Any]]] | None = None,
) -> tuple[list[float], float]:
    """Train what of the module requires gradients, one step on `loss_of(module, item)` of each of
    `steps`: (losses, seconds). Goes on from the checkpoint at `path` if it was `made_from` the
    same.

    `depends`: what the loss should depend on -> pairs of items that differ in it alone. Raises
    `UserError` when it does not, a loss is not finite, or something else was trained than what was
    to be.
    """
    before = gates.sampled(module)
    loop = Loop(module, loss_of, settings, path)
    accelerator, weights = loop.accelerator, loop.weights
    losses, seconds = resume(path, weights, loop.optimizer, made_from)
    done, start = len(losses), time.monotonic() - seconds
    saved = time.monotonic()
    if done < len(steps):
        at = {"wandb": {"dir": str(path.parent)}}
        accelerator.init_trackers("introspect", init_kwargs=at)
    bar = {"desc": "training", "unit": "step", "mininterval": 10, "total": len(steps)}
    progress = tqdm(**bar, initial=done, disable=not accelerator.is_main_process)
    with in_training(module), progress, lean_autocast(module) if loop.lean else nullcontext():
        for item in steps[done:]:
            # dropout does not depend on where a run was resumed
            torch.manual_seed(seed * 1_000_003 + len(losses) + accelerator.process_index * 10**12)
            share = len(losses) / len(steps) if settings.schedule == "linear" else 0
            due = time.monotonic() - saved >= 60 * settings.checkpoint_minutes
            loss, due = loop.step(item, settings.learning_rate * (1 - share), due, len(losses) + 1)
            losses.append(loss)
            progress.update()
            progress.set_postfix(loss=f"{loss:.3f}")
            if len(losses) == done + 1:
                loop.check_depends(depends or {}, seed)
            if due and len(losses) < len(steps):
                elapsed = time.monotonic() - start
                checkpoint(path, weights, loop.optimizer.state, losses, elapsed, made_from)
                saved = time.monotonic()
    if steps and accelerator.num_processes == 1:  # the parent of several looks at what they trained
        gates.check_trained(module, before)
    if len(losses) > done:
        seconds = time.monotonic() - start
        checkpoint(path, weights, {}, losses, seconds, made_from)
    accelerator.end_training()
    return losses, seconds


class Loop:
    """One run's module as it is trained: under mixed precision, copied (DDP) or divided (FSDP)."""

    def __init__(
        self, module: nn.Module, loss_of: Callable, settings: Training, path: Path
    ) -> None:
        self.loss_of, self.settings = loss_of, settings
        device = next(iter(trainable(module).values())).device.type
        compute_dtype = choose_compute_dtype(settings.compute_dtype, device)
        in_bfloat16 = (compute_dtype, settings.weights) == ("bfloat16", "float32")
        # else a kernel could not train in another precision later
        AcceleratorState._reset_state(reset_partial_state=True)
        divide = settings.sharded and PartialState(cpu=device == "cpu").num_processes > 1
        model = next((part for part in module.modules() if isinstance(part, PreTrainedModel)), None)
        if settings.gradient_checkpointing and model is not None:
            model.activation_checkpointing_enable()
        logger, logging = settings.log_with, {}
        if logger != "none":
            if find_spec(logger) is None:
                raise UserError(
                    f"training.log_with is {logger}, which is not installed: pip install {logger}, "
                    "or set log_with: none"
                )
            logging = {"log_with": logger, "project_dir": str(path.parent)}
        mixed = "bf16" if in_bfloat16 and not divide else "no"
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=device == "cpu", **logging)
        self.lean = device == "cpu" and mixed == "bf16"
        if divide:
            shard(module, torch.bfloat16 if in_bfloat16 else None)
        self.wrapped = module if divide else self.accelerator.prepare(module)
        self.weights = trainable(module)  # with FSDP shares of them
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def loss(self, item: Any) -> Tensor:
        with self.accelerator.autocast():
            return self.loss_of(self.wrapped, item)

    def step(self, item: Any, rate: float, due: bool, number: int) -> tuple[float, bool]:
        """(loss, whether a checkpoint is due by the clock of the first process)."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(item)
        self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.weights.values(), self.settings.max_grad_norm)
        due = due and self.accelerator.is_main_process
        both = torch.stack([loss.detach().float(), loss.new_tensor(due, dtype=torch.float32)])
        (mean, due), norm = self.accelerator.reduce(both, "mean").tolist(), whole(norm).item()
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise UserError(
                f"the loss ({mean}) or its gradient ({norm}) is not finite at step {number}: "
                f"lower training.learning_rate ({self.settings.learning_rate})"
            )
        self.accelerator.log({"loss": mean, "gradient": norm}, step=number)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean, due > 0

    def check_depends(self, depends: dict[str, Sequence[tuple[Any, Any]]], seed: int) -> None:
        """The gates of dependence, in training mode. After the first step: before it the head of a
        simulator is zero."""

        def value(item: Any) -> float:
            torch.manual_seed(seed)  # the same dropout for both of a pair
            return self.accelerator.reduce(self.loss(item).float(), "mean").item()

        for what, pairs in depends.items():
            with torch.no_grad():
                gates.check_loss_depends(what, [(value(a), value(b)) for a, b in pairs])
            if pairs:
                self.accelerator.backward(self.loss(pairs[0][0]))
                gates.check_gradients(self.weights)
                self.optimizer.zero_grad()


@contextmanager
def in_training(module: nn.Module) -> Iterator[None]:
    """Within the context the module is in training mode, afterwards, whatever ended it, in that of
    evaluation: without dropout."""
    module.train()
    try:
        yield
    finally:
        module.eval()


@contextmanager
def lean_autocast(module: nn.Module) -> Iterator[None]:
    """For products in bfloat16 on a CPU: the numbers of autocast, without its overhead.

    Within the context the weights below adapters and the frozen head are in bfloat16 (autocast
    would round them anew at every step), adapters take their inputs as they come, and attention is
    two plain products, which on a CPU are faster than its fused kernel. Afterwards everything is as
    it was.
    """
    named = module.named_parameters()
    below = [w for name, w in named if "base_layer" in name and not w.requires_grad]
    kept = [(weight, weight.data) for weight in below]
    models = [part for part in module.modules() if isinstance(part, PreTrainedModel)][:1]
    attention = [(model, model.config._attn_implementation) for model in models]
    of_models = (model.get_output_embeddings() for model in models)
    heads = [(h, h.weight) for h in of_models if h is not None and not h.weight.requires_grad]
    try:
        for weight, data in kept:
            weight.data = data.to(torch.bfloat16)
        for head, weight in heads:  # a copy: the embeddings may be the same tensor
            head.weight = nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
        for model in models:
            model.set_attn_implementation("eager")
        with disable_input_dtype_casting(module):
            yield
    finally:
        for weight, data in kept:
            weight.data = data
        for head, weight in heads:
            head.weight = weight
        for model, implementation in attention:
            model.set_attn_implementation(implementation)
