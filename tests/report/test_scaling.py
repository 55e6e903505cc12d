"""Scores against training directions (section 4)."""

import numpy as np
import pytest
from describing import TARGET, explainer_run, feature_runs
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.report import scaling
from introspect_utils.report.records import records
from introspect_utils.report.scaling import Point, data_factor, end_share, score_at, size_for

RISING = [Point(10, 0.1, 0.01), Point(100, 0.3, 0.01), Point(1000, 0.5, 0.01)]


def test_between_two_points_the_line_is_straight_on_the_log_axis():
    assert score_at(RISING, 100) == pytest.approx(0.3)
    assert score_at(RISING, 10**1.5) == pytest.approx(0.2)
    assert score_at(RISING, 9) is None and score_at(RISING, 1001) is None


@given(st.floats(0.1, 0.5))
def test_the_size_for_a_score_has_that_score(value):
    assert score_at(RISING, min(size_for(RISING, value), 1000)) == pytest.approx(value, abs=1e-9)


def test_a_score_that_is_never_reached_has_no_size():
    assert size_for(RISING, 0.6) is None and size_for(RISING, 0.05) == 10


def test_end_share_and_data_factor():
    assert end_share(RISING, 0.1) == pytest.approx(0.6)
    assert end_share(RISING, 0.001) is None
    slow = [Point(10, 0.0, 0), Point(1000, 0.2, 0)]
    assert data_factor(RISING, slow) == pytest.approx(1000 / 10**1.5)
    assert data_factor(slow, RISING) is None


@pytest.fixture(scope="module")
def found():
    sizes = [
        explainer_run(n_train=n, skill=skill, seed=seed)
        for n, skill in ((8, 0.2), (50, 0.3))
        for seed in (0, 1)
    ]
    return records([*feature_runs(), *sizes])


def test_a_curve_has_every_size_of_an_explainer_once(found):
    curves = scaling.curves(found, TARGET, "sae simulator")
    assert list(curves) == [("self", "full")]  # all others have one size
    assert [p.n_train for p in curves["self", "full"]] == [8, 50, 200, 1000]
    (largest,) = [
        r
        for r in found
        if (r["table"], r["explainer"], r["condition"], r["data"], r["metric"])
        == ("1", "self", "full", "sae", "simulator")
    ]
    assert curves["self", "full"][-1] == Point(1000, largest["value"], largest["stderr"])


def test_the_sentence_and_the_figure(found):
    [line] = scaling.sentence(scaling.curves(found, TARGET, "sae judge"))
    assert line["end share (paper)"] == pytest.approx(0.71) and line["fewest"] == 8
    assert line["end share"] == pytest.approx(
        end_share(scaling.curves(found, TARGET, "sae judge")["self", "full"])
    )
    figure = scaling.figure_scaling(found, TARGET, ("sae simulator", "act simulator"), n_layers=4)
    drawn = figure.axes[0].containers[0].lines[0].get_xdata()
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), [2, 12.5, 50, 250])
    assert figure.axes[0].get_xscale() == "log" and [
        text.get_text() for text in figure.legends[0].get_texts()
    ] == ["Self", "SelfIE"]
