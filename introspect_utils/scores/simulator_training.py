"""Training a simulator in the two stages of Choi et al. (2024), whose code is not public (2.2).

Stage 1 pairs each direction with a random candidate description, stage 2 with the one that the
simulator of stage 1 scores highest. Give either only directions of the training split.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from introspect_utils.explainer.fit import Trained, fit
from introspect_utils.explainer.gates import file_sha256
from introspect_utils.explainer.tuning import add_lora, batches, trainable
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.scores.simulator import VALUES, Simulator
from introspect_utils.scores.simulator_scores import score_candidates
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training


class Stage(NamedTuple):
    """One stage's training data: each step draws `sequences` of a direction's exemplars anew."""

    exemplars: Exemplars  # of n directions
    candidates: Sequence[Sequence[str]]  # n, each with at least one description
    steps: int
    sequences: int


def train_simulator(
    simulator: Simulator, stages: tuple[Stage, Stage], settings: Training, folder: Path, seed: int
) -> Trained:
    """Fit a LoRA and the head in both stages and save the simulator in `folder`. A run that was
    interrupted goes on, a finished one is read back.

    `batch_size` counts descriptions. The head's bias starts as the best constant. Raises
    `UserError` when the simulator has been trained before, a direction lacks candidates or
    exemplars, or the loss is not finite.
    """
    if hasattr(simulator.model, "peft_config") or simulator.copies:
        raise UserError("this simulator has been trained before: train a new one (Simulator)")
    for number, stage in enumerate(stages, 1):
        if not all(stage.candidates):
            raise UserError(f"stage {number}: a direction has no candidate description")
        if stage.sequences > (k := stage.exemplars.sequences.shape[1]):
            raise UserError(f"stage {number}: {k} exemplars a direction, not {stage.sequences}")
    first, second = stages
    simulator.compute_dtype = choose_compute_dtype(settings.compute_dtype, simulator.lm.device.type)
    counts = torch.bincount(first.exemplars.binned().flatten(), minlength=VALUES) + 1
    simulator.head.bias.data = (counts / counts.sum()).log().to(simulator.lm.device)
    add_lora(simulator, settings, seed)

    draw, resume = random.Random(seed), folder / "resume"
    chosen = [draw.choice(texts) for texts in first.candidates]
    path = resume / "stage-1.safetensors"
    losses, seconds, made_from = _fit(simulator, first, chosen, settings, path, seed, "")
    scoring, path = second.exemplars.scoring(), resume / "candidates.jsonl"
    scores = score_candidates(simulator, second.candidates, scoring, path, settings.batch_size)
    chosen = [texts[r.index(max(r))] for texts, r in zip(second.candidates, scores, strict=True)]
    path = resume / "stage-2.safetensors"
    more, seconds_2, _ = _fit(simulator, second, chosen, settings, path, seed + 1, made_from)
    simulator.save(folder)
    n_trained = sum(parameter.numel() for parameter in trainable(simulator).values())
    return Trained(folder, file_sha256(folder), losses + more, seconds + seconds_2, n_trained)


def _fit(
    simulator: Simulator,
    stage: Stage,
    chosen: Sequence[str],
    settings: Training,
    path: Path,
    seed: int,
    after: str,
) -> tuple[list[float], float, str]:
    """(losses, seconds, fingerprint) of a stage; `after` is the fingerprint of the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exemplars, binned = stage.exemplars, stage.exemplars.binned()  # [n, k, T]
    steps = plan_steps(stage, chosen, settings.batch_size, seed)
    steps = [(rows, columns, [chosen[row] for row in rows]) for rows, columns in steps]
    made = (after, simulator.base, simulator.n_layers, simulator.compute_dtype)
    made_from = hashlib.sha256(repr((*made, settings, seed, steps)).encode())
    for part in (exemplars.tokens, exemplars.sequences, binned):
        made_from.update(part.numpy())

    def loss(_: Simulator, step: tuple) -> torch.Tensor:
        rows, columns, descriptions = step
        where = torch.tensor(rows)[:, None], torch.tensor(columns)
        tokens = exemplars.tokens[exemplars.sequences[where]]
        return simulator.loss(descriptions, tokens, binned[where])

    rows, columns, _ = steps[0]
    pair = tuple((rows[:1], columns[:1], [text]) for text in ("the digit 1", "the digit 2"))
    depends = {"the description": [pair]}
    digest = made_from.hexdigest()
    losses, seconds = fit(simulator, loss, steps, settings, path, digest, seed, depends)
    return losses, seconds, digest


def plan_steps(stage: Stage, chosen: Sequence[str], batch_size: int, seed: int) -> list[tuple]:
    """The steps of a stage, each rows [m] of its directions and columns [m, sequences] of their
    exemplars: epochs over the directions, descriptions of like length together."""
    draw, k = random.Random(seed), stage.exemplars.sequences.shape[1]
    epochs = math.ceil(stage.steps / math.ceil(len(chosen) / batch_size))
    steps = batches([len(text) for text in chosen], batch_size, epochs, seed)
    return [
        (rows, [draw.sample(range(k), stage.sequences) for _ in rows])
        for rows in islice(steps, stage.steps)
    ]
