"""A text whose tokens are buttons, and what can be said of the clicked one (notebook 13)."""

import html
import time

from ipywidgets import HTML, Button, HBox, Text, ToggleButtons, VBox

from introspect_utils.extras import ask
from introspect_utils.extras.ask import Models, Patched, Simulated
from introspect_utils.extras.labelling import table_html
from introspect_utils.report.figures import token_html
from introspect_utils.settings.errors import UserError


def simulated_html(description: str, tokens: list[str], found: Simulated) -> str:
    """The explanation over the text, shaded by the true activation, then by the simulated one."""
    both = (part[None].numpy() for part in (found.true, found.predicted))
    return token_html(description, [tokens], *both, found.r).data


def patched_html(found: Patched) -> str:
    """What the patch does to the answer, predicted against real."""
    none = "no explainer is trained: see notebooks/06_train_activation_patching.ipynb"
    first, last = found.block[0], found.block[-1]
    where = f"layer {first}" if first == last else f"layers {first} to {last}"
    verdict = {None: "", True: " (right)", False: " (wrong)"}[found.right]
    return table_html(
        (f"Patched into {found.token!r} at {where}", f"the answer was {found.before!r}"),
        ("Predicted", (found.predicted or none) + verdict),
        ("Real", found.real),
    )


def answer_html(models: Models, text: str, position: int, layer: int, into: str) -> str:
    """All that is asked of one token. Where the text cannot be patched into `into`, the reason
    stands in the last one's place."""
    v, tokens = ask.activations(models, text, layer)[position], ask.token_texts(models.target, text)
    said, of_zero = (ask.explanation(models, asked, layer) for asked in (v, 0 * v))
    others = [other for other in ask.likeliest(models, v, layer) if other != said]
    try:
        patch = patched_html(ask.patched(models, text, position, layer, into))
    except UserError as error:
        patch = f"<p>{html.escape(str(error))}</p>"
    echo = ask.echoes(said, tokens[position])
    note = " It names the token: this may be an echo." if echo else ""
    token, shown = html.escape(repr(tokens[position])), html.escape(said)
    head = f"<p>At layer {layer}, <b>{token}</b> encodes: <b>{shown}</b>.{note}</p>"
    head += table_html(("Also likely", "; ".join(others)), ("With a zero vector", of_zero))
    shaded = simulated_html(said, tokens, ask.simulated(models, text, v, layer, said))
    nearest = ask.nearest_features(models, v, layer)
    features = table_html(*nearest.itertuples(index=False), head=nearest.columns)
    return head + shaded + features + patch


def widget(models: Models, text: str, into: str, position: int, layer: int) -> VBox:
    """A text whose tokens are buttons, the layers, the text that the activation is patched into,
    and below the answer: first to what is given here, then to what is clicked."""
    wide = {"style": {"description_width": "7em"}, "layout": {"width": "95%"}}
    text_box = Text(text, description="Text", continuous_update=False, **wide)
    into_box = Text(into, description="Patched into", continuous_update=False, **wide)
    layers = [of_explainer for (of_explainer,) in models.explainer.layers]
    narrow = {"button_width": "4em"}
    layer_box = ToggleButtons(options=layers, value=layer, description="Layer", style=narrow)
    tokens, answer = HBox(layout={"flex_flow": "row wrap"}), HTML()

    def refresh(_change=None) -> None:
        for number, button in enumerate(tokens.children):
            button.button_style = "primary" if number == position else ""
        asked, start = (text_box.value, position, layer_box.value, into_box.value), time.monotonic()
        answer.value = "Asking ..."
        try:
            said = answer_html(models, *asked)
            answer.value = f"{said}<p>{time.monotonic() - start:.1f} s</p>"
        except UserError as error:
            answer.value = html.escape(str(error))
        except BaseException as error:  # a widget shows no traceback
            answer.value = html.escape(f"{type(error).__name__}: {error}")
            raise

    def click(button: Button) -> None:
        nonlocal position
        position = tokens.children.index(button)
        refresh()

    def spell(_change=None) -> None:
        nonlocal position
        shown = ask.token_texts(models.target, text_box.value)
        position = max(min(position, len(shown) - 1), 0)
        tokens.children = [Button(description=t, layout={"width": "auto"}) for t in shown]
        for button in tokens.children:
            button.on_click(click)
        refresh()

    spell()
    text_box.observe(spell, "value")
    for box in (into_box, layer_box):
        box.observe(refresh, "value")
    return VBox([text_box, tokens, layer_box, into_box, answer])
