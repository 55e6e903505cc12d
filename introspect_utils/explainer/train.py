"""Training an explainer (eq. 1): LoRA or full fine-tuning with accelerate, resumable, checked
before it starts.

With several `processes`, `introspect_utils.explainer.processes` starts them, and each goes through
`fit` with its share of every batch.

The target stays fixed; what is trained is the explainer and, where there is one, the projection.
The simulator is trained with the same loop, `fit`.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import is_tensorboard_available, is_wandb_available
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from introspect_utils.explainer import gates, processes
from introspect_utils.explainer.bfloat16 import lean_autocast
from introspect_utils.explainer.checkpoints import RESUME, checkpoint, resume
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.published import is_published, published_folder
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training
from introspect_utils.tasks.question import Example

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BUCKET = 8  # batches whose rows are sorted by length together


@dataclass(frozen=True)
class Trained:
    """A finished training run. `losses` has one value a step; `checkpoint` is a folder for
    `Explainer.load`."""

    checkpoint: Path
    sha256: str
    losses: list[float]
    seconds: float
    trained_parameters: int


def add_lora(explainer: nn.Module, settings: Training, seed: int) -> None:
    """LoRA on all linear layers of the decoder. The projection (or the head) stays outside, so that
    it is trained in full."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=LINEAR,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    explainer.model = get_peft_model(explainer.lm.model, config)


def batches(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Row numbers of each step: every epoch shuffled by the seed, rows of like length together."""
    for epoch in range(epochs):
        rng = random.Random(f"{seed}-{epoch}")
        order = rng.sample(range(len(lengths)), len(lengths))
        for start in range(0, len(order), BUCKET * batch_size):
            bucket = sorted(order[start : start + BUCKET * batch_size], key=lambda i: lengths[i])
            steps = [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
            yield from rng.sample(steps, len(steps))


def in_file_order(n: int, batch_size: int, epochs: int) -> list[list[int]]:
    """Row numbers of each step where no epoch is shuffled, as in the authors' code."""
    return [
        list(range(start, min(start + batch_size, n))) for start in range(0, n, batch_size)
    ] * epochs


def train(
    explainer: Explainer,
    examples: Sequence[Example],
    settings: Training,
    folder: Path,
    seed: int = 0,
) -> Trained:
    """Fit the explainer to the examples and save it in `folder`; a run cut short goes on from its
    last checkpoint.

    A finished run, asked for again, is read back; a published explainer stays as it is. Raises
    `UserError` when the explainer has been trained before, the loss is not finite, or another of
    the `gates` fails.
    """
    if is_published(explainer.lm.name):
        return as_published(explainer, folder)
    if hasattr(explainer.model, "peft_config") or any(
        p.requires_grad for p in explainer.model.parameters()
    ):
        raise UserError(
            "this explainer has been trained before: make a new one (load_model, then Explainer) "
            "and train that"
        )
    gates.check_explanations(examples)
    rows = [
        (example.question, *explainer.encode(example.question, example.explanation))
        for example in examples
    ]
    (folder / RESUME).parent.mkdir(parents=True, exist_ok=True)
    explainer.fit_center([example.question for example in examples])
    if settings.processes > 1:
        processes.hand_over(explainer, rows, folder)
    make_trainable(explainer, settings, seed)
    explainer.longest_explanation = max(len(ids) - n_prompt for _, ids, n_prompt in rows)
    if settings.processes == 1:
        gates.check_memory(explainer, settings.batch_size * max(len(ids) for _, ids, _ in rows))
    batch = explainer.collate(rows[: settings.batch_size])
    gates.check_labels(batch)
    gates.check_vector_reaches_logits(explainer, batch)

    if settings.order == "file":
        steps = in_file_order(len(rows), settings.batch_size, settings.epochs)
    else:
        steps = list(
            batches([len(ids) for _, ids, _ in rows], settings.batch_size, settings.epochs, seed)
        )
    made_from = fingerprint(explainer, rows, settings, seed)
    if settings.processes > 1:
        processes.train(explainer, steps, settings, folder, made_from, seed)
    losses, seconds = fit(
        explainer, loss_of(rows, settings), steps, settings, folder / RESUME, made_from, seed
    )
    explainer.save(folder)
    gates.check_saved(explainer, folder)
    return Trained(
        folder,
        gates.file_sha256(folder),
        losses,
        seconds,
        sum(p.numel() for p in trainable(explainer).values()),
    )


def as_published(explainer: Explainer, folder: Path) -> Trained:
    """An explainer that its authors have trained: `folder` holds links to its files, by which a run
    knows what it tested."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in published_folder(explainer.lm.name).iterdir():
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path.resolve())
    return Trained(folder, gates.file_sha256(folder), [], 0.0, 0)


def make_trainable(explainer: Explainer, settings: Training, seed: int) -> None:
    """Adapters, or all weights, in float32 whatever the model is in (as released: in bfloat16)."""
    if settings.tuning == "lora":
        add_lora(explainer, settings, seed)
    else:
        explainer.model.float().requires_grad_(True)
    for weight in trainable(explainer.model).values():
        weight.data = weight.data.to(getattr(torch, settings.weights))


def loss_of(
    rows: Sequence[tuple], settings: Training, rank: int = 0, processes: int = 1
) -> Callable[[nn.Module, list[int]], Tensor]:
    """Eq. 1 of the chosen rows (question, ids, length of the prompt), as a function of the
    explainer and their numbers.

    Of several processes each takes every n-th row; the mean of their losses is that of all rows in
    one.
    """

    def tokens(chosen: list[int]) -> int:
        return sum(len(rows[i][1]) - rows[i][2] for i in chosen)

    def loss(explainer: nn.Module, chosen: list[int]) -> Tensor:
        mine = chosen[rank::processes]
        padded = len(chosen) * max(len(rows[i][1]) for i in chosen)
        share = tokens(mine) / (tokens(chosen) if settings.loss == "tokens" else padded)
        return explainer([rows[i] for i in mine or chosen[:1]]) * (
            share * processes
        )  # none is left out of a step

    return loss


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad
    }


def fit(
    module: nn.Module,
    loss_of: Callable[[nn.Module, Any], Tensor],
    steps: Sequence,
    settings: Training,
    path: Path,
    made_from: str,
    seed: int,
) -> tuple[list[float], float]:
    """Train what of the module requires gradients, one step on `loss_of(module, item)` of each of
    `steps`: (losses, seconds).

    Goes on from the checkpoint at `path` if it was `made_from` the same. Raises `UserError` when
    the loss is not finite, or something else was trained than what was to be.
    """
    weights, before = trainable(module), gates.sampled(module)
    optimizer = torch.optim.AdamW(
        weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    device = next(iter(weights.values())).device.type
    compute_dtype, on_cpu = choose_compute_dtype(settings.compute_dtype, device), device == "cpu"
    mixed = "bf16" if (compute_dtype, settings.weights) == ("bfloat16", "float32") else "no"
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # else a kernel could not train in another precision later
    model = next((part for part in module.modules() if isinstance(part, PreTrainedModel)), None)
    if settings.gradient_checkpointing and model is not None:
        model.gradient_checkpointing_enable()
    several = PartialState(cpu=on_cpu).num_processes > 1
    sharding = processes.sharding(module) if settings.sharded and several else None
    accelerator = Accelerator(
        mixed_precision=mixed, cpu=on_cpu, fsdp_plugin=sharding, **tracker(settings.log_with, path)
    )
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    weights = trainable(module)  # FSDP has put others in their place
    losses, seconds = resume(path, weights, optimizer, made_from)
    if len(losses) < len(steps):
        accelerator.init_trackers("introspect", init_kwargs={"wandb": {"dir": str(path.parent)}})

    module.train()
    start = time.monotonic() - seconds
    bar = {
        "desc": "training",
        "unit": "step",
        "mininterval": 10,
        "disable": not accelerator.is_main_process,
    }
    progress = tqdm(steps[len(losses) :], initial=len(losses), total=len(steps), **bar)
    with lean_autocast(module) if on_cpu and mixed == "bf16" else nullcontext():
        for item in progress:
            dropout = seed * 1_000_003 + len(losses)  # does not depend on where a run was resumed
            torch.manual_seed(dropout + accelerator.process_index * 10**12)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (
                    1 - len(losses) / len(steps) if settings.schedule == "linear" else 1
                )
            with accelerator.autocast():
                loss = loss_of(wrapped, item)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(weights.values(), settings.max_grad_norm)
            losses.append(accelerator.reduce(loss.detach(), "mean").item())
            if not (math.isfinite(losses[-1]) and math.isfinite(norm)):
                problem = f"the loss ({losses[-1]}) or its gradient ({norm}) is not finite at step {len(losses)}"
                raise UserError(
                    f"{problem}: lower training.learning_rate ({settings.learning_rate})"
                )
            accelerator.log({"loss": losses[-1], "gradient": float(norm)}, step=len(losses))
            optimizer.step()
            optimizer.zero_grad()
            progress.set_postfix(loss=f"{losses[-1]:.3f}")
            if len(losses) % settings.checkpoint_steps == 0 and len(losses) < len(steps):
                checkpoint(
                    path, weights, optimizer.state, losses, time.monotonic() - start, made_from
                )
    module.eval()
    if steps and not several:  # the process that started several looks at what they trained
        gates.check_trained(before)
    seconds = time.monotonic() - start
    checkpoint(path, weights, {}, losses, seconds, made_from)
    accelerator.end_training()
    return losses, seconds


def tracker(name: str, path: Path) -> dict[str, str]:
    """What `Accelerator` is given to log with: "none", "tensorboard" or "wandb", which lie beside
    the checkpoint at `path`.

    Raises `UserError` when the package is not installed.
    """
    if name == "none":
        return {}
    if not {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}[name]():
        raise UserError(
            f"training.log_with is {name}, which is not installed: pip install {name}, or set "
            "log_with: none"
        )
    return {"log_with": name, "project_dir": str(path.parent)}


def fingerprint(explainer: Explainer, rows: Sequence, settings: Training, seed: int) -> str:
    """What a checkpoint belongs to: the explainer as it was made, the rows' tokens and vectors, the
    settings and the seed."""
    settings = replace(
        settings, checkpoint_steps=1
    )  # how often checkpoints are written changes no result
    made = (
        explainer.lm.name,
        explainer.settings,
        explainer.layers,
        settings,
        seed,
        [ids for _, ids, _ in rows],
    )
    digest = hashlib.sha256(repr(made).encode())
    for question, _, _ in rows:
        if question.vector is not None:
            digest.update(
                repr(question.layers).encode() + question.vector.float().cpu().numpy().tobytes()
            )
    if explainer.projection is not None:
        digest.update(explainer.projection.weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
