"""A.2's human validation of a judge, in a notebook: two pairs at a time, three buttons, every label saved as it is given.

validation = Validation(pairs, path, n=100, seed=0)
validation.show()                                     # the widget; goes on where the file of labels ends
validation.agreement(load_judge("embedding"))
"""

from __future__ import annotations

import html
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from introspect_utils.errors import UserError
from introspect_utils.judge import Agreement, Judge, Pair, agreement
from introspect_utils.paths import replaced

if TYPE_CHECKING:
    from ipywidgets import VBox

BUTTONS = {1: "Prediction 1 is better", 2: "Prediction 2 is better", 0: "Both are equally good"}  # the labels of A.2
PREFERENCE = {1: 1, 2: -1, 0: 0}  # of a label, as `judge.agreement` takes it


class Validation:
    """n comparisons of two (predicted, expected) pairs each, no pair in two of them, and a person's labels so far.

    `labels` are 1, 2 or 0 for the first `len(labels)` of `comparisons`, and stand in the JSON file `path`. Raises `UserError`
    when there are fewer than 2 n pairs, or when the labels in `path` belong to other comparisons.
    """

    def __init__(self, pairs: Sequence[Pair], path: Path, n: int = 100, seed: int = 0):
        if len(pairs) < 2 * n:
            raise UserError(f"{n} comparisons need {2 * n} pairs, and there are {len(pairs)}: ask for at most {len(pairs) // 2}")
        drawn = random.Random(seed).sample(range(len(pairs)), 2 * n)
        self.comparisons = [(tuple(pairs[i]), tuple(pairs[j])) for i, j in zip(drawn[::2], drawn[1::2], strict=True)]
        self.path = path
        self.labels: list[int] = []
        if path.is_file():
            saved = json.loads(path.read_text("utf-8"))
            if [row["comparison"] for row in saved] != _as_json(self.comparisons[: len(saved)]):
                raise UserError(f"the labels in {path} are of other comparisons: give them their pairs and seed, or another path")
            self.labels = [row["label"] for row in saved]

    def label(self, label: int) -> None:
        """Give the next comparison its label, and save it."""
        self.labels.append(label)
        named = zip(_as_json(self.comparisons), self.labels, strict=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self.path) as temporary:
            temporary.write_text(json.dumps([{"comparison": c, "label": given} for c, given in named], indent=1) + "\n", "utf-8")

    def agreement(self, judge: Judge) -> Agreement:
        """Of the labels given so far with the judge's ratings of the same pairs. Raises `ValueError` before the first label."""
        labelled = self.comparisons[: len(self.labels)]
        rated = judge.rate([pair for comparison in labelled for pair in comparison])
        differences = [one - two for one, two in zip(rated[::2], rated[1::2], strict=True)]
        return agreement([PREFERENCE[label] for label in self.labels], differences)

    def show(self) -> VBox:
        """The widget. It does not say what any judge thinks."""
        import ipywidgets

        text, buttons = ipywidgets.HTML(), {label: ipywidgets.Button(description=name) for label, name in BUTTONS.items()}

        def refresh() -> None:
            text.value = self._text()
            for button in buttons.values():
                button.disabled = len(self.labels) == len(self.comparisons)

        def on_click(label: int):
            def click(_button) -> None:
                self.label(label)
                refresh()

            return click

        for label, button in buttons.items():
            button.layout.width = "auto"
            button.on_click(on_click(label))
        refresh()
        return ipywidgets.VBox([text, ipywidgets.HBox(list(buttons.values()))])

    def _text(self) -> str:
        done, n = len(self.labels), len(self.comparisons)
        if done == n:
            return f"All {n} comparisons are labelled: {html.escape(str(self.path))}"
        rows = "".join(
            f"<tr><td><b>{number}</b></td><td>{html.escape(predicted)}</td><td>{html.escape(expected)}</td></tr>"
            for number, (predicted, expected) in enumerate(self.comparisons[done], 1)
        )
        return f"Comparison {done + 1} of {n}<table><tr><th></th><th>Predicted</th><th>Expected</th></tr>{rows}</table>"


def _as_json(comparisons) -> list[list[list[str]]]:
    return [[list(pair) for pair in comparison] for comparison in comparisons]
