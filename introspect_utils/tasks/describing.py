"""Feature descriptions as questions to an explainer: prompts of appendix D, T_feat (eq. 2),
controls, and B.4's token match."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from introspect_utils.data.splits import check_disjoint
from introspect_utils.models.tokens import token_ids
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.conditions import controlled
from introspect_utils.tasks.question import VECTOR, Example, Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from introspect_utils.features.directions import Directions

# Appendix D. {opening} and {at_layer} are what B.4 takes away.
TEMPLATES = (
    f"{{opening}}{VECTOR} encodes",
    f"{VECTOR} activates{{at_layer}} for",
    f"We can describe {VECTOR}{{at_layer}} as encoding",
    f"Generate a description of this feature{{at_layer}}: {VECTOR}.",
    f"What does {VECTOR} mean{{at_layer}}?",
    f"{VECTOR} activates{{at_layer}} for inputs with the following features:",
)


def prompt(template: str, layer: int | None) -> str:
    """A template filled with the number of a layer, or with the layer left out."""
    if layer is None:
        return template.format(opening="", at_layer="")
    return template.format(opening=f"At layer {layer}, ", at_layer=f" at layer {layer}")


def examples(
    directions: Directions, descriptions: Sequence[str], condition: str, seed: int
) -> list[Example]:
    """Directions with their descriptions ("" where there is none) as training or test examples (eq.
    3).

    Row i has the same template, drawn at random, under every condition. The conditions after `full`
    are controls for a trained explainer: no vector (zero); that of another row; no layer in the
    text (B.4); the number of another of the layers in the text (B.4). The question's `layers`,
    which choose the projection, are always the true ones.

    Raises `UserError` where there is no other row, or no other layer.
    """
    templates = random.Random(seed).choices(TEMPLATES, k=len(directions))
    named = list(directions.layers)
    if condition == "no-layer":
        named = [None] * len(named)
    elif condition == "wrong-layer":
        named = other_layers(named, seed)
    worded = [
        Example(Question(prompt(template, name), vector, (layer,)), description)
        for template, name, vector, layer, description in zip(
            templates, named, directions.vectors, directions.layers, descriptions, strict=True
        )
    ]
    kinds = list(zip(directions.data, directions.layers, strict=True))
    return controlled(worded, condition, seed, kinds)


def other_layers(layers: Sequence[int], seed: int) -> list[int]:
    """For each row a layer that is not its own, at random among those that occur, so that the
    explainer knows the number."""
    occurring, rng = sorted(set(layers)), random.Random(seed)
    if len(occurring) == 1:
        raise UserError(
            f"wrong-layer: all directions are of layer {occurring[0]}, so there is no other layer "
            "to name"
        )
    return [rng.choice([other for other in occurring if other != layer]) for layer in layers]


def split(
    directions: Directions, gold: Mapping[str, str], n_train: int, seed: int
) -> dict[str, list[int]]:
    """Numbers of the directions to train on, `n_train` at random of those with a description, and
    of all test rows.

    A test SAE feature without a gold description is left out. Raises `UserError` where too few have
    one, there is nothing to test on, or a direction is in both parts.
    """
    described = [i for i in directions.where(split="train") if directions.names[i] in gold]
    if len(described) < n_train:
        raise UserError(
            f"{n_train} training directions are asked for and {len(described)} are described: "
            "lower features.sizes"
        )
    test = [
        i
        for i in directions.where(split="test")
        if directions.data[i] != "sae" or directions.names[i] in gold
    ]
    if not test:
        raise UserError("there are no test directions: raise features.n_test or n_act")
    rows = {"train": random.Random(seed).sample(described, n_train), "test": test}
    keys = (
        [(directions.layers[i], directions.vectors[i].numpy().tobytes()) for i in part]
        for part in rows.values()
    )
    check_disjoint(*keys, "direction", "directions.safetensors")
    return rows


def description(generation: str) -> str:
    """The description in a generation: its first line, without full stops and spaces at the end."""
    return re.sub(r"[\s.]+$", "", generation.strip().splitlines()[0]) if generation.strip() else ""


def t_feat(
    candidates: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]
) -> list[tuple[str, float]]:
    """T_feat (eq. 2): of each direction's candidate descriptions the one of the highest score, the
    first of equal ones.

    Raises `UserError` naming a direction without candidates.
    """
    for number, texts in enumerate(candidates):
        if not texts:
            raise UserError(
                f"T_feat: direction {number} has no candidate description; leave it out"
            )
    pairs = (
        zip(texts, values, strict=True) for texts, values in zip(candidates, scores, strict=True)
    )
    return [max(of_direction, key=lambda pair: pair[1]) for of_direction in pairs]


def most_frequent(descriptions: Sequence[str]) -> str:
    """The commonest of the training descriptions, the first of equally common ones: the floor of
    what sees nothing."""
    return Counter(descriptions).most_common(1)[0][0]


def token_match(tokenizer: PreTrainedTokenizerBase, a: str, b: str, n: int = 10) -> float:
    """B.4: the share of the first `n` token positions at which two generations agree.

    Positions that only one of them reaches are disagreements, those that neither reaches do not
    count: 1 for equal texts.
    """
    first, second = (token_ids(tokenizer, text)[:n] for text in (a, b))
    length = max(len(first), len(second))
    return sum(x == y for x, y in zip(first, second, strict=False)) / length if length else 1.0
