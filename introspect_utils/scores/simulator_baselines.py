"""What a simulator is compared with: another description, plain word overlap, a constant."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.scores.simulator import Simulator
from introspect_utils.scores.simulator_scores import Scores, score, score_predictions


def shuffled(descriptions: Sequence[str], seed: int) -> list[str]:
    """The same descriptions in another order, each in place of a different text.

    (Unless one text is more than half of them.)
    """
    texts = sorted(set(descriptions))
    rank = {text: i for i, text in enumerate(random.Random(seed).sample(texts, len(texts)))}
    order = sorted(range(len(descriptions)), key=lambda i: rank[descriptions[i]])
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
    """Scores of the simulator and of three baselines on the same exemplars, by name.

    A constant correlates with nothing: its 0 is the rule of `pearson`.
    """
    overlap = word_overlap(simulator.lm.tokenizer, descriptions, exemplars, rows)
    others = shuffled(descriptions, seed)
    return {
        "description": score(simulator, descriptions, exemplars, rows, batch_size),
        "shuffled description": score(simulator, others, exemplars, rows, batch_size),
        "word overlap": score_predictions(overlap, exemplars, rows),
        "constant": score_predictions(torch.zeros_like(overlap), exemplars, rows),
    }
