import random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from introspect_utils.tasks import TASKS, outcome
from introspect_utils.tasks.question import PROMPTS

# a next token: any text, which may hold one of the marks around it
CONTENT = st.one_of(
    st.sampled_from(
        [
            " Italy",
            "",
            " ",
            ">",
            ">>",
            "a>>>b",
            ">>>.",
            "<<<",
            "{}",
            "\n",
            " change to <<<x",
            "remain unchanged from",
        ]
    ),
    st.text(max_size=12),
).filter(lambda content: not (">>>" in content and "<<<" in content))


@given(
    st.booleans(),
    CONTENT.filter(lambda content: ">>>" not in content),
    st.text(alphabet="ab \n.", max_size=9),
    st.text(alphabet="ab \n.", max_size=9),
)
def test_an_explanation_is_read_back_as_it_was_meant(changed, content, before, after):
    assert outcome.parse(before + outcome.explanation(changed, content) + after) == (
        changed,
        content,
    )


@given(st.booleans(), CONTENT)
def test_whatever_the_content_an_explanation_alone_is_read_back(changed, content):
    assert outcome.parse(outcome.explanation(changed, content)) == (changed, content)


def test_explanations_are_worded_as_in_appendix_d():
    assert (
        outcome.explanation(True, " Italy")
        == "The most likely output would change to <<< Italy>>>."
    )
    assert (
        outcome.explanation(False, " France")
        == "The output would remain unchanged from <<< France>>>."
    )


def test_the_examples_shown_to_the_untrained_model_are_read():
    _, shown = PROMPTS["patching"]["untrained"][0].split("Example Outputs:\n")
    assert [outcome.parse(line) for line in shown.splitlines()] == [
        (False, "Paris"),
        (True, "doctor"),
        (False, "Apple"),
        (True, "unknown"),
    ]
    assert outcome.parse("The output would change to\n<<<unknown>>>") == (True, "unknown")


def test_the_first_outcome_counts():
    both = outcome.explanation(True, "a") + " " + outcome.explanation(False, "b")
    assert outcome.parse(both) == (True, "a")


@pytest.mark.parametrize(
    "generation",
    [
        "",
        "I cannot tell.",
        "The output would change to Paris.",
        "The output would change to <<<Paris",  # cut off
        "The output would change to <<<Paris>>.",
        "<<<Paris>>>",
        "The output would remain <<<Paris>>>.",
    ],
)
def test_what_is_no_outcome_is_unparseable(generation):
    assert outcome.parse(generation) == (None, "")


# --- scores

WORDS = st.sampled_from(["Rome", " Rome", "Paris", " Paris", "", " ", "\n", "\t", "rome"])
ANSWERS = st.one_of(
    st.tuples(st.booleans(), WORDS), st.sampled_from(["", "Rome", "The output would change to"])
)


@settings(max_examples=30)
@given(st.lists(st.tuples(ANSWERS, st.booleans(), WORDS), min_size=1, max_size=12))
def test_scores_against_counting_by_hand(rows):
    generations = [
        answer if isinstance(answer, str) else outcome.explanation(*answer) for answer, _, _ in rows
    ]
    truth, contents = [truth for _, truth, _ in rows], [content for _, _, content in rows]
    table = outcome.predictions(generations, truth, contents, "self", "full")
    assert len(table) == len(rows)
    for (answer, truth, content), line in zip(rows, table.to_dict("records"), strict=True):
        if isinstance(answer, str):
            assert pd.isna(line["predicted_changed"]) and line["predicted_content"] == ""
            assert not (line["has_changed"] or line["content_match"] or line["exact_match"])
        else:
            assert (line["predicted_changed"], line["predicted_content"]) == answer
            blank = not (answer[1].strip() or content.strip())  # blanks compare exactly
            same_content = answer[1] == content or (
                not blank and answer[1].strip() == content.strip()
            )
            assert line["has_changed"] == (answer[0] == truth)
            assert line["content_match"] == same_content
            assert line["exact_match"] == (answer[0] == truth and same_content)
    assert all(
        table[name].dtype == bool for name in ("has_changed", "content_match", "exact_match")
    )


def test_predictions_have_the_columns_of_the_file_and_survive_it(tmp_path):
    draw = random.Random(0)
    rows = [
        {
            "is_different": draw.random() < 0.5,
            "ablated_continuation": [" Rome"],
            "token_type": "Relation",
            "input_tokens": ["Rome", " is"],
            "counterfactual_text": "Oslo is",
            "subject": "Rome",
            "layer": [8, 9, 10, 11],
        }
        for _ in range(5)
    ]
    generations = [
        outcome.explanation(True, " Rome"),
        "what?",
        *[outcome.explanation(False, " Oslo")] * 3,
    ]
    table = TASKS["patching"].predictions(rows, generations, "self", "no-layer")
    assert set(table.columns) == set(TASKS["patching"].all_columns)
    assert set(table["pair"]) == {"Rome is | Oslo is"} and set(table["subject"]) == {"Rome"}
    assert table["row"].tolist() == [0, 1, 2, 3, 4] and set(table["block"]) == {"8-11"}
    assert (
        set(table["explainer"]) == {"self"}
        and set(table["condition"]) == {"no-layer"}
        and set(table["content"]) == {" Rome"}
    )
    table.to_parquet(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), table)


def test_rows_and_generations_must_match_in_number():
    with pytest.raises(ValueError, match="[Ll]ength"):
        outcome.predictions([outcome.explanation(True, "a")] * 2, [True], ["a"], "self", "full")
