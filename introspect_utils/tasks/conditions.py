"""The controls that take the vector v away from a question, for every task."""

import random
from collections.abc import Hashable, Sequence
from dataclasses import replace

from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.question import VECTOR, Example, Question

CONTROLS = ("zero-vector", "shuffled-vector")  # asked of an explainer that was trained with v


def controlled(
    examples: list[Example], condition: str, seed: int, kinds: Sequence[Hashable] | None = None
) -> list[Example]:
    """The examples with the vector that a condition gives them: zeros ("zero-vector"), that of
    another row of the same kind ("shuffled-vector"; kinds are the layers if not given), or none in
    vector and text ("no-vector"). Other conditions leave them as they are.

    Raises `UserError` if there is no other row whose vector could be taken.
    """
    questions = [example.question for example in examples]
    if condition == "zero-vector":
        questions = [question.with_vector(question.vector * 0) for question in questions]
    elif condition == "shuffled-vector":
        others = derangement(kinds or [question.layers for question in questions], seed)
        questions = [
            question.with_vector(questions[other].vector)
            for question, other in zip(questions, others, strict=True)
        ]
    elif condition == "no-vector":
        questions = [without_vector(question) for question in questions]
    return [replace(e, question=q) for e, q in zip(examples, questions, strict=True)]


def without_vector(question: Question) -> Question:
    """The question about "a feature" in place of the continuous token."""
    text = question.text.replace(f"feature {VECTOR}", VECTOR).replace(VECTOR, "a feature")
    return replace(question, text=text, vector=None)


def derangement(kinds: Sequence[Hashable], seed: int) -> list[int]:
    """A random permutation of the rows that leaves none in place and stays within each kind. The
    only rows of their kinds are permuted among themselves.

    Raises `UserError` for a single row.
    """
    of_kind: dict[Hashable, list[int]] = {}
    for row, kind in enumerate(kinds):
        of_kind.setdefault(kind, []).append(row)
    groups = [rows for rows in of_kind.values() if len(rows) > 1]
    alone = [rows[0] for rows in of_kind.values() if len(rows) == 1]
    if len(alone) > 1:
        groups.append(alone)
    elif alone and groups:
        groups[0] += alone
    elif alone:
        raise UserError(
            "shuffled-vector: a single row has no other row's vector to take; give at least two"
        )
    rng, taken = random.Random(seed), [0] * len(kinds)
    for rows in groups:
        rng.shuffle(rows)
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
            taken[row] = other
    return taken
