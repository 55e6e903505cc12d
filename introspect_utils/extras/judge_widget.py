"""A.2's human validation of a judge, in a notebook: two pairs at a time, three buttons, every label
saved as it is given.

validation = Validation(pairs, path, n=100, seed=0) validation.show()
# the widget; goes on where the file of labels ends validation.agreement(load_judge("embedding"))
"""

from __future__ import annotations

import html
import random
from math import isnan
from collections.abc import Sequence
from pathlib import Path

from introspect_utils.extras.labelling import Labelling
from introspect_utils.scores.judge import Agreement, Judge, Pair, agreement
from introspect_utils.settings.errors import UserError

PREFERENCE = {1: 1, 2: -1, 0: 0}  # of a label, as `judge.agreement` takes it


class Validation(Labelling):
    """n comparisons of two (predicted, expected) pairs each, no pair in two of them, and a person's
    labels so far: 1, 2 or 0.

    The widget does not say what any judge thinks. Raises `UserError` when there are fewer than 2 n
    pairs, and as `Labelling`.
    """

    buttons = {
        1: "Prediction 1 is better",
        2: "Prediction 2 is better",
        0: "Both are equally good",
    }  # the labels of A.2
    noun = "comparisons"

    def __init__(self, pairs: Sequence[Pair], path: Path, n: int = 100, seed: int = 0):
        if len(pairs) < 2 * n:
            raise UserError(
                f"{n} comparisons need {2 * n} pairs, and there are {len(pairs)}: ask for at most "
                f"{len(pairs) // 2}"
            )
        drawn = random.Random(seed).sample(range(len(pairs)), 2 * n)
        super().__init__(
            [
                (tuple(pairs[i]), tuple(pairs[j]))
                for i, j in zip(drawn[::2], drawn[1::2], strict=True)
            ],
            path,
        )

    def agreement(self, judge: Judge) -> Agreement:
        """Of the labels given so far with the judge's ratings of the same pairs. Raises
        `ValueError` before the first label."""
        rated = judge.rate(
            [pair for comparison in self.items[: len(self.labels)] for pair in comparison]
        )
        differences = [one - two for one, two in zip(rated[::2], rated[1::2], strict=True)]
        both = [
            (PREFERENCE[label], difference)
            for label, difference in zip(self.labels, differences, strict=True)
            if not isnan(difference)  # a chat model may give no rating
        ]
        return agreement(*zip(*both, strict=True)) if both else agreement([], [])

    def as_html(self, number: int) -> str:
        """Comparison `number` as a table."""
        rows = "".join(
            f"<tr><td><b>{side}</b></td><td>{html.escape(predicted)}</td><td>{html.escape(expected)}</td></tr>"
            for side, (predicted, expected) in enumerate(self.items[number], 1)
        )
        return f"<table><tr><th></th><th>Predicted</th><th>Expected</th></tr>{rows}</table>"
