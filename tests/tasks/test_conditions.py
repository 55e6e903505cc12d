from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.settings.errors import UserError
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


def shuffled(vectors, layers, seed):
    asked = [
        Example(Question(VECTOR, vector, (layer,)), "E")
        for vector, layer in zip(vectors, layers, strict=True)
    ]
    made = controlled(asked, "shuffled-vector", seed)
    return [example.question.vector for example in made]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.integers(0, 100))
def test_no_row_gets_its_own_vector_from_another_row(values, seed):
    """Vectors of one value differ by what a batch changes; those of two values do not."""
    draw = torch.Generator().manual_seed(seed)
    vectors = [torch.ones(8) * 10**v + 1e-6 * torch.randn(8, generator=draw) for v in values]
    layers = [i % 2 for i in range(len(values))]
    if max(Counter(values).values()) > len(values) / 2:
        with pytest.raises(UserError, match="too many rows have the same vector"):
            shuffled(vectors, layers, seed)
        return
    found = shuffled(vectors, layers, seed)
    given_values = [round(torch.log10(v.mean()).item()) for v in found]
    assert sorted(given_values) == sorted(values)
    assert all(a != b for a, b in zip(values, given_values, strict=True))


def test_rows_of_equal_vectors_take_those_of_their_own_layer_where_they_can():
    vectors = [torch.full((2,), float(v)) for v in (1, 1, 2, 2, 5, 6, 7)]
    layers = [0, 0, 0, 0, 1, 1, 1]
    for seed in range(30):
        found = [int(v[0]) for v in shuffled(vectors, layers, seed)]
        assert found[:4] == [2, 2, 1, 1] and sorted(found[4:]) == [5, 6, 7]


def test_another_seed_shuffles_otherwise():
    assert derangement("a" * 30, 0) != derangement("a" * 30, 1)
