import csv
import io

import pytest
from describing import JUDGE, SIMULATOR, TARGET, explainer_run, feature_runs

from introspect_utils.report import feature_tables, results, style
from introspect_utils.report.table import Score, save_table

PAPER_TABLE_1 = 12  # rows
SECOND = "gemma3-270m"


@pytest.fixture(scope="module")
def records():
    return results.records([*feature_runs(), *feature_runs(SECOND)])


def cells(table):
    """{(target, explainer): {column: text}} of a table."""
    return {row[:2]: dict(zip(table.header, map(str, row), strict=True)) for row in table.rows}


def value(records, table, explainer, column, condition="full"):
    data, metric = column.split()
    fields = {
        "table": table,
        "explainer": explainer,
        "condition": condition,
        "data": data,
        "metric": metric,
    }
    (record,) = [r for r in records if all(r[key] == wanted for key, wanted in fields.items())]
    return record


def test_table_1_stands_above_the_papers(records):
    table = feature_tables.table1(records)
    rows = cells(table)
    ours = [name for target, name in rows if target == f"{TARGET} (here)"]
    assert ours == [
        *("Self", "Self, zero vector at test", "Self, shuffled vector at test"),
        *(SECOND, f"{SECOND}, zero vector at test", f"{SECOND}, shuffled vector at test"),
        *(
            "Nearest neighbour, all layers",
            "Nearest neighbour, all layers, dot product",
            "Nearest neighbour, same layer",
        ),
        *("SelfIE", "Untrained", "Most frequent description", "Gold labels"),
    ]
    assert len(table.rows) == len(ours) + PAPER_TABLE_1
    record = value(records, "1", "self", "dact simulator")
    own = rows[f"{TARGET} (here)", "Self"]
    assert own["dACT simulator"] == f"{100 * record['value']:.1f} ± {100 * record['stderr']:.1f}"
    assert (own["n"], own["Seeds"], own["Training rows"]) == ("40 / 20 / 15", "0, 1", "1000")
    paper = rows["llama-3.1-8b (paper)", "Nearest neighbour, same layer"]
    assert [paper[style.LABELS[c]] for c in feature_tables.COLUMNS] == [
        "53.9 ± 0.9",
        "29.4 ± 0.7",
        "40.7 ± 0.7",
        "28.6 ± 0.7",
    ]
    gold = rows[f"{TARGET} (here)", "Gold labels"]
    assert (gold["SAE judge"], gold["ACT simulator"], gold["dACT simulator"], gold["n"]) == (
        "100.0 ± 0.0",
        "–",
        "–",
        "40",
    )


def test_bold_marks_the_best_of_a_column_but_not_gold_labels_for_the_judge(records):
    table = feature_tables.table1(records)
    judge = {row[1]: row[2].bold for row in table.rows if row[0] == f"{TARGET} (here)"}
    assert judge["Self"] and not judge["Gold labels"] and not judge["Untrained"]
    simulator = {row[1]: row[3] for row in table.rows if row[0] == f"{TARGET} (here)"}
    for name, score in simulator.items():
        explainer = {"Self": "self", "Gold labels": "gold", "Untrained": "untrained"}.get(name)
        if explainer:
            assert score.bold == (
                value(records, "1", explainer, "sae simulator")["p_vs_best"] >= 0.05
            )
    assert all(isinstance(score, Score) for score in simulator.values())


def test_notes_say_who_scored(records):
    notes = "\n".join(feature_tables.table1(records).notes)
    assert f"{TARGET}: scored by the judge {JUDGE} and the simulator `{SIMULATOR}`." in notes
    assert SECOND + ": scored" not in notes and "One training seed" not in notes
    one = results.records([explainer_run()])
    assert "One training seed" in "\n".join(feature_tables.table1(one).notes)


def test_table_4_is_of_the_other_targets(records):
    table = feature_tables.table4(records)
    assert {row[0] for row in table.rows} == {f"{SECOND} (here)", "gemma-2-9b (paper)"}
    paper = cells(table)["gemma-2-9b (paper)", "gemma-2-9b-instruct"]
    assert (paper["SAE judge"], paper["SAE simulator"]) == ("57.1 ± 0.9", "–")
    assert (f"{SECOND} (here)", TARGET) in cells(table)


def test_what_self_is_ahead_by(records):
    table = feature_tables.table_paired(records)
    row = cells(table)[f"{TARGET} (here)", "Nearest neighbour, same layer"]
    record = value(records, "1-paired", "nn-layer", "sae judge")
    assert row["SAE judge"] == f"{100 * record['value']:+.1f} ± {100 * record['stderr']:.1f}"
    assert float(row["p, SAE judge"]) == pytest.approx(record["p_vs_best"], rel=0.1)
    assert (f"{TARGET} (here)", "Self") not in cells(table) and (
        f"{SECOND} (here)",
        "SelfIE",
    ) in cells(table)


def test_absolute_correlations_and_constants_have_a_table(records):
    row = cells(feature_tables.table_absolute(records))[f"{TARGET} (here)", "SelfIE"]
    record, constant = (
        value(records, "1", "selfie", f"act {metric}") for metric in ("simulator_abs", "constant")
    )
    assert row["ACT absolute r"] == f"{100 * record['value']:.1f} ± {100 * record['stderr']:.1f}"
    assert row["ACT constant"] == f"{constant['value']:.2f}"


def test_token_match_beside_the_papers(records):
    rows = cells(feature_tables.table_token_match(records))
    assert rows[f"{TARGET} (here)", "Self, – layer"]["Token match"] == "80.0 ± 2.0"
    assert rows[f"{TARGET} (here)", "Self, another layer told"]["Token match"] == "70.0 ± 3.0"
    assert rows["llama-3.1-8b (paper)", "Self, another layer told"]["Token match"] == "75.2"


def test_tables_in_csv_and_latex(records, tmp_path):
    rows = list(csv.DictReader(io.StringIO(feature_tables.table1(records).csv())))
    assert float(rows[0]["SAE judge"]) == pytest.approx(
        100 * value(records, "1", "self", "sae judge")["value"], abs=1e-3
    )
    assert rows[-1]["Explainer"] == "Gold labels" and rows[-1]["ACT simulator"] == ""
    for make in (
        feature_tables.table1,
        feature_tables.table4,
        feature_tables.table_paired,
        feature_tables.table_absolute,
    ):
        latex = make(records).latex()
        assert (
            not set(latex) & set("±–≥“”’|") and latex.count(r"\begin") == latex.count(r"\end") == 2
        )
    assert len(save_table(feature_tables.table_token_match(records), tmp_path, "section_b4")) == 3


def test_tables_without_our_rows_are_the_papers():
    assert (
        len(feature_tables.table1([]).rows) == PAPER_TABLE_1
        and len(feature_tables.table4([]).rows) == 6
    )


def test_the_figure_has_a_panel_a_column_and_the_papers_marks(records):
    figure = feature_tables.figure_features(records)
    assert len(figure.axes) == 8
    first, second = figure.axes[:4], figure.axes[4:]
    titles = [axes.get_title().split("\n")[0] for axes in first]
    assert titles == ["SAE judge", "SAE simulator", "ACT simulator", "dACT simulator"]
    n = {r["n"] for r in records if (r["table"], r["data"], r["metric"]) == ("1", "sae", "judge")}
    assert (
        first[0]
        .get_title()
        .endswith(f"n = {min(n)}" if len(n) == 1 else f"n = {min(n)} to {max(n)}")
    )
    assert [len(axes.containers) for axes in first] == [
        13,
        13,
        12,
        12,
    ]  # gold labels are of SAE features

    def marks(axes):
        return sorted(
            round(float(line.get_xdata()[0]), 2) for line in axes.lines if line.get_marker() == "D"
        )

    assert marks(first[0]) == [40.1, 53.9, 58.5, 76.2, 100]  # SelfIE, the neighbours, self, gold
    assert marks(first[3]) == [18.5, 21.0, 28.6, 32.0]
    assert marks(second[0]) == [24.07, 32.4, 33.07, 43.45] and not marks(second[1])
    low, high = first[1].get_xlim()
    assert low < 0 and first[3].get_xlim() == (low, high)
    segments = [
        bars.get_segments()[0] for axes in first[1:] for line in axes.containers for bars in line[2]
    ]
    assert all(low < x < high for segment in segments for x in segment[:, 0])


def test_the_figure_is_the_same_bytes_each_time(records, tmp_path):
    few = [r for r in records if r["table"] == "1" and r["explainer"] in ("self", "gold")]
    first, second = (
        style.save_figure(feature_tables.figure_features(few), tmp_path / name, "figure")
        for name in "ab"
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_colours_are_those_of_every_other_figure():
    assert (
        style.colour("self") == style.BLUE and style.colour("self", "zero-vector") == style.ORANGE
    )
    assert (
        style.colour("nn-all", "dot-product") == style.colour("nn-layer") != style.colour("selfie")
    )
    assert style.colour("untrained") == style.colour("untrained qwen3-8b") == style.GREY
    assert style.colour("selfie-llama-3.1-8b-instruct") == style.colour("selfie")
    assert style.colour("most-frequent") == style.BLACK and style.colour("gold") in style.LEGEND
