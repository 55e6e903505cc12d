"""Input ablation (sections 2.4 and 5.2) as a task: its questions in words (appendices D and F.3)
and how answers are read. `ablation` has T_input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from introspect_utils.data.mmlu import LETTERS
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import outcome
from introspect_utils.tasks.question import PROMPTS, Example, Question
from introspect_utils.tasks.task import Task

SYSTEM, ASK = PROMPTS["ablation"]["system"], PROMPTS["ablation"]["full"]
ANSWER = re.compile(r"\s*(?:Answer:)?\s*\(?([A-D])\)?\.?\s*")
LETTER = re.compile(r"\b(?!A\s+[a-z])[A-D]\b")  # "A teacher" has an article


def hint_letter(hint: str) -> str:
    """The letter that a hint names, however worded. Raises `UserError` for none or several."""
    letters = set(LETTER.findall(hint))
    if len(letters) != 1:
        raise UserError(
            f"the hint {hint!r} must name one of A, B, C, D, and names {sorted(letters) or 'none'}"
        )
    return letters.pop()


def answer_letter(text: str) -> str:
    """The letter of "Answer: B", "B" or "(B)"; "" of anything else."""
    letter = ANSWER.fullmatch(text)
    return letter[1] if letter else ""


def checked(rows: Iterable[dict], where: str) -> list[dict]:
    """Rows with the published columns, ours or theirs, as the rest of the code reads them: answers
    are bare letters, and what may be null is derived (`changed_pred_bc_hint`, `hint_letter`).

    Raises `UserError` naming the row for options that are not four, an answer outside A-D, a hint
    that names no letter, or columns that contradict each other.
    """
    return [_checked(row, f"{where}, row {number}") for number, row in enumerate(rows)]


def _checked(row: dict, where: str) -> dict:
    choices = row["choices"]
    if not (isinstance(choices, list) and [type(c) for c in choices] == [str] * 4):
        raise UserError(f"{where}: choices must be four texts, got {choices!r:.200}")
    letters = {}
    for key in ("zeroshot_prediction", "random_hint_prediction", "correct_answer"):
        letters[key] = answer_letter(str(row[key]))
        if not letters[key]:
            raise UserError(f"{where}: {key} must be A, B, C or D, got {row[key]!r}")
    changed = row["changed_pred_bc_hint"]
    found = letters["random_hint_prediction"] != letters["zeroshot_prediction"]
    if changed not in (None, found):
        raise UserError(
            f"{where}: changed_pred_bc_hint is {changed}, and the answers are "
            f"{letters['zeroshot_prediction']} without and {letters['random_hint_prediction']} "
            "with the hint"
        )
    hint, given = row["hint"], row.get("hint_letter")
    if given and given not in (re.findall(r"\b[A-D]\b", hint) or LETTERS):
        raise UserError(f"{where}: hint_letter is {given!r}, and the hint is {hint!r}")
    letters["hint_letter"] = given or hint_letter(hint)
    return {"subject": None} | row | letters | {"changed_pred_bc_hint": found}


def examples(rows: Sequence[dict], condition: str, seed: int = 0, form: str = "") -> list[Example]:
    """Rows as training or test examples (eq. 8); `untrained` asks with the prompt of F.3. These
    questions have no vector."""
    ask = PROMPTS["ablation"].get(condition, ASK)
    made = []
    for row in rows:
        text = f"{row['hint_user_prompt']}\n\n{ask}"
        question = Question(text, system=row["system_prompt"], prompt=form)
        made.append(Example(question, answer(row)))
    return made


def say(changed: bool, letter: str) -> str:
    """An explanation: whether the answer without the hint is another one, and which it is."""
    return outcome.explanation(changed, f"Answer: {letter}")


def answer(row: dict) -> str:
    return say(row["changed_pred_bc_hint"], row["zeroshot_prediction"])


def surface(row: dict) -> dict:
    """What a baseline sees of a row."""
    features = {"hint": row["hint_letter"], "length": len(row["hint_user_prompt"].split())}
    return features | ({"subject": row["subject"]} if row["subject"] else {})


def read(profile, target, n_train, seed):
    from introspect_utils.tasks.rows import ABLATION, read_splits

    rows = read_splits(TASK.folder(profile, target), n_train, ABLATION)
    return {split: checked(part, f"{split}.parquet") for split, part in rows.items()}


def predictions(rows, generations, explainer, condition, score=None):
    changed = [row["changed_pred_bc_hint"] for row in rows]
    letters = [row["zeroshot_prediction"] for row in rows]
    table = outcome.predictions(generations, changed, letters, explainer, condition, answer_letter)
    subjects, hints = [row["subject"] for row in rows], [row["hint_letter"] for row in rows]
    return table.assign(subject=subjects, hint=hints)


TASK = Task(
    name="ablation",
    title="Input ablation: does a part of the input matter?",
    data="03_data_input_ablation",
    train="07_train_input_ablation",
    data_settings=(
        *("n_test", "questions", "max_words", "excluded_subjects"),
        *("hints", "n_tried", "answer_prefix", "calibrated"),
    ),
    columns=outcome.COLUMNS | dict.fromkeys(("subject", "hint"), "string"),
    test_row=outcome.TEST_ROW,
    clusters=("subject",),
    metrics=outcome.METRICS,
    table="3",
    read=read,
    examples=examples,
    predictions=predictions,
    wrong=outcome.wrong,
    table_files=("table3", "table7"),
    row_tokens=256,
    published_row_bytes=1600,
)
