"""Activation patching as questions to an explainer: the prompts of appendices C.1, D and F.2, and
their ablations (Table 2)."""

import random

import numpy as np
import torch

from introspect_utils.data.prompts import OPTIONS
from introspect_utils.tasks.conditions import controlled
from introspect_utils.tasks.outcome import ZERO_SHOT, explanation
from introspect_utils.tasks.question import VECTOR, Example, Question

# Appendix D. {feature}, {layer} and {token} are what the ablations of Table 2 take away.
TEMPLATES = (
    "If {feature}{at_layer} is added{to_tokens} when processing the text {text}, how would the "
    "output change?",
    "When {feature}{at_layer} is added{at_tokens} in the input {text}, what happens to the model's "
    "output?",
    "Consider the input text: {text}. If we steer{layer} towards {feature}{at_tokens},"
    " how does this affect the generated continuation?",
    "Given the text {text}, what would be the effect on the output if {feature}{at_layer} is "
    "added{to_tokens}?",
    "If we steer towards {feature}{at_layer}{and_tokens} when processing {text}, how would the "
    "model's response differ?",
)
UNTRAINED = (
    "If {feature}{at_layer} is inserted{into_token} when processing the text {text}, how would the "
    "output change?" + ZERO_SHOT
)
LOCATE = "Where did {feature} come from in {text}?"
LOCATE_ANSWER = "Token <<<{token}>>> at layers {layers}."


def layers_text(layers: list[int]) -> str:
    """A block as the authors write it: "0, 1, 2, ..., 7"."""
    return (
        ", ".join(map(str, layers))
        if len(layers) <= 4
        else f"{layers[0]}, {layers[1]}, {layers[2]}, ..., {layers[-1]}"
    )


def prompt(template: str, row: dict, condition: str = "full") -> str:
    """A template filled for a row, without the layer or the token if the condition takes it away."""
    layer = "" if condition == "no-layer" else f" layer {layers_text(row['layer'])}"
    token = "" if condition == "no-token" else f" <{row['patch_position']['orig_text_token']}>"
    return template.format(
        feature=f"feature {VECTOR}",
        layer=layer,
        at_layer=layer and f" at{layer}",
        to_tokens=token and f" to tokens{token}",
        at_tokens=token and f" at tokens{token}",
        and_tokens=token
        and f"{' and' if layer else ' at'} tokens{token}",  # "at layer 3 and tokens <x>"
        into_token=token and f" into token{token}",
        text=f"<<<{''.join(row['input_tokens'])}>>>",
    )


def statement(row: dict) -> str:
    """The fact that x states, without solved examples before it and answer options behind it."""
    return "".join(row["input_tokens"]).partition(OPTIONS.partition("{}")[0])[0].rpartition("\n")[2]


def question(row: dict, condition: str, template: str) -> Question:
    vector = np.asarray(row["patch_position"]["intervention_vector"], dtype=np.float32)
    return Question(prompt(template, row, condition), torch.from_numpy(vector), tuple(row["layer"]))


def examples(rows: list[dict], condition: str, seed: int) -> list[Example]:
    """Rows as training or test examples under a condition of Table 2, each with one of the
    templates drawn at random (eq. 6).

    `untrained` asks with the prompt of F.2, `locate` for the vector's layer and token (C.1), a
    control as `conditions.controlled` says.
    """
    rng = random.Random(seed)
    templates = {"untrained": (UNTRAINED,), "locate": (LOCATE,)}.get(condition, TEMPLATES)
    worded = [
        Example(question(row, condition, rng.choice(templates)), answer(row, condition))
        for row in rows
    ]
    return controlled(worded, condition, seed)


def answer(row: dict, condition: str = "full") -> str:
    if condition == "locate":
        return LOCATE_ANSWER.format(
            token=row["patch_position"]["orig_text_token"], layers=layers_text(row["layer"])
        )
    return explanation(row["is_different"], row["ablated_continuation"][0])
