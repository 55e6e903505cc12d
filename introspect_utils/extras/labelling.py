"""A person labels items in a notebook: one at a time, a button for each label, every label saved as
it is given."""

from __future__ import annotations

import html
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import replaced

if TYPE_CHECKING:
    from ipywidgets import VBox


class Labelling:
    """Items (anything that JSON can hold) and a person's labels so far.

    `labels` are those of the first `len(labels)` of `items`, and stand in the JSON file `path`; in a
    folder, in the file that belongs to these items. A subclass says what its `buttons` are called (label -> name), what several items are called
    (`noun`), and how an item is shown (`as_html`).

    Raises `UserError` when the file is damaged, or its labels belong to other items.
    """

    buttons: ClassVar[Mapping[Any, str]]
    noun: ClassVar[str]

    def __init__(self, items: Sequence, path: Path):
        if not path.suffix:
            path = path / f"labels-{zlib.crc32(repr(_as_json(items)).encode()):08x}.json"
        self.items, self.path = items, path
        self.labels: list = []
        if path.is_file():
            try:
                saved = [(row["item"], row["label"]) for row in json.loads(path.read_text("utf-8"))]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"the labels in {path} cannot be read ({error}): mend the file, or delete it"
                ) from error
            if [item for item, _ in saved] != _as_json(items[: len(saved)]):
                raise UserError(
                    f"the labels in {path} are of other {self.noun}: give them those that they "
                    "were made of, or another path"
                )
            self.labels = [label for _, label in saved]

    def label(self, label) -> None:
        """Give the next item its label, and save it."""
        self.labels.append(label)
        rows = [
            {"item": item, "label": given}
            for item, given in zip(_as_json(self.items), self.labels, strict=False)
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self.path) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")

    def as_html(self, number: int) -> str:
        """The item of that number, as HTML."""
        raise NotImplementedError

    def show(self) -> VBox:
        """The widget: the next item above its buttons. It goes on where the labels end."""
        import ipywidgets

        text, buttons = (
            ipywidgets.HTML(),
            {label: ipywidgets.Button(description=name) for label, name in self.buttons.items()},
        )

        def refresh() -> None:
            done, n = len(self.labels), len(self.items)
            text.value = f"{done} of {n} {self.noun} are labelled: {html.escape(str(self.path))}"
            if done < n:
                text.value += self.as_html(done)
            for button in buttons.values():
                button.disabled = done == n

        def on_click(label):
            def click(_button) -> None:
                self.label(label)
                refresh()

            return click

        for label, button in buttons.items():
            button.layout.width = "auto"
            button.on_click(on_click(label))
        refresh()
        return ipywidgets.VBox([text, ipywidgets.HBox(list(buttons.values()))])


def _as_json(items: Sequence) -> list:
    """The items as they are read back: tuples are lists."""
    return json.loads(json.dumps(items))
