import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.scores.surface import lookup, majority, no_effect

OUTCOMES = st.tuples(st.booleans(), st.sampled_from(["x", "y", "z"]))
TRAIN = st.lists(st.tuples(st.sampled_from("ab"), OUTCOMES), min_size=1, max_size=15)


def slow_answer(outcomes):
    """The commonest has-changed and the commonest content with it; of equally common ones the first
    that occurs."""
    classes = [changed for changed, _ in outcomes]
    changed = max(classes, key=lambda value: (classes.count(value), -classes.index(value)))
    contents = [content for value, content in outcomes if value == changed]
    return changed, max(contents, key=lambda value: (contents.count(value), -contents.index(value)))


@given(TRAIN)
def test_lookup_against_counting(train):
    keys, outcomes = zip(*train, strict=True)
    expected = [
        slow_answer(
            [outcome for key, outcome in train if key == wanted] or list(outcomes)
        )  # an unseen key: all rows
        for wanted in ("a", "b", "never seen")
    ]
    assert lookup(keys, outcomes, ["a", "b", "never seen"]) == expected


@given(st.lists(OUTCOMES, min_size=1, max_size=15), st.integers(0, 4))
def test_majority_gives_one_answer_to_all(outcomes, n):
    assert majority(outcomes, n) == [slow_answer(outcomes)] * n


def test_the_content_is_the_commonest_of_the_predicted_class():
    outcomes = [
        (True, "a"),
        (True, "b"),
        (True, "b"),
        (False, "c"),
        (False, "c"),
    ]  # "c" is as common as "b", yet never with True
    assert majority(outcomes, 1) == [(True, "b")]


def test_keys_and_outcomes_must_match_in_number():
    with pytest.raises(ValueError, match="zip"):
        lookup(["a"], [(True, "x")] * 2, ["a"])


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("xyz")), min_size=1, max_size=9))
def test_no_effect_is_right_where_nothing_changes(answers):
    """Scored by hand: `answers` are (to the input as it is, to the changed input)."""
    plain, truth = zip(*answers, strict=True)
    rows = pd.DataFrame({"is_different": [a != b for a, b in answers], "explainer": "majority"})
    found = no_effect(rows)
    right = [said == true for said, true in zip(plain, truth, strict=True)]
    assert found["content_match"].tolist() == right == found["has_changed"].tolist()
    assert found["exact_match"].tolist() == right and not found["predicted_changed"].any()
    assert set(found["explainer"]) == {"no-effect"} and set(rows["explainer"]) == {"majority"}
