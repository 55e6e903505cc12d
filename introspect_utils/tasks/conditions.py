"""Conditions that every task has: the controls that take the vector v away, and solved examples in
place of training."""

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from operator import eq

from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.question import VECTOR, Example, Question

CONTROLS = ("zero-vector", "shuffled-vector")  # asked of an explainer that was trained with v
ALIKE = 1e-3  # share of its norm by which a vector may differ when read in another batch
UNTRAINED = ("untrained", "few-shot")  # asked of a model without any explanation training


def controlled(
    examples: list[Example], condition: str, seed: int, kinds: Sequence[Hashable] | None = None
) -> list[Example]:
    """The examples with the vector that a condition gives them: zeros ("zero-vector"), that of
    another row of the same kind ("shuffled-vector"; kinds are the layers if not given), or none in
    vector and text ("no-vector"). Other conditions leave them as they are.

    Raises `UserError` if there is no other row whose vector could be taken: a row with the same
    vector is none.
    """
    questions = [example.question for example in examples]
    if condition == "zero-vector":
        questions = [question.with_vector(question.vector * 0) for question in questions]
    elif condition == "shuffled-vector":
        vectors = [question.vector for question in questions]

        def alike(a: int, b: int) -> bool:
            return bool((vectors[a] - vectors[b]).norm() <= ALIKE * vectors[a].norm())

        others = derangement(kinds or [question.layers for question in questions], seed, alike)
        questions = [q.with_vector(vectors[i]) for q, i in zip(questions, others, strict=True)]
    elif condition == "no-vector":
        questions = [without_vector(question) for question in questions]
    return [replace(e, question=q) for e, q in zip(examples, questions, strict=True)]


def without_vector(question: Question) -> Question:
    """The question about "a feature" in place of the continuous token."""
    text = question.text.replace(f"feature {VECTOR}", VECTOR).replace(VECTOR, "a feature")
    return replace(question, text=text, vector=None)


def few_shot(asked: list[Example], solved: list[Example]) -> list[Example]:
    """Test examples behind solved ones from the training rows, which are about "a feature": a
    question holds one continuous token. For a model without explanation training."""
    shown = "".join(f"{without_vector(e.question).text}\n{e.explanation}\n\n" for e in solved)
    return [replace(e, question=replace(e.question, text=shown + e.question.text)) for e in asked]


def derangement(
    kinds: Sequence[Hashable], seed: int, same: Callable[[int, int], bool] = eq
) -> list[int]:
    """A random permutation of the rows that gives none itself, or one that is the `same`, and stays
    within each kind if it can. The only rows of their kinds are permuted among themselves.

    Raises `UserError` for a single row, and where too many are the same.
    """
    of_kind = defaultdict(list)
    for row, kind in enumerate(kinds):
        of_kind[kind].append(row)
    groups = [rows for rows in of_kind.values() if len(rows) > 1]
    alone = [rows[0] for rows in of_kind.values() if len(rows) == 1]
    if len(alone) == 1 and not groups:
        raise UserError(
            "shuffled-vector: a single row has no other row's vector to take; give at least two"
        )
    if len(alone) == 1:
        groups[0] += alone
    elif alone:
        groups.append(alone)
    rng, taken = random.Random(seed), [0] * len(kinds)
    for rows in groups:
        rng.shuffle(rows)
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
            taken[row] = other
    for row, kind in enumerate(kinds):
        if not same(row, taken[row]):
            continue
        near = sorted(range(len(kinds)), key=lambda other: kinds[other] != kind)
        fits = (r for r in near if not (same(row, taken[r]) or same(r, taken[row])))
        if (other := next(fits, None)) is None:
            raise UserError(
                "shuffled-vector: too many rows have the same vector, so that no shuffling gives "
                "each another one; give rows with other vectors"
            )
        taken[row], taken[other] = taken[other], taken[row]
    return taken
