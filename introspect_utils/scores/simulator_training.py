"""Training a simulator in the two stages of Choi et al. (2024), whose code was never released
(section 2.2, DESIGN.md).

Stage 1 pairs each direction with a random one of its candidate descriptions, stage 2 with the one
that the simulator of stage 1 scores highest. Only directions of the training split may be given to
either.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from introspect_utils.explainer.gates import file_sha256
from introspect_utils.explainer.train import Trained, add_lora, batches, fit, trainable
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.scores.simulator import VALUES, Simulator, score_candidates
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import Training


class Stage(NamedTuple):
    """What one stage is trained on: in each of its `steps`, `sequences` of every direction's
    exemplars, drawn anew."""

    exemplars: Exemplars  # of n directions
    candidates: Sequence[Sequence[str]]  # n, each with at least one description
    steps: int
    sequences: int


class Step(NamedTuple):
    """One step: the j-th description goes with the exemplars columns[j] of the direction
    rows[j]."""

    rows: list[int]  # [m]
    descriptions: list[str]  # [m]
    columns: list[list[int]]  # [m, sequences]


def train_simulator(
    simulator: Simulator,
    stages: tuple[Stage, Stage],
    settings: Training,
    folder: Path,
    seed: int = 0,
) -> Trained:
    """Fit an adapter and the head in both stages and save the simulator in `folder`; a run cut
    short goes on where it was.

    Of `settings`, `tuning` (LoRA, always) and `epochs` (a stage has steps) are not used;
    `batch_size` counts descriptions. The head's bias starts at the log-frequencies of the values,
    so the first prediction is the best constant. A finished run is read back. Raises `UserError`
    when the simulator has been trained before, a direction has no candidate or too few exemplars,
    or the loss is not finite.
    """
    if hasattr(simulator.model, "peft_config") or simulator.copies:
        raise UserError(
            "this simulator has been trained before: make a new one (Simulator) and train that"
        )
    for number, stage in enumerate(stages, 1):
        if not all(stage.candidates):
            raise UserError(
                f"stage {number} has a direction without a candidate description: leave it out"
            )
        if stage.sequences > stage.exemplars.sequences.shape[1]:
            raise UserError(
                f"stage {number} is to use {stage.sequences} sequences a direction: there are "
                "fewer exemplars"
            )
    first, second = stages
    simulator.compute_dtype = choose_compute_dtype(settings.compute_dtype, simulator.lm.device.type)
    counts = torch.bincount(first.exemplars.binned().flatten(), minlength=VALUES) + 1
    simulator.head.bias.data = (counts / counts.sum()).log().to(simulator.lm.device)
    add_lora(simulator, settings, seed)

    draw = random.Random(seed)
    chosen = [draw.choice(texts) for texts in first.candidates]
    losses, seconds, made_from = _fit(
        simulator, first, chosen, settings, folder / "resume" / "stage-1.safetensors", seed, ""
    )
    scores = score_candidates(
        simulator,
        second.candidates,
        second.exemplars.scoring(),
        folder / "resume" / "candidates.jsonl",
        settings.batch_size,
    )
    chosen = [
        texts[max(range(len(r)), key=r.__getitem__)]
        for texts, r in zip(second.candidates, scores, strict=True)
    ]
    more, more_seconds, _ = _fit(
        simulator,
        second,
        chosen,
        settings,
        folder / "resume" / "stage-2.safetensors",
        seed + 1,
        made_from,
    )
    simulator.save(folder)
    n_trained = sum(parameter.numel() for parameter in trainable(simulator).values())
    return Trained(folder, file_sha256(folder), losses + more, seconds + more_seconds, n_trained)


def _fit(
    simulator: Simulator,
    stage: Stage,
    chosen: Sequence[str],
    settings: Training,
    path: Path,
    seed: int,
    after: str,
) -> tuple[list[float], float, str]:
    """(losses, seconds, what the stage was made from); `after` is what the stage before was made
    from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exemplars, binned = stage.exemplars, stage.exemplars.binned()  # [n, k, T]
    steps = plan_steps(stage, chosen, settings.batch_size, seed)
    made = (
        after,
        simulator.lm.name,
        simulator.n_layers,
        replace(settings, checkpoint_steps=1),
        seed,
        steps,
    )
    made_from = hashlib.sha256(repr(made).encode())
    for part in (exemplars.tokens, exemplars.sequences, binned):
        made_from.update(part.numpy().tobytes())

    def loss(_: Simulator, step: Step) -> torch.Tensor:
        where = torch.tensor(step.rows)[:, None], torch.tensor(step.columns)
        return simulator.loss(
            step.descriptions, exemplars.tokens[exemplars.sequences[where]], binned[where]
        )

    losses, seconds = fit(simulator, loss, steps, settings, path, made_from.hexdigest(), seed)
    return losses, seconds, made_from.hexdigest()


def plan_steps(stage: Stage, chosen: Sequence[str], batch_size: int, seed: int) -> list[Step]:
    """The steps of a stage: epochs over its directions, descriptions of like length together."""
    draw, k = random.Random(seed), stage.exemplars.sequences.shape[1]
    epochs = math.ceil(stage.steps / math.ceil(len(chosen) / batch_size))
    rows_of_steps = islice(
        batches([len(text) for text in chosen], batch_size, epochs, seed), stage.steps
    )
    return [
        Step(
            rows,
            [chosen[row] for row in rows],
            [draw.sample(range(k), stage.sequences) for _ in rows],
        )
        for rows in rows_of_steps
    ]
