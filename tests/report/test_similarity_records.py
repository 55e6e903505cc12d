"""Figure 6 from a run of notebook 10."""

import pytest
from describing import explainer_run, feature_runs
from scipy.stats import spearmanr

from introspect_utils.report.claims import points, rank
from introspect_utils.report.records import records
from introspect_utils.report.similarity import METRICS, figure_6
from introspect_utils.report.tables import COLUMNS, table

DIAL = {"rotated@0.25": 0.9, "rotated@0.5": 0.7, "sibling": 0.95}


@pytest.fixture(scope="module")
def found():
    """The dial, trained on the smaller size only, beside two explainers of both sizes."""
    small = [explainer_run(name, n_train=200, skill=x / 2) for name, x in DIAL.items()]
    cells = [
        {"explainer": name, "condition": "full", "n": 48}
        | {key: x for metric in METRICS for key in (metric, f"{metric}_sd")}
        for name, x in (DIAL | {"self": 1.0, "gemma3-270m": 0.1}).items()
    ]
    run, said = feature_runs()[0]
    fields = {"id": "similarity", "explainer": "similarity", "condition": []}
    similar = run | fields | {"statistics": {"similarity": cells}}
    return records([*feature_runs(), *small, (similar, said)])


def test_scores_compare_at_the_size_with_the_most_explainers(found):
    shown = points(found, "dot_product", "sae judge")
    assert [len(of_size) for of_size in shown.values()] == [4, 2] and list(shown) == [200, 1000]
    assert {r["explainer"]: x for x, r in shown[200]} == DIAL | {"self": 1.0}


def test_the_rank_correlation_takes_equal_similarities_as_equal(found):
    [shown, _] = points(found, "dot_product", "sae simulator").values()
    pairs = [(x, r["value"]) for x, r in shown]
    assert rank(shown)[0] == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert rank([(1.0 - 1e-7 * i, r) for i, (_, r) in enumerate(shown)]) is None


def test_equal_scores_have_no_rank_correlation():
    assert rank([(x, {"value": 0.5}) for x in (0.1, 0.5, 0.9)]) is None


def test_figure_6_is_one_panel_with_the_dial_as_a_line(found):
    figure = figure_6(found)
    [axes] = figure.axes
    texts = {text.get_text() for text in axes.texts}
    assert {"25% of the way", "50% of the way"} < texts
    assert any(text.startswith("ρ = ") and text.endswith("n = 4") for text in texts)
    [dial] = [line for line in axes.lines if line.get_alpha() == 0.5]
    assert sorted(dial.get_xdata()) == pytest.approx([70, 90, 100])  # from the target to rotated
    assert "trained on 200 directions" in figure.legends[0].get_title().get_text()
    assert len(figure_6(found, METRICS, COLUMNS).axes) == 12


def test_table_5_has_means_and_deviations_and_the_papers(found):
    rows = table("table5", found).rows
    assert (str(rows[0][2]), rows[0][5]) == ("100.0 ± 100.0", "48")
    paper = {row[1]: row for row in rows if "(paper)" in row[0]}
    assert str(paper["llama-3-8b"][3]) == "96.6 ± 1.7" and paper["llama-3-8b"][4] == "–"
