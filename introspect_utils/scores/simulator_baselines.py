"""How good a simulator is on held-out directions: beside what a constant, another description or
plain word overlap achieve."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.scores.simulator import Scores, Simulator, score, score_predictions


def shuffled(descriptions: Sequence[str], seed: int) -> list[str]:
    """The same descriptions in another order, each in place of a different text (unless one text is
    more than half of them)."""
    texts = sorted(set(descriptions))
    rank = dict(zip(random.Random(seed).sample(texts, len(texts)), range(len(texts)), strict=True))
    order = sorted(
        range(len(descriptions)), key=lambda i: rank[descriptions[i]]
    )  # equal texts together
    step = max(Counter(descriptions).values())  # further than any run of equal texts is long
    other = list(descriptions)
    for place, i in enumerate(order):
        other[i] = descriptions[order[(place + step) % len(order)]]
    return other


def word_overlap(
    tokenizer: PreTrainedTokenizerBase,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
) -> Tensor:
    """Predictions [m, k, T]: 1 where a token, without spaces and capitals, is a word of the
    description, else 0."""
    tokens = exemplars.tokens[exemplars.take(rows).sequences]  # [m, k, T]
    vocabulary, index = tokens.unique(return_inverse=True)
    texts = [tokenizer.decode([token]).strip().lower() for token in vocabulary.tolist()]
    words = [set(re.findall(r"\w+", description.lower())) for description in descriptions]
    return torch.stack(
        [
            torch.tensor([text in own for text in texts])[i]
            for own, i in zip(words, index, strict=True)
        ]
    ).float()


def against_baselines(
    simulator: Simulator,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
    batch_size: int,
    seed: int = 0,
) -> dict[str, Scores]:
    """Scores of the simulator and of three baselines on the same exemplars of the same directions,
    by name.

    A constant correlates with nothing: its 0 is the rule of `pearson`.
    """
    overlap = word_overlap(simulator.lm.tokenizer, descriptions, exemplars, rows)
    return {
        "description": score(simulator, descriptions, exemplars, rows, batch_size),
        "shuffled description": score(
            simulator, shuffled(descriptions, seed), exemplars, rows, batch_size
        ),
        "word overlap": score_predictions(overlap, exemplars, rows),
        "constant": score_predictions(torch.zeros_like(overlap), exemplars, rows),
    }
