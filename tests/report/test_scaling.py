"""Scores against training directions (section 4)."""

import numpy as np
import pytest
from describing import TARGET, explainer_run, feature_runs

from introspect_utils.report.records import records
from introspect_utils.report.scaling import curves, data_factor, end_share, figure_scaling, sentence


def curve(**values):
    return [{"n_train": int(n[1:]), "value": value, "stderr": 0.01} for n, value in values.items()]


RISING = curve(n10=0.1, n100=0.3, n1000=0.5)


def test_the_end_share_is_read_on_straight_lines_on_the_log_axis():
    assert end_share(RISING, 0.1) == pytest.approx(0.6)
    assert end_share(RISING, 10**-1.5) == pytest.approx(0.4)
    assert end_share(RISING, 0.001) is None and end_share(curve(n10=0.1, n20=-0.1), 0.5) is None


def test_how_many_times_fewer_directions():
    slow = curve(n10=0.0, n1000=0.2)
    assert data_factor(RISING, slow) == pytest.approx(1000 / 10**1.5)
    assert data_factor(slow, RISING) is None and data_factor(RISING, curve(n5=0.0, n50=0.05)) == 5


@pytest.fixture(scope="module")
def found():
    sizes = [
        explainer_run(n_train=n, skill=skill, seed=seed)
        for n, skill in ((8, 0.2), (50, 0.3))
        for seed in (0, 1)
    ]
    return records([*feature_runs(), *sizes])


def test_a_curve_has_every_size_of_an_explainer_once(found):
    by_row = curves(found, TARGET, "sae simulator")
    assert list(by_row) == [("self", "full")]  # all others have one size
    assert [r["n_train"] for r in by_row["self", "full"]] == [8, 50, 200, 1000]


def test_the_sentence_and_the_figure(found):
    by_row = curves(found, TARGET, "sae judge")
    [line] = sentence(by_row)
    assert line["end share (paper)"] == pytest.approx(0.71) and line["fewest"] == 8
    assert line["end share"] == pytest.approx(end_share(by_row["self", "full"]))
    figure = figure_scaling(found, TARGET, ("sae simulator", "act simulator"), n_layers=4)
    drawn = figure.axes[0].containers[0].lines[0].get_xdata()
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), [2, 12.5, 50, 250])
    assert figure.axes[0].get_xscale() == "log"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["Self", "SelfIE", "floor"]
