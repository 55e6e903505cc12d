"""The self-explainer against every other explainer of its target."""

import numpy as np
import pytest
from describing import TARGET, explainer_run, feature_runs

from introspect_utils.report import privileged
from introspect_utils.report.layout import published_rows
from introspect_utils.report.records import records

COLUMNS = ("SAE judge", "SAE simulator", "ACT simulator", "dACT simulator")


@pytest.fixture(scope="module")
def found():
    others = [
        explainer_run(name, seed, skill=skill)
        for name, skill in (("rotated", 0.3), ("sibling", 0.58))
        for seed in (0, 1)
    ]
    return records([*feature_runs(), *others, explainer_run("rotated@0.5", skill=0.4)])


def test_a_gap_is_the_mean_of_paired_differences_over_rows_and_seeds(found):
    (gap,) = [
        r
        for r in privileged.gaps(found)
        if (r["explainer"], r["data"], r["metric"]) == ("rotated", "sae", "simulator")
    ]
    runs = {
        (name, seed): explainer_run(name, seed, skill=skill)[1]
        for name, skill in (("self", None), ("rotated", 0.3))
        for seed in (0, 1)
    }
    scores = {
        key: t.query("condition == 'full' and data == 'sae'")["simulator"].to_numpy()
        for key, t in runs.items()
    }
    differences = np.stack([scores["self", seed] - scores["rotated", seed] for seed in (0, 1)])
    assert gap["value"] == pytest.approx(differences.mean(), abs=1e-6) and gap["seeds"] == [0, 1]
    by_rows = differences.mean(0).std(ddof=1) / differences.shape[1] ** 0.5
    assert gap["stderr"] == pytest.approx(
        np.hypot(by_rows, differences.mean(1).std(ddof=1) / 2**0.5), abs=1e-6
    )


def test_only_trained_explainers_other_than_the_target_have_a_gap(found):
    assert {r["explainer"] for r in privileged.gaps(found)} == {"rotated", "sibling", "gemma3-270m"}
    assert {r["condition"] for r in privileged.gaps(found)} == {"full"}


def test_the_papers_gaps_are_differences_of_its_rows():
    gaps = privileged.paper_gaps()
    assert {gap["task"] for gap in gaps} == {"features", "patching", "ablation"}
    rows = {row[:3]: row[3] for row in published_rows("2")}
    for gap in gaps:
        if gap["table"] == "2":
            own, other = (
                rows[gap["target"], "self", "full"],
                rows[gap["target"], gap["explainer"], gap["condition"]],
            )
            assert gap["value"] == pytest.approx(
                own[gap["column"]].value - other[gap["column"]].value
            )
    assert not any(
        gap["explainer"].startswith(("selfie", "nn", "gold", "untrained")) for gap in gaps
    )


def test_the_table_and_the_figure_have_a_line_for_each_gap(found):
    table, gaps = privileged.table_privileged(found), privileged.gaps(found)
    assert len(table.rows) == len(gaps) and all(row[1] == TARGET for row in table.rows)
    figure = privileged.figure_privileged(found)
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == list(COLUMNS)
    assert all(axes.get_title().split("\n")[1].startswith("n = ") for axes in figure.axes)
    labels = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert {"Rotated", "Sibling", "gemma3-270m", "llama-3.1-70b, fitted → llama-3.1-8b"} <= labels


def test_smaller_sizes_have_lines_of_their_own(found):
    smaller = [explainer_run(name, n_train=200, skill=0.3) for name in ("self", "rotated")]
    every = records([*feature_runs(), explainer_run("rotated", skill=0.3), *smaller])
    assert {row[-1] for row in privileged.table_privileged(every).rows if row[2] == "Rotated"} == {
        "200",
        "1,000",
    }
    labels = {
        label.get_text() for label in privileged.figure_privileged(every).axes[0].get_yticklabels()
    }
    assert {"Rotated", "Rotated (200 rows)"} <= labels


def test_what_the_vector_adds_is_each_explainer_minus_its_own_controls(found):
    table = privileged.table_vector(found)
    assert {row[2] for row in table.rows} == {
        "Self",
        "Rotated",
        "Sibling",
        "gemma3-270m",
        "Rotated, 50% of the way",
    }
    assert {row[-1] for row in table.rows} == {"zero-vector", "shuffled-vector"}
    (r,) = [
        r
        for r in found
        if (r["table"], r["explainer"], r["condition"], r["metric"])
        == ("1-vector", "rotated", "full minus zero-vector", "judge")
    ]
    of_seeds = [
        explainer_run("rotated", seed, skill=0.3)[1]
        .query("data == 'sae'")
        .set_index("condition")["judge"]
        for seed in (0, 1)
    ]
    differences = [t["full"].to_numpy() - t["zero-vector"].to_numpy() for t in of_seeds]
    assert r["value"] == pytest.approx(np.mean(differences), abs=1e-6)
