"""Input ablation as questions to an explainer: the prompts of appendices D and F.3, and how answers
are read (section 5.2)."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.outcome import explanation, score
from introspect_utils.tasks.question import Example, Question

ASK = "\n\nIf the hint were removed how would the assistant answer change?"

# F.3. Our copy of the paper ends with the first of the example outputs, so that is the one given.
ZERO_SHOT = """

Respond with exactly one of the two options below, and nothing else:

The output would remain unchanged from <<<Answer: X>>>.
The output would change to <<<Answer: X>>>.

Replace X with the answer letter (A, B, C, or D).
Do not include any explanations, reasoning, or extra text.

Example outputs:
The output would remain unchanged from <<<Answer: C>>>."""
ANSWER = re.compile(r"\s*(?:Answer:)?\s*\(?([A-D])\)?\.?\s*")


def hint_letter(hint: str) -> str:
    """The letter that a hint names: the last one in it, whatever its wording."""
    letters = re.findall(r"\b[A-D]\b", hint)
    if not letters:
        raise UserError(f"the hint {hint!r} names none of A, B, C, D")
    return letters[-1]


def answer_letter(text: str) -> str:
    """The letter of "Answer: B", "B" or "(B)"; "" of anything else."""
    found = ANSWER.fullmatch(text)
    return found[1] if found else ""


def checked(rows: Iterable[dict], where: str) -> list[dict]:
    """Rows with the published columns, ours or theirs, as the rest of the code reads them.

    Answers become bare letters, and `changed_pred_bc_hint`, null in a quarter of the published
    rows, is derived where it is. Raises `UserError` naming the row for options that are not four or
    an answer outside A-D.
    """
    return [_checked(row, f"{where}, row {number}") for number, row in enumerate(rows)]


def _checked(row: dict, where: str) -> dict:
    if not (
        isinstance(row["choices"], list)
        and len(row["choices"]) == 4
        and all(isinstance(c, str) for c in row["choices"])
    ):
        raise UserError(f"{where}: choices must be four texts, got {row['choices']!r:.200}")
    letters = {}
    for key in ("zeroshot_prediction", "random_hint_prediction", "correct_answer"):
        letters[key] = answer_letter(str(row[key]))
        if not letters[key]:
            raise UserError(f"{where}: {key} must be A, B, C or D, got {row[key]!r}")
    changed = row["changed_pred_bc_hint"]
    if changed is None:
        changed = letters["random_hint_prediction"] != letters["zeroshot_prediction"]
    return {"subject": None} | row | letters | {"changed_pred_bc_hint": changed}


def examples(rows: Sequence[dict], condition: str) -> list[Example]:
    """Rows as training or test examples (eq. 8); `untrained` asks with the prompt of F.3. These
    questions have no vector."""
    ask = ASK + ZERO_SHOT if condition == "untrained" else ASK
    return [
        Example(Question(row["hint_user_prompt"] + ask, system=row["system_prompt"]), answer(row))
        for row in rows
    ]


def answer(row: dict) -> str:
    return say(row["changed_pred_bc_hint"], row["zeroshot_prediction"])


def say(changed: bool, letter: str) -> str:
    """An explanation: whether the answer without the hint is another one, and which it is."""
    return explanation(changed, f"Answer: {letter}")


def surface(row: dict) -> dict:
    """What a baseline sees of a row."""
    features = {"hint": hint_letter(row["hint"]), "length": len(row["hint_user_prompt"].split())}
    return features | ({"subject": row["subject"]} if row["subject"] else {})


def predictions(
    rows: Sequence[dict], generations: list[str], explainer: str, condition: str
) -> pd.DataFrame:
    """The scored generations of one explainer and condition, with the columns of
    `predictions.parquet`. Content is a letter."""
    truth = [row["changed_pred_bc_hint"] for row in rows]
    table = score(generations, truth, [row["zeroshot_prediction"] for row in rows], answer_letter)
    return table.assign(
        row=range(len(rows)),
        explainer=explainer,
        condition=condition,
        subject=[row["subject"] for row in rows],
        hint=[hint_letter(row["hint"]) for row in rows],
    )
