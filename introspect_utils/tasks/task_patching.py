"""Activation patching (sections 2.3 and 5.1) as a task: its questions in words (appendices C.1, D
and F.2), their ablations (Table 2), and how answers are read. `patching` has T_patch."""

from __future__ import annotations

import random

from introspect_utils.data.prompts import statement
from introspect_utils.tasks import outcome
from introspect_utils.tasks.conditions import CONTROLS, controlled
from introspect_utils.tasks.question import PROMPTS, Example, Question, in_form
from introspect_utils.tasks.task import Task

TEMPLATES = PROMPTS["patching"]["full"]


def layers_text(layers: list[int]) -> str:
    """A block, written out in full: "0, 1, 2, 3, 4, 5, 6, 7"."""
    return ", ".join(map(str, layers))


def prompt(template: str, row: dict, condition: str = "full") -> str:
    """A template filled for a row, without the layer or the token as the condition says."""
    layer = "" if condition == "no-layer" else f" layer {layers_text(row['layer'])}"
    token = "" if condition == "no-token" else f" <{row['patch_position']['orig_text_token']}>"
    return template.format(
        layer=layer,
        at_layer=layer and f" at{layer}",
        to_tokens=token and f" to tokens{token}",
        at_tokens=token and f" at tokens{token}",
        and_tokens=token and f" {'and' if layer else 'at'} tokens{token}",
        into_token=token and f" into token{token}",
        text=f"<<<{''.join(row['input_tokens'])}>>>",
    )


def question(row: dict, condition: str, template: str, form: str = "") -> Question:
    import torch

    vector = torch.as_tensor(row["patch_position"]["intervention_vector"], dtype=torch.float32)
    text = in_form(form, "patching", prompt(template, row, condition))
    return Question(text, vector, tuple(row["layer"]), prompt=form)


def examples(rows: list[dict], condition: str, seed: int, form: str = "") -> list[Example]:
    """Rows as training or test examples under a condition of Table 2, each with one of the
    templates drawn at random (eq. 6).

    `untrained` asks with the prompt of F.2, `locate` for the vector's layer and token (C.1), a
    control as `conditions.controlled` says.
    """
    rng, templates = random.Random(seed), PROMPTS["patching"].get(condition, TEMPLATES)
    worded = [
        Example(question(row, condition, rng.choice(templates), form), answer(row, condition))
        for row in rows
    ]
    return controlled(worded, condition, seed)


def answer(row: dict, condition: str = "full") -> str:
    if condition == "locate":
        token = row["patch_position"]["orig_text_token"]
        return f"Token <<<{token}>>> at layers {layers_text(row['layer'])}."
    return outcome.explanation(row["is_different"], row["ablated_continuation"][0])


def fact_pair(row: dict) -> str:
    """The facts x and x' of a row, which has other rows at other layers and tokens."""
    return f"{statement(''.join(row['input_tokens']))} | {statement(row['counterfactual_text'])}"


def cell(row: dict) -> tuple[str, tuple[int, ...]]:
    """(token type, block): all that a lookup knows of a row."""
    return row["token_type"] or "", tuple(row["layer"])


def read(profile, target, n_train, seed):
    from introspect_utils.tasks.rows import PATCHING, read_splits

    return read_splits(TASK.folder(profile, target), n_train, PATCHING)


def predictions(rows, generations, explainer, condition, score=None):
    changed = [row["is_different"] for row in rows]
    contents = [row["ablated_continuation"][0] for row in rows]
    table = outcome.predictions(generations, changed, contents, explainer, condition)
    if condition == "locate":  # right if layers and token are named exactly (C.1)
        table["content"] = [answer(row, condition) for row in rows]
        table["exact_match"] = table["generation"] == table["content"]
    return table.assign(
        token_type=[row["token_type"] for row in rows],
        block=[f"{row['layer'][0]}-{row['layer'][-1]}" for row in rows],
        pair=[fact_pair(row) for row in rows],
        subject=[row.get("subject") for row in rows],
        relation=[row.get("relation") for row in rows],
    )


TASK = Task(
    name="patching",
    title="Activation patching: what does an activation do to the output?",
    data="02_data_activation_patching",
    train="06_train_activation_patching",
    data_settings=(
        *("n_test", "facts", "known_only", "max_facts", "max_pairs"),
        *("demonstrations", "options", "blocks"),
    ),
    columns=outcome.COLUMNS
    | dict.fromkeys(("token_type", "block", "pair", "subject", "relation"), "string"),
    test_row=outcome.TEST_ROW,
    clusters=("pair", "subject", "relation"),
    metrics=outcome.METRICS,
    table="2",
    read=read,
    examples=examples,
    predictions=predictions,
    wrong=outcome.wrong,
    table_files=("table2", "table6"),
    controls=CONTROLS,
    published_row_bytes=4 * 4096,
    published_adapters=True,
)
