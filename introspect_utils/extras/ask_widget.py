"""Notebook 13's widget: type a sentence, click a token and a layer, and read what can be said of
that activation.

AskWidget(models, "The capital of Italy is", into="The capital of France is", position=3,
layer=10).show()
"""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING

from introspect_utils.extras import ask
from introspect_utils.report.figures import token_html
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from ipywidgets import VBox

NO_PREDICTION = "no explainer of activation patching is trained: notebooks/06_train_activation_patching.ipynb trains one"


def neighbours_html(found: list[ask.Neighbour]) -> str:
    """The nearest training features as a table."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(description)}</td><td>{cosine:.2f}</td></tr>"
        for name, description, cosine in found
    )
    return f"<table><tr><th>Nearest training features</th><th>Description</th><th>Cosine</th></tr>{rows}</table>"


def simulated_html(description: str, tokens: list[str], found: ask.Simulated) -> str:
    """The explanation over the text, its tokens shaded by the true activation, then by the
    simulated one."""
    return token_html(
        description, [tokens], found.true[None].numpy(), found.predicted[None].numpy(), found.r
    ).data


def patched_html(found: ask.Patched) -> str:
    """What the patch does to the answer, predicted against real."""
    layers = (
        f"layers {found.block[0]} to {found.block[-1]}"
        if len(found.block) > 1
        else f"layer {found.block[0]}"
    )
    verdict = "" if found.right is None else " (right)" if found.right else " (wrong)"
    lines = {
        f"Patched into {found.token!r} at {layers}": f"the answer was {found.before!r}",
        "Predicted": (found.predicted or NO_PREDICTION) + verdict,
        "Real": found.real,
    }
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(said)}</td></tr>"
        for name, said in lines.items()
    )
    return f"<table>{rows}</table>"


def answer_html(models: ask.Models, text: str, position: int, layer: int, into: str) -> str:
    """All four of one token. Where the text cannot be patched into `into`, the reason stands in the
    last one's place."""
    v, tokens = ask.activation(models, text, position, layer), ask.token_texts(models.target, text)
    said = ask.explanation(models, v, layer)
    simulation = simulated_html(said, tokens, ask.simulated(models, text, v, layer, said))
    try:
        patch = patched_html(ask.patched(models, text, position, layer, into))
    except UserError as error:
        patch = f"<p>{html.escape(str(error))}</p>"
    head = f"<p>At layer {layer}, <b>{html.escape(repr(tokens[position]))}</b> encodes: <b>{html.escape(said)}</b></p>"
    return head + simulation + neighbours_html(ask.nearest_features(models, v, layer)) + patch


class AskWidget:
    """A text whose tokens are buttons, the layers, and the answer below; `into` is the text that
    the activation is patched into.

    `position` and `layer` are those asked of last; `seconds` is how long the last answer took.
    """

    def __init__(self, models: ask.Models, text: str, into: str, position: int, layer: int):
        self.models, self.text, self.into, self.position, self.layer = (
            models,
            text,
            into,
            position,
            layer,
        )
        self.seconds = 0.0

    def show(self) -> VBox:
        """The widget, with the answer to what it was made with."""
        import ipywidgets

        layers = [of_explainer for (of_explainer,) in self.models.explainer.layers]
        settings = {
            "continuous_update": False,
            "style": {"description_width": "7em"},
            "layout": {"width": "95%"},
        }
        text = ipywidgets.Text(self.text, description="Text", **settings)
        into = ipywidgets.Text(self.into, description="Patched into", **settings)
        layer = ipywidgets.ToggleButtons(
            options=layers, value=self.layer, description="Layer", style={"button_width": "4em"}
        )
        tokens = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        answer = ipywidgets.HTML()

        def refresh(_change=None) -> None:
            self.into, self.layer = into.value, layer.value
            for number, button in enumerate(tokens.children):
                button.button_style = "primary" if number == self.position else ""
            start = time.monotonic()
            try:
                answer.value = answer_html(
                    self.models, self.text, self.position, self.layer, self.into
                )
                self.seconds = time.monotonic() - start
                answer.value += f"<p>{self.seconds:.1f} s</p>"
            except UserError as error:
                answer.value = html.escape(str(error))

        def on_click(position: int):
            def click(_button) -> None:
                self.position = position
                refresh()

            return click

        def spell(_change=None) -> None:
            self.text = text.value
            shown = ask.token_texts(self.models.target, self.text)
            self.position = min(self.position, max(len(shown) - 1, 0))
            tokens.children = [
                ipywidgets.Button(description=token, layout={"width": "auto"}) for token in shown
            ]
            for position, button in enumerate(tokens.children):
                button.on_click(on_click(position))
            refresh()

        spell()
        text.observe(spell, "value")
        for widget in (into, layer):
            widget.observe(refresh, "value")
        return ipywidgets.VBox([text, tokens, layer, into, answer])
