"""A.2's human validation: which pairs are compared, what a click saves, and how a person's labels
agree with a judge."""

import json

import pytest

from introspect_utils.extras.judge_widget import Validation
from introspect_utils.scores.judge import Agreement
from introspect_utils.settings.errors import UserError

PAIRS = [(f"predicted <{i}>", f"expected <{i}>") for i in range(12)]


class Oracle:
    """Rates the pair of number i as i / 4, up to 1."""

    name = model = "oracle"

    def rate(self, pairs):
        return [min(PAIRS.index(pair) / 4, 1) for pair in pairs]


def buttons(widget):
    """The three buttons in order: 1, 2, 0."""
    return widget.children[1].children


def test_no_pair_is_compared_twice(tmp_path):
    comparisons = Validation(PAIRS, tmp_path / "labels.json", n=6).items
    assert sorted(pair for comparison in comparisons for pair in comparison) == sorted(PAIRS)
    assert Validation(PAIRS, tmp_path / "labels.json", n=6).items == comparisons
    assert Validation(PAIRS, tmp_path / "labels.json", n=6, seed=1).items != comparisons
    with pytest.raises(
        UserError, match="7 comparisons need 14 pairs, and there are 12: ask for at most 6"
    ):
        Validation(PAIRS, tmp_path / "labels.json", n=7)


def test_every_click_is_saved_and_the_next_session_goes_on(tmp_path):
    path = tmp_path / "new folder" / "labels.json"
    validation = Validation(PAIRS, path, n=3)
    widget = validation.show()
    assert [button.description for button in buttons(widget)] == [
        "Prediction 1 is better",
        "Prediction 2 is better",
        "Both are equally good",
    ]
    (predicted, expected), _ = validation.items[0]
    first = widget.children[0].value
    assert (
        "0 of 3 comparisons are labelled" in first
        and predicted.replace("<", "&lt;").replace(">", "&gt;") in first
        and "<2>" not in first
    )
    buttons(widget)[1].click()
    buttons(widget)[2].click()
    assert "2 of 3 comparisons are labelled" in widget.children[0].value
    saved = json.loads(path.read_text())
    assert [row["label"] for row in saved] == [2, 0]
    assert saved[0]["item"] == [list(pair) for pair in validation.items[0]]

    again = Validation(PAIRS, path, n=3)
    assert again.labels == [2, 0]
    widget = again.show()
    assert "2 of 3 comparisons are labelled" in widget.children[0].value
    buttons(widget)[0].click()
    assert again.labels == [2, 0, 1] and all(button.disabled for button in buttons(widget))
    assert "3 of 3 comparisons are labelled" in widget.children[0].value
    assert [path.name for path in path.parent.iterdir()] == ["labels.json"]


def test_labels_of_other_comparisons_are_refused(tmp_path):
    Validation(PAIRS, tmp_path / "labels.json", n=3).label(1)
    with pytest.raises(UserError, match=r"labels.json are of other comparisons"):
        Validation(PAIRS, tmp_path / "labels.json", n=3, seed=1)


def test_agreement_with_a_judge(tmp_path):
    validation = Validation(PAIRS, tmp_path / "labels.json", n=2)
    validation.items = [
        (PAIRS[0], PAIRS[2]),
        (PAIRS[3], PAIRS[2]),
    ]  # the oracle: 2 is better by 0.5, 1 by 0.25
    validation.label(2)
    assert validation.agreement(Oracle()) == Agreement(1, 1, 0, 1)
    validation.label(0)
    assert validation.agreement(Oracle()) == Agreement(0.5, 0.875, 0, 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "{}x",
        lambda text: '[{"label": 1}]',
    ],
)
def test_a_damaged_file_of_labels_is_named(tmp_path, spoil):
    path = tmp_path / "labels.json"
    Validation(PAIRS, path, n=3).label(1)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(
        UserError,
        match=r"the labels in .*labels.json cannot be read \(.*\): mend the file, or delete it",
    ):
        Validation(PAIRS, path, n=3)
