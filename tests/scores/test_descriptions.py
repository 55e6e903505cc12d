"""Descriptions scored: against scoring each alone, with what is empty, repeated or not there."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from simulating import make_exemplars, make_simulator

from introspect_utils.features.directions import Directions
from introspect_utils.scores.descriptions import scored
from introspect_utils.scores.judge import Judge
from introspect_utils.scores.simulator_scores import score
from introspect_utils.tasks import TASKS

pytestmark = pytest.mark.usefixtures("one_thread")

GOLD = ["cities", "", "animals", ""]


class Equal(Judge):
    """Rates 5 what is equal but for spaces, 2 all else, and counts what it is asked."""

    name = model = "equal"

    def __init__(self):
        self.asked = []

    def ratings(self, pairs):
        self.asked += pairs
        return [5 if a.strip() == b else 2 for a, b in pairs]


@pytest.fixture
def rows():
    data = ("sae", "act", "sae", "act")
    names = tuple(f"{kind}/{i}/{i}" for i, kind in enumerate(data))
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    return Directions(names, data, ("test",) * 4, (0, 1, 2, 3), vectors, ("",) * 4)


def test_predictions_have_the_columns_of_the_file_and_the_scores_of_each_alone(rows):
    simulator, exemplars, judge = make_simulator(), make_exemplars(4), Equal()
    said = {("self", "full"): ["cities", "x y", "dogs", "z"], ("nn", "full"): ["cities"] * 4}
    table = scored(rows, said, GOLD, judge, simulator, exemplars)
    schema = pa.schema(list(TASKS["features"].all_columns.items()))
    pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    assert set(table.columns) == set(TASKS["features"].all_columns)
    assert table["row"].tolist() == [0, 1, 2, 3] * 2
    assert table["explainer"].tolist() == ["self"] * 4 + ["nn"] * 4
    np.testing.assert_array_equal(table["judge"], [1, np.nan, 0.25, np.nan] * 2)
    assert judge.asked == [
        ("cities", "cities"),
        ("dogs", "animals"),
        ("cities", "cities"),
        ("cities", "animals"),
    ]
    for line in table.itertuples():
        alone = score(simulator, [line.generation], exemplars, [line.row], 1)
        assert line.simulator == pytest.approx(alone.r.item(), abs=1e-5)
        assert line.simulator_abs == pytest.approx(alone.abs_r.item(), abs=1e-5)


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_an_empty_description_scores_0_by_both(rows, blank):
    judge = Equal()
    said = {("self", "full"): [blank, blank, "animals", "z"]}
    table = scored(rows, said, GOLD, judge, make_simulator(), make_exemplars(4, k=4))
    np.testing.assert_array_equal(table["judge"], [0, np.nan, 1, np.nan])
    assert table["simulator"].tolist()[:2] == table["simulator_abs"].tolist()[:2] == [0, 0]
    assert table["constant"].tolist()[:2] == [4, 4] and judge.asked == [("animals", "animals")]
    assert table["simulator"].iloc[2] != 0


def test_what_says_nothing_of_a_row_has_no_line_there(rows):
    said = {("echo", "full"): [None, "a", None, "b"], ("gold", "full"): [g or None for g in GOLD]}
    table = scored(rows, said, GOLD, Equal(), make_simulator(), make_exemplars(4))
    assert list(zip(table["explainer"], table["row"], strict=True)) == [
        ("echo", 1),
        ("echo", 3),
        ("gold", 0),
        ("gold", 2),
    ]
    assert table["judge"].dropna().tolist() == [1, 1]


def test_every_direction_needs_its_description(rows):
    with pytest.raises(ValueError):
        scored(rows, {("a", "b"): ["c"] * 3}, GOLD, Equal(), make_simulator(), make_exemplars(4))
