"""From rows to steps and their losses (eq. 1)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn

from introspect_utils.explainer.question_model import Row
from introspect_utils.settings.sections import Training

BUCKET = 8  # batches whose rows are sorted by length together
PROBED = 4  # rows of which the loss is compared with that for another vector


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
    """Row numbers of each step without shuffling, as in the authors' code."""
    once = [list(range(start, min(start + batch_size, n))) for start in range(0, n, batch_size)]
    return once * epochs


def loss_of(
    rows: Sequence[Row], settings: Training, rank: int = 0, processes: int = 1
) -> Callable[[nn.Module, list[int]], Tensor]:
    """Eq. 1 of the chosen rows, as a function of the explainer and their numbers. Of several
    processes each takes every n-th row, and the mean of their losses is that of all rows."""

    def tokens(chosen: list[int]) -> int:
        return sum(len(rows[i][1]) - rows[i][2] for i in chosen)

    def loss(explainer: nn.Module, chosen: list[int]) -> Tensor:
        mine = chosen[rank::processes]
        padded = len(chosen) * max(len(rows[i][1]) for i in chosen)
        share = tokens(mine) / (tokens(chosen) if settings.loss == "tokens" else padded)
        # a process without rows takes part with a weight of 0
        return explainer([rows[i] for i in mine or chosen[:1]]) * (share * processes)

    return loss


def with_other_vectors(rows: list[Row]) -> tuple[list[Row], list[tuple[list[int], list[int]]]]:
    """The rows and, behind them, copies of some with another vector, in no direction of the first
    and not zero; and the pairs of steps whose losses must differ."""
    asked = [i for i, (question, _, _) in enumerate(rows) if question.vector is not None][:PROBED]
    others = [
        (replace(question, vector=1 - question.vector), ids, n_prompt)
        for question, ids, n_prompt in (rows[i] for i in asked)
    ]
    return rows + others, [([i], [len(rows) + j]) for j, i in enumerate(asked)]
