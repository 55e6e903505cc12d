"""Items labelled one at a time in a notebook, every label saved; A.2's comparisons."""

import html
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets
import numpy as np
import pandas as pd

from introspect_utils.models.chat import Endpoint, complete
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import replaced

ASK = """Two descriptions of features were predicted. Which is closer to what was expected?

Expected 1: {}
Prediction 1: {}

Expected 2: {}
Prediction 2: {}

Answer 1 (prediction 1 is better), 2 (prediction 2 is better) or 0 (both are equally good), and \
nothing else."""


def table_html(*rows: Sequence, head: Sequence[str] = ()) -> str:
    """Rows of cells as a table; a number has two digits."""
    html_rows = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    for row in rows:
        texts = [cell if isinstance(cell, str) else f"{cell:.2f}" for cell in row]
        html_rows += "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in texts) + "</tr>"
    return f"<table>{html_rows}</table>"


class Labelling:
    """Items (anything that JSON can hold) and the labels so far, those of the first items.

    They stand in a JSON file of `folder` whose name belongs to these very items, and to who labels
    them: `by` is "person" or a chat model. Subclasses say how buttons (label -> name), and several
    items (`noun`), are called, and how an item is shown. Raises `UserError` when the file is
    damaged.
    """

    buttons: ClassVar[Mapping[Any, str]]
    noun: ClassVar[str]

    def __init__(self, items: Sequence, folder: Path, by: str = "person"):
        self.items, self.by, self.labels = json.loads(json.dumps(items)), by, []
        number = zlib.crc32(json.dumps(self.items).encode())
        model = "" if by == "person" else "-" + by.replace("/", "--")
        self.path = folder / f"labels-{number:08x}{model}.json"
        if self.path.is_file():
            try:
                self.labels = [row["label"] for row in json.loads(self.path.read_text("utf-8"))]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"the labels in {self.path} cannot be read ({error}): mend the file, or delete "
                    "it"
                ) from error

    def label(self, *labels) -> None:
        """Give the next items their labels, and save them."""
        self.labels += labels
        pairs = zip(self.items, self.labels, strict=False)
        rows = [{"item": item, "label": label, "by": self.by} for item, label in pairs]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self.path) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")

    def as_html(self, number: int) -> str:
        """The item of that number."""
        raise NotImplementedError

    def show(self) -> ipywidgets.VBox:
        """The widget: the next item above its buttons. It goes on where the labels end."""
        text, labels = ipywidgets.HTML(), {name: label for label, name in self.buttons.items()}
        buttons = [ipywidgets.Button(description=name, layout={"width": "auto"}) for name in labels]

        def refresh() -> None:
            done, n = len(self.labels), len(self.items)
            text.value = f"{done} of {n} {self.noun} are labelled: {html.escape(str(self.path))}"
            text.value += self.as_html(done) if done < n else ""
            for button in buttons:
                button.disabled = done == n

        def click(button: ipywidgets.Button) -> None:
            self.label(labels[button.description])
            refresh()

        for button in buttons:
            button.on_click(click)
        refresh()
        return ipywidgets.VBox([text, ipywidgets.HBox(buttons)])


class Validation(Labelling):
    """A.2: `n` comparisons of two rated descriptions of an explainer, drawn at random, each once.

    `predictions`: those of the explainer, of which the rows with a judge's score are taken. An item
    is (expected 1, prediction 1, expected 2, prediction 2). What the judge thinks is not shown.
    """

    buttons = {1: "Prediction 1 is better", 2: "Prediction 2 is better", 0: "Both are equally good"}
    noun = "comparisons"

    def __init__(
        self, predictions: pd.DataFrame, folder: Path, n: int = 100, seed: int = 0, by="person"
    ):
        rated = predictions.dropna(subset="judge")
        drawn = rated.sample(2 * min(n, len(rated) // 2), random_state=seed)
        judged = drawn["judge"].to_numpy(dtype=float)
        self.differences = judged[::2] - judged[1::2]  # by how much prediction 1 is rated higher
        items = drawn[["gold", "generation"]].to_numpy().reshape(-1, 4).tolist()
        super().__init__(items, folder, by)

    def ask(self, endpoint: Endpoint) -> None:
        """A chat model labels what has no label yet. Raises what `chat.complete` raises."""
        asked = [ASK.format(*item) for item in self.items[len(self.labels) :]]
        answers = {"0": 0, "1": 1, "2": 2}
        self.label(*complete(asked, endpoint, lambda reply: answers.get(reply.strip(" .*\n"))))

    def agreement(self) -> dict:
        """The labels against the judge's scores, for a run's statistics: `agreement`, and who
        labelled. {} without a label."""
        preference = {1: 1, 2: -1, 0: 0}
        pairs = zip(self.labels, self.differences, strict=False)
        given = [(preference[label], d) for label, d in pairs if label is not None]
        return agreement(*zip(*given, strict=True)) | {"by": self.by} if given else {}

    def as_html(self, number: int) -> str:
        """Comparison `number` as a table."""
        item = self.items[number]
        rows = ("1", *item[:2]), ("2", *item[2:])
        return table_html(*rows, head=("", "Expected", "Prediction"))


def agreement(a: Sequence[float], b: Sequence[float]) -> dict:
    """A.2's shares of `n` comparisons in which two judges agree: by how much `a` and `b` each put
    prediction 1 above prediction 2 (a person, who gives no size: 1, -1 or 0).

    `exact`: the same sign. `weighted`: also .75 (.5) where one sees a tie and the other a
    difference of .25 (.5). `opposed`: opposite signs.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not len(a) or len(a) != len(b):
        raise ValueError(f"{len(a)} preferences against {len(b)}")
    exact, opposed = np.sign(a) == np.sign(b), a * b < 0
    size = np.maximum(np.abs(a), np.abs(b))
    near = ~exact & ~opposed & (size <= 0.5)  # one of the two is a tie
    shares = {"exact": exact, "weighted": np.where(near, 1 - size, exact), "opposed": opposed}
    return {name: float(share.mean()) for name, share in shares.items()} | {"n": len(a)}
