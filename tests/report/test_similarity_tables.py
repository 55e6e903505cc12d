"""Table 5 and Figure 6 from a run of notebook 10."""

import pytest
from describing import TARGET, explainer_run, feature_runs
from scipy.stats import spearmanr

from introspect_utils.report import style
from introspect_utils.report.records import records
from introspect_utils.report.similarity_tables import METRICS, figure_6, points, table5

SIMILAR = {
    ("self", "full"): 1.0,
    ("sibling", "full"): 0.9,
    ("rotated", "full"): 0.02,
    ("gemma3-270m", "full"): 0.1,
}


@pytest.fixture(scope="module")
def found():
    data, _ = feature_runs()[0][0], None
    cells = [
        {"explainer": name, "condition": condition, "n": 48}
        | {metric: value for metric in METRICS}
        | {f"{metric}_sd": 0.05 for metric in METRICS}
        for (name, condition), value in SIMILAR.items()
    ]
    run = data | {
        "id": f"similarity-{TARGET}",
        "explainer": "similarity",
        "condition": [],
        "statistics": {"similarity": cells},
    }
    others = [explainer_run("rotated", skill=0.3), explainer_run("sibling", skill=0.58)]
    return records([*feature_runs(), *others, (run, feature_runs()[0][1])])


def test_table_5_has_our_explainers_and_then_the_papers(found):
    table = table5(found)
    ours = [row for row in table.rows if "(here)" in row[0]]
    assert [row[1] for row in ours] == [
        style.label(*key) for key in sorted(SIMILAR, key=lambda key: style.order(*key))
    ]
    assert (
        all((cell.value, cell.stderr) == (SIMILAR["self", "full"], 0.05) for cell in ours[0][2:5])
        and ours[0][5] == 48
    )
    paper = {row[1]: row for row in table.rows if "(paper)" in row[0]}
    assert paper["llama-3-8b"][3].value == pytest.approx(0.9661) and paper["llama-3-8b"][4] == "–"


def test_figure_6_has_every_explainer_with_a_score_and_a_similarity(found):
    n_train, shown = next(iter(points(found, "dot_product", "sae simulator").items()))
    assert {(r["explainer"], r["condition"]): similarity for similarity, r in shown} == SIMILAR
    figure = figure_6(found)
    assert len(figure.axes) == len(METRICS) * 4
    rho = spearmanr(
        [similarity for similarity, _ in shown], [r["value"] for _, r in shown]
    ).statistic
    assert figure.axes[5].texts[0].get_text() == f"ρ = {rho:.2f}, n = 4"
    assert (
        figure.legends[0].get_title().get_text() == f"filled: trained on {n_train:,} directions"
    )  # the largest size, too


def test_explainers_of_a_smaller_size_stand_beside_the_self_explainer_of_that_size():
    """The dial: trained on the smaller size only, so in no table, and compared with what was
    trained on as much."""
    dial = {"rotated@0.25": 0.9, "rotated@0.5": 0.7, "sibling": 0.95}
    small = [explainer_run(name, n_train=200, skill=0.3) for name in dial]
    cells = [
        {"explainer": name, "condition": "full", "n": 48}
        | {key: x for metric in METRICS for key in (metric, f"{metric}_sd")}
        for name, x in (dial | {"self": 1.0, "gemma3-270m": 0.1}).items()
    ]
    data = feature_runs()[0]
    similar = data[0] | {
        "id": "similarity",
        "explainer": "similarity",
        "condition": [],
        "statistics": {"similarity": cells},
    }
    found = records([*feature_runs(), *small, (similar, data[1])])
    tables = {
        (r["table"], r["n_train"]) for r in found if r["explainer"] in dial and r["table"] != "5"
    }
    assert {table for table, n_train in tables if n_train == 200} >= {
        "scaling",
        "scaling-paired",
    } and ("1", 200) not in tables
    shown = points(found, "dot_product", "sae judge")
    assert [len(of_size) for of_size in shown.values()] == [4, 2] and list(shown) == [200, 1000]
    assert {r["explainer"]: x for x, r in shown[200]} == dial | {"self": 1.0}
    figure = figure_6(found)
    assert {"25%", "50%"} < {
        text.get_text() for text in figure.axes[0].texts
    }  # beside the points on the dial
    [dial] = [line for line in figure.axes[0].lines if line.get_alpha() == 0.5]
    assert dial.get_xdata() == pytest.approx([100, 90, 70])  # from the target towards rotated
    assert (
        "n = 4"
        in {text.get_text() for text in figure.axes[0].texts if "ρ" in text.get_text()}.pop()
    )
    assert (
        figure.legends[0].get_title().get_text()
        == "filled: trained on 200 directions; hollow: on 1,000"
    )
