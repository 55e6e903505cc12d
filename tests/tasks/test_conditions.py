from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.tasks.conditions import controlled, derangement
from introspect_utils.tasks.question import VECTOR, Example, Question

EXAMPLES = [
    Example(
        Question(f"What does feature {VECTOR} do to {i}?", torch.full((2,), i + 1.0), (i % 2,)), "E"
    )
    for i in range(6)
]


def test_the_controls_change_the_vector_and_nothing_else():
    for condition in ("zero-vector", "shuffled-vector"):
        made = controlled(EXAMPLES, condition, seed=0)
        for before, after in zip(EXAMPLES, made, strict=True):
            assert after.question.with_vector(before.question.vector) == before.question
            assert not torch.equal(after.question.vector, before.question.vector)
    assert all(
        not example.question.vector.any() for example in controlled(EXAMPLES, "zero-vector", 0)
    )
    for before, after in zip(EXAMPLES, controlled(EXAMPLES, "shuffled-vector", 0), strict=True):
        source = EXAMPLES[int(after.question.vector[0]) - 1].question
        assert source.layers == before.question.layers
    assert controlled(EXAMPLES, "full", 0) == EXAMPLES


def test_without_a_vector_the_text_is_about_a_feature():
    question = controlled(EXAMPLES, "no-vector", 0)[3].question
    assert (question.text, question.vector) == ("What does a feature do to 3?", None)


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=12), st.integers(0, 100))
def test_another_row_of_the_same_kind_where_there_is_one(kinds, seed):
    found, sizes = derangement(kinds, seed), Counter(kinds)
    assert sorted(found) == list(range(len(kinds)))
    assert all(other != row for row, other in enumerate(found))
    lonely = sum(size == 1 for size in sizes.values())
    strangers = sum(kinds[other] != kinds[row] for row, other in enumerate(found))
    assert strangers == (
        2 if lonely == 1 else lonely
    )  # a single one changes places with nobody of its kind
    assert found == derangement(kinds, seed)


def test_another_seed_shuffles_otherwise():
    assert derangement("a" * 30, 0) != derangement("a" * 30, 1)
