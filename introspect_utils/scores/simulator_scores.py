"""Simulator scores: the correlation of simulated and true activations (eq. 2), and baselines."""

import hashlib
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.scores.simulator import Simulator
from introspect_utils.settings.errors import UserError

CHUNK = 64  # batches of candidates scored between two lines of the file that keeps their scores


class Scores(NamedTuple):
    """Of m descriptions, all [m]: the means over exemplars of Pearson's r (eq. 2) and of |r| (the
    authors' code), and how many of them have a constant side, which count as 0 in both."""

    r: Tensor
    abs_r: Tensor
    constant: Tensor


def pearson(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(r, constant), both [...], of a and b [..., T] along T: 0 and True where a side is constant.
    Raises `UserError` where a value is not finite."""
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UserError("an activation, true or simulated, is not finite: set dtype: float32")
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
    quiet: bool = False,
) -> Tensor:
    """Predictions [m, k, T] float32 of description i on the k exemplars of direction rows[i]; those
    of like length together."""
    sequences = exemplars.sequences[torch.as_tensor(rows, dtype=torch.int64)]  # [m, k]
    predicted = torch.empty(*sequences.shape, exemplars.tokens.shape[1])
    order = sorted(range(len(descriptions)), key=lambda i: len(descriptions[i]))
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, "simulating", unit="batch", mininterval=10, disable=quiet):
        batch = order[start : start + batch_size]
        texts, tokens = [descriptions[i] for i in batch], exemplars.tokens[sequences[batch]]
        predicted[batch] = simulator.expected(texts, tokens).cpu()
    return predicted


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

    Scores are written to `path` (JSON lines) as they come; another call goes on from there."""
    pairs = [(row, text) for row, texts in enumerate(candidates) for text in texts]
    made = (simulator.base, simulator.sha256(), batch_size, pairs)
    made_from = hashlib.sha256(repr(made).encode())
    for part in (exemplars.tokens, exemplars.sequences, exemplars.activations):
        made_from.update(part.numpy())
    header = json.dumps({"made_from": made_from.hexdigest()})
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []  # the last may be cut short
    done = lines[1:] if lines[:1] == [header] else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *done, ""]))
    scores = [r for line in done for r in json.loads(line)]
    starts = range(len(scores), len(pairs), CHUNK * batch_size)
    with path.open("a") as file:
        for start in tqdm(starts, "candidates", unit="chunk", mininterval=10):
            rows, texts = zip(*pairs[start : start + CHUNK * batch_size], strict=True)
            predicted = simulate(simulator, texts, exemplars, rows, batch_size, quiet=True)
            r = score_predictions(predicted, exemplars, rows).r.tolist()
            print(json.dumps(r), file=file, flush=True)
            scores += r
    ready = iter(scores)
    return [[next(ready) for _ in texts] for texts in candidates]


def shuffled(descriptions: Sequence[str], seed: int) -> list[str]:
    """For each description another one of them, drawn at random; itself where all are equal."""
    texts, draw = sorted(set(descriptions)), random.Random(seed)
    return [draw.choice([t for t in texts if t != own] or texts) for own in descriptions]


def word_overlap(
    tokenizer: PreTrainedTokenizerBase,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
) -> Tensor:
    """Predictions [m, k, T]: 1 where a token, stripped and in lower case, is a word of the text."""
    tokens = exemplars.tokens[exemplars.take(rows).sequences]  # [m, k, T]
    vocabulary, index = tokens.unique(return_inverse=True)
    texts = [tokenizer.decode([token]).strip().lower() for token in vocabulary.tolist()]
    words = [set(re.findall(r"\w+", description.lower())) for description in descriptions]
    overlaps = torch.tensor([[text in of_one for text in texts] for of_one in words]).float()
    return torch.stack([row[i] for row, i in zip(overlaps, index, strict=True)])


def against_baselines(
    simulator: Simulator,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
    batch_size: int,
    seed: int = 0,
) -> dict[str, Scores]:
    """Scores of the simulator and of three baselines on the same exemplars, by name."""
    overlap = word_overlap(simulator.lm.tokenizer, descriptions, exemplars, rows)
    others = shuffled(descriptions, seed)
    return {
        "description": score(simulator, descriptions, exemplars, rows, batch_size),
        "shuffled description": score(simulator, others, exemplars, rows, batch_size),
        "word overlap": score_predictions(overlap, exemplars, rows),
        "constant": score_predictions(torch.zeros_like(overlap), exemplars, rows),
    }
