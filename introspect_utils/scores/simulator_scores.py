"""Simulator scores: the mean Pearson correlation between simulated and true activations (eq. 2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.scores.simulator import Simulator
from introspect_utils.settings.errors import UserError

CHUNK = 64  # batches of candidates scored between two lines of the file that keeps their scores


@dataclass(frozen=True, eq=False)
class Scores:
    """Of m descriptions, means over their exemplars, all [m]: Pearson's `r` (eq. 2) and `abs_r`, of
    its absolute value (the authors' code).

    `constant`: how many exemplars had a constant side, and count as 0 in both means.
    """

    r: Tensor
    abs_r: Tensor
    constant: Tensor


def pearson(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(r, constant), both [...], of a and b [..., T] along T: in float64; 0 and True where a side
    is constant.

    Raises `UserError` where a value is not finite.
    """
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UserError(
            "an activation, true or simulated, is not finite: set dtype: float32, and run the "
            "notebook that made it (01 or 04) again"
        )
    constant = (a.amax(-1) == a.amin(-1)) | (b.amax(-1) == b.amin(-1))
    a, b = (side.double() - side.double().mean(-1, keepdim=True) for side in (a, b))
    r = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return r.masked_fill(constant, 0).clip(-1, 1), constant


def score_predictions(predicted: Tensor, exemplars: Exemplars, rows: Sequence[int]) -> Scores:
    """Scores of any predictions [m, k, T]; the i-th is of direction rows[i]."""
    r, constant = pearson(predicted, exemplars.take(rows).activations)
    return Scores(r.mean(1), r.abs().mean(1), constant.sum(1))


def simulate(
    simulator: Simulator,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
    batch_size: int,
    progress: tqdm | None = None,
) -> Tensor:
    """Predictions [m, k, T] float32 of description i on the k exemplars of direction rows[i].

    `batch_size` descriptions at once, those of like length together.
    """
    sequences = exemplars.sequences[torch.as_tensor(rows, dtype=torch.int64)]  # [m, k]
    predicted = torch.empty(*sequences.shape, exemplars.tokens.shape[1])
    order = sorted(range(len(descriptions)), key=lambda i: len(descriptions[i]))
    with _progress(len(order)) if progress is None else nullcontext(progress) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            texts, tokens = [descriptions[i] for i in batch], exemplars.tokens[sequences[batch]]
            predicted[batch] = simulator.expected(texts, tokens).cpu()
            bar.update(len(batch))
    return predicted


def _progress(n: int, done: int = 0) -> tqdm:
    return tqdm(total=n, initial=done, desc="simulating", unit="description", mininterval=10)


def score(
    simulator: Simulator,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
    batch_size: int,
) -> Scores:
    """Eq. 2 of description i on all exemplars of direction rows[i] (mind `Exemplars.scoring`)."""
    predicted = simulate(simulator, descriptions, exemplars, rows, batch_size)
    return score_predictions(predicted, exemplars, rows)


def score_candidates(
    simulator: Simulator,
    candidates: Sequence[Sequence[str]],
    exemplars: Exemplars,
    path: Path,
    batch_size: int,
) -> list[list[float]]:
    """Eq. 2 of every candidate description of every direction, in the shape of `candidates`.

    The scores are written to `path` (JSON lines) as they come; a second call goes on from there.
    """
    pairs = [(row, text) for row, texts in enumerate(candidates) for text in texts]
    made_from = hashlib.sha256(repr((simulator.sha256(), batch_size, pairs)).encode())
    for part in (exemplars.tokens, exemplars.sequences, exemplars.activations):
        made_from.update(part.numpy().tobytes())
    header = json.dumps({"made_from": made_from.hexdigest()})
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []  # the last may be cut short
    done = lines[1:] if lines[:1] == [header] else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *done, ""]))
    scores = [r for line in done for r in json.loads(line)]
    with path.open("a") as file, _progress(len(pairs), len(scores)) as progress:
        while len(scores) < len(pairs):
            rows, texts = zip(*pairs[len(scores) : len(scores) + CHUNK * batch_size], strict=True)
            predicted = simulate(simulator, texts, exemplars, rows, batch_size, progress)
            r = score_predictions(predicted, exemplars, rows).r.tolist()
            file.write(json.dumps(r) + "\n")
            file.flush()
            scores += r
    ready = iter(scores)
    return [[next(ready) for _ in texts] for texts in candidates]
