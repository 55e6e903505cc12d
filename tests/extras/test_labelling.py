"""A.2's human validation: which predictions are compared, what a click saves, and how labels agree
with the judge."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ChatServer

from introspect_utils.extras.labelling import Validation, agreement
from introspect_utils.models.chat import Endpoint
from introspect_utils.settings.errors import UserError

STEPS = (0, 0.25, 0.5, 0.75, 1)
PREDICTIONS = pd.DataFrame(
    {
        "gold": [f"expected <{i}>" if i < 12 else "" for i in range(15)],
        "generation": [f"predicted <{i}>" for i in range(15)],
        "judge": [STEPS[i % 5] if i < 12 else None for i in range(15)],
    }
)


def judge_of(text):
    return PREDICTIONS.set_index("generation")["judge"][text]


def test_each_of_the_explainers_rated_predictions_is_in_one_comparison(tmp_path):
    items = Validation(PREDICTIONS, tmp_path).items
    expected = PREDICTIONS[["gold", "generation"]].head(12).to_numpy().tolist()
    pairs = [item[i : i + 2] for item in items for i in (0, 2)]
    assert len(items) == 6 and sorted(pairs) == sorted(expected)
    assert Validation(PREDICTIONS, tmp_path).items == items
    assert Validation(PREDICTIONS, tmp_path, seed=1).items != items
    assert len(Validation(PREDICTIONS, tmp_path, n=2).items) == 2
    nothing = Validation(PREDICTIONS.tail(3), tmp_path)
    assert nothing.items == [] and nothing.agreement() == {}
    assert "0 of 0 comparisons" in nothing.show().children[0].value


def test_every_click_is_saved_and_the_next_session_goes_on(tmp_path):
    validation = Validation(PREDICTIONS, tmp_path / "new folder", n=3)
    text, buttons = validation.show().children
    assert [button.description for button in buttons.children] == [
        "Prediction 1 is better",
        "Prediction 2 is better",
        "Both are equally good",
    ]
    assert "0 of 3 comparisons are labelled" in text.value
    for part in validation.items[0]:
        assert part.replace("<", "&lt;").replace(">", "&gt;") in text.value
    buttons.children[1].click()
    buttons.children[2].click()
    assert "2 of 3 comparisons are labelled" in text.value
    saved = json.loads(validation.path.read_text())
    assert [(row["label"], row["by"]) for row in saved] == [(2, "person"), (0, "person")]
    assert saved[0]["item"] == validation.items[0]

    again = Validation(PREDICTIONS, tmp_path / "new folder", n=3)
    assert again.labels == [2, 0]
    text, buttons = again.show().children
    buttons.children[0].click()
    assert again.labels == [2, 0, 1] and all(button.disabled for button in buttons.children)
    assert len(list(validation.path.parent.iterdir())) == 1


def test_labels_belong_to_their_comparisons_and_to_who_gave_them(tmp_path):
    Validation(PREDICTIONS, tmp_path, n=3).label(1)
    assert Validation(PREDICTIONS, tmp_path, n=3, seed=1).labels == []
    assert Validation(PREDICTIONS, tmp_path, n=3, by="a/model").labels == []
    assert Validation(PREDICTIONS, tmp_path, n=3).labels == [1]


def test_the_labels_against_the_judges_scores_of_the_same_predictions(tmp_path):
    validation = Validation(PREDICTIONS, tmp_path)
    differences = [judge_of(item[1]) - judge_of(item[3]) for item in validation.items]
    assert list(validation.differences) == pytest.approx(differences)
    agreeing = [1 if d > 0 else 2 if d < 0 else 0 for d in differences]
    validation.label(*agreeing)
    assert validation.agreement() == {
        "exact": 1,
        "weighted": 1,
        "opposed": 0,
        "n": 6,
        "by": "person",
    }


def test_a_chat_model_labels_what_has_no_label_and_is_named(tmp_path):
    def reply(request):
        prediction = [
            line for line in request["prompt"].splitlines() if line.startswith("Prediction")
        ]
        one, two = (judge_of(line.split(": ")[1]) for line in prediction)
        return "**1**" if one > two else "2." if two > one else "0"

    with ChatServer(reply) as server:
        endpoint = Endpoint("a/model", server.url, cache_folder=tmp_path / "chat")
        validation = Validation(PREDICTIONS, tmp_path, by=endpoint.model)
        validation.label(0)
        validation.ask(endpoint)
        assert server.delivered.total() == 5
    assert len(validation.labels) == 6
    found = validation.agreement()
    assert found["by"] == "a/model" and found["exact"] >= 5 / 6
    saved = json.loads(validation.path.read_text())
    assert {row["by"] for row in saved} == {"a/model"} and "a--model" in validation.path.name


@pytest.mark.parametrize(
    "spoil", [lambda text: text[: len(text) // 2], lambda _: "", lambda _: '[{"item": 1}]']
)
def test_a_damaged_file_of_labels_is_named(tmp_path, spoil):
    validation = Validation(PREDICTIONS, tmp_path, n=3)
    validation.label(1)
    validation.path.write_text(spoil(validation.path.read_text()))
    with pytest.raises(UserError, match=r"the labels in .* cannot be read \(.*\): mend the file"):
        Validation(PREDICTIONS, tmp_path, n=3)


def test_agreement_as_the_paper_counts_it():
    # a person's labels 1, 2, 0 against differences of scores
    same = agreement([1, -1, 0], [0.25, -1, 0])
    assert same == {"exact": 1, "weighted": 1, "opposed": 0, "n": 3}
    near = agreement([0, 0, 0, 0], [0.25, -0.5, 0.75, -1])
    assert near == {"exact": 0, "weighted": (0.75 + 0.5) / 4, "opposed": 0, "n": 4}
    assert agreement([1, -1], [-0.25, 0.25])["opposed"] == 1
    assert agreement([1, -1], [0, 0])["weighted"] == 0  # a person's preference has no size
    with pytest.raises(ValueError, match="1 preferences against 2"):
        agreement([1], [1, 0])


@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.sampled_from(STEPS), st.sampled_from(STEPS)),
        min_size=1,
    )
)
def test_agreement_is_symmetric_and_between_exact_and_one(rows):
    a, b = [x - y for x, y, _ in rows], [x - z for x, _, z in rows]
    found = agreement(a, b)
    assert found == agreement(b, a)
    assert 0 <= found["exact"] <= found["weighted"] <= 1
    assert found["exact"] + found["opposed"] <= 1 and agreement(a, a)["exact"] == 1
