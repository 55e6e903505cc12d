"""The tables of tables.yaml, and their forms."""

import csv
import dataclasses
import io

import pytest
from describing import JUDGE, SIMULATOR, TARGET, explainer_run, feature_runs
from reading import Page
from recording import ROWS, ablation_records, record, some_records

from introspect_utils.report import style, tables
from introspect_utils.report.paper import lookup
from introspect_utils.report.records import records as made
from introspect_utils.report.table import Score, Table, save_table, tex
from introspect_utils.report.tables import SPECS, paper_rows, table

SECOND = "gemma3-270m"
MADE = "| 600 | 0, 1 | 2000 | 1,234,567 |"


@pytest.fixture(scope="module")
def records():
    smaller = [explainer_run(name, n_train=200, skill=0.3) for name in ("self", "rotated")]
    rotated = [explainer_run("rotated", seed, skill=0.3) for seed in (0, 1)]
    return made([*feature_runs(), *rotated, *smaller, *feature_runs(SECOND)])


def cells(made):
    """{(target, explainer): {column: text}}, the first row of each name."""
    rows = {}
    for row in made.rows:
        rows.setdefault(row[:2], dict(zip(made.header, map(str, row), strict=True)))
    return rows


def value(records, table, explainer, column, condition="full"):
    data, metric = column.split()
    key = (table, explainer, condition, data, metric)
    names = ("table", "explainer", "condition", "data", "metric")
    return next(r for r in records if tuple(r[name] for name in names) == key)


def shown(record, sign=""):
    return f"{100 * record['value']:{sign}.1f} ± {100 * record['stderr']:.1f}"


def test_a_table_is_our_rows_in_the_papers_order_above_the_papers():
    lines = table("table2", list(reversed(some_records()))).markdown().splitlines()
    rows = [line for line in lines if line.startswith("| ") and "(" in line]
    assert len(rows) == len(ROWS) + len(paper_rows("2"))
    target = f"| {TARGET} (here)"
    first, second = (
        f"{target} | Self | **35.2 ± 1.9** | **79.2 ± 1.9** | **41.0 ± 1.9** | 1.0 ± 0.4",
        (
            f"{target} | Self, trained without the vector | 28.1 ± 1.9 | 77.4 ± 1.9 | 35.0 ± 1.9 | 1.0 ± 0.4"
        ),
    )
    assert rows[:2] == [f"{first} {MADE}", f"{second} {MADE}"]
    names = [row.split(" | ")[1] for row in rows[: len(ROWS)]]
    assert names[2:6] == [
        *("Self, zero vector at test", "Self, another row’s vector at test"),
        *("Self, layer not told", "Self, token not told"),
    ]
    assert names[6:] == [SECOND, "Untrained", "Lookup (token type × layers)", "Majority"]
    assert rows[-1] == (
        "| llama-3.1-8b (paper) | Untrained | 3.2 ± 0.1 | 31.4 ± 0.4 | 7.0 ± 0.2 "
        "| – | – | – | – | – |"
    )
    assert f"- `artifacts/mini/self_full`: {TARGET} (here), Self" in lines


def test_one_seed_is_said():
    one = [{**record, "seeds": record["seeds"][:1]} for record in some_records()]
    assert tables.ONE_SEED in table("table2", one).notes
    assert tables.ONE_SEED not in table("table2", some_records()).notes


def test_a_table_without_a_row_of_ours_is_not_made():
    assert all(table(name, []) is None for name in SPECS)


def test_table_1_and_4_are_of_the_targets_in_their_order(records):
    rows = cells(table("table1", records))
    own = rows[f"{TARGET} (here)", "Self"]
    assert own["ΔACT simulator"].strip("*") == shown(value(records, "1", "self", "dact simulator"))
    assert (own["n"], own["Seeds"], own["Training rows"]) == ("40 / 20 / 15", "0, 1", "1000")
    gold = rows[f"{TARGET} (here)", "Gold labels"]
    assert (gold["SAE judge"], gold["ACT simulator"], gold["n"]) == ("100.0 ± 0.0", "–", "40")
    paper = rows["llama-3.1-8b (paper)", "Nearest neighbour, same layer"]
    assert (paper["SAE judge"], paper["ΔACT simulator"]) == ("53.9 ± 0.9", "28.6 ± 0.7")
    fourth = cells(table("table4", records))
    assert {target for target, _ in fourth} == {f"{SECOND} (here)", "gemma-2-9b (paper)"}
    assert fourth["gemma-2-9b (paper)", "gemma-2-9b-it"]["SAE judge"] == "57.1 ± 0.9"


def test_bold_is_what_the_record_says_and_no_gold_label_of_the_judge(records):
    ours = [row for row in table("table1", records).rows if row[0] == f"{TARGET} (here)"]
    judge = {row[1]: row[2].bold for row in ours}
    assert judge["Self"] and not judge["Gold labels"] and not judge["Untrained"]


def test_notes_say_who_scored(records):
    notes = "\n".join(table("table1", records).notes)
    assert f"{TARGET}: scored by the judge `{JUDGE}`." in notes
    assert f"{TARGET}: scored by the simulator `{SIMULATOR}`." in notes
    assert f"{SECOND}: scored" not in notes


def test_what_self_is_ahead_by_at_every_size(records):
    found = table("table1_paired", records)
    row = cells(found)[f"{TARGET} (here)", "Nearest neighbour, same layer"]
    assert row["SAE judge"].startswith(
        shown(value(records, "1-paired", "nn-layer", "sae judge"), "+")
    )
    assert (f"{TARGET} (here)", "Self") not in cells(found)
    sizes = [row[-1] for row in found.rows if row[:2] == (f"{TARGET} (here)", "Rotated")]
    assert sizes == ["1000", "200"]
    assert any("cannot be told from none" in note for note in found.notes)


def test_p_stands_where_the_record_has_one():
    difference = {"table": "2-paired", "value": 0.1, "stderr": 0.02, "p": 0.003}
    [record] = [r | difference for r in some_records()[:1]]
    assert str(table("table2_paired", [record]).rows[0][2]) == "+10.0 ± 2.0 (p = 0.003)"
    assert str(table("table2_paired", [record | {"p": None}]).rows[0][2]) == "+10.0 ± 2.0"


def test_what_the_vector_adds_beside_the_papers():
    lines = table("table2_vector", some_records()).markdown().splitlines()
    assert any("| Self, minus zero vector at test | +7.7 ± 1.6 |" in line for line in lines)
    assert any("| Self, minus trained without the vector | -7.1 ± 1.6 |" in line for line in lines)
    paper = "| qwen3-8b (paper) | Self, minus trained without the vector | +4.1 ± 0.6 |"
    assert any(line.startswith(paper) for line in lines)


def test_differences_of_the_papers_rows_are_those_of_trained_explainers():
    for number in ("1", "2", "3", "4"):
        scores = {(r["target"], r["explainer"], r["condition"]): by for r, by in paper_rows(number)}
        found = paper_rows(f"{number}-paired")
        for row, by in found:
            other = scores[row["target"], row["explainer"], row["condition"]]
            for name, difference in by.items():
                own = scores[row["target"], "self", "full"][name]["value"]
                assert difference["value"] == pytest.approx(own - other[name]["value"])
        assert found
        baselines = ("selfie", "nn-all", "nn-layer", "gold", "untrained", "self")
        assert not {row["explainer"] for row, _ in found} & set(baselines)


def test_absolute_correlations_and_constants(records):
    row = cells(table("table1_absolute", records))[f"{TARGET} (here)", "SelfIE"]
    assert row["ACT absolute r"] == shown(value(records, "1", "selfie", "act simulator_abs"))
    assert row["ACT constant"] == f"{value(records, '1', 'selfie', 'act constant')['value']:.2f}"


def test_token_match_and_locate_beside_the_papers(records):
    rows = cells(table("section_b4", records))
    assert rows[f"{TARGET} (here)", "Self, layer not told"]["Token match"] == "80.0 ± 2.0"
    assert rows["llama-3.1-8b (paper)", "Self, another layer told"]["Token match"] == "75.2"
    assert any("earlier protocol" in note for note in table("section_b4", records).notes)
    lines = table("section_c1", some_records()).markdown().splitlines()
    assert f"| {TARGET} (here) | Self, locate | 96.3 ± 0.6 {MADE}" in lines


def test_table_6_writes_blocks_one_way_and_puts_other_tokens_together():
    rows = table("table6", some_records()).rows
    here, paper = f"{TARGET} (here)", "llama-3.1-8b (paper)"
    assert (here, "train", "relation", "0–6", 13, 12, Score(13 / 25)) in rows
    assert (here, "train", "other tokens", "0–6", 9, 7, Score(9 / 16)) in rows
    assert (paper, "train", "relation", "0–7", 911, 792, Score(911 / 1703)) in rows
    assert sum(row[4] + row[5] for row in rows if row[0] == paper) == 13_454 + 5_600
    lists = [
        r | {"condition": r["condition"].replace("0-6", "[0, 1, 2, 3, 4, 5, 6]")}
        for r in some_records()
    ]
    assert table("table6", lists).rows == rows


def test_table_3_stands_above_both_versions_of_the_papers():
    found = table("table3", ablation_records())
    lines = found.markdown().splitlines()
    assert [row[1] for row in found.rows[:5]] == [
        *(
            "Self",
            SECOND,
            "Untrained",
            "The hint’s letter",
            "Oracle (told the answer without the hint)",
        )
    ]
    assert sum("(paper v1)" in line for line in lines) == 6
    assert sum("(paper v3)" in line for line in lines) == 3
    assert any(
        line.startswith("| qwen3-8b (paper v3) | Self | 83.4 | 87.0 | 90.6 |") for line in lines
    )
    untrained = cells(found)[found.rows[2][:2]]
    assert untrained["Says “changed”"] == "2.0 ± 1.9"
    assert untrained["Content match, changed rows"] == "10.0 ± 1.9"
    qwen = cells(found)["qwen3-8b (paper v1)", "Untrained"]
    assert (qwen["Says “changed”"], qwen["Content match, unchanged rows"]) == ("0.4", "91.0")
    assert "**80.0" not in "".join(lines)  # the oracle is no competitor


def test_table_7_beside_the_papers():
    rows = table("table7", ablation_records()).rows
    assert rows[:2] == (
        (f"{TARGET} (here)", "train", 60, 40, Score(0.6)),
        (f"{TARGET} (here)", "test", 5, 5, Score(0.5)),
    )
    assert ("qwen3-8b (paper)", "test", 929, 466, Score(929 / 1395)) in rows and len(rows) == 6


def test_csv_has_plain_numbers(records):
    rows = list(csv.DictReader(io.StringIO(table("table2", some_records()).csv())))
    first, last = rows[0], rows[-1]
    parts = [first[f"Exact match{part}"] for part in ("", " (s.e.)", " (bold)")]
    assert parts == ["35.2000", "1.9000", "True"]
    assert (last["Content match"], last["Unparseable"]) == ("7.0000", "")
    rows = list(csv.DictReader(io.StringIO(table("table1", records).csv())))
    exact = 100 * value(records, "1", "self", "sae judge")["value"]
    assert float(rows[0]["SAE judge"]) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("name", ["table1", "table1_paired", "table4", "table1_absolute"])
def test_latex_is_escaped_and_balanced(records, name):
    text = table(name, records).latex()
    assert not set(text) & set("±×–≥“”’`") - set("`") and text.count(r"\begin") == 2
    assert text.count(r"\end") == 2 and "_" not in text.replace(r"\_", "")
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    body = text.split(r"\midrule")[1].strip().splitlines()[0]
    assert body.replace(r"\&", "").count("&") == len(columns) - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & a_b #1 {x}", r"50\% \& a\_b \#1 \{x\}"),
        ("\\^~$", r"\textbackslash{}\textasciicircum{}\textasciitilde{}\$"),
        ("`a_b` ± 1", r"\texttt{a\_b} $\pm$ 1"),
    ],
)
def test_tex(text, expected):
    assert tex(text) == expected


def test_cells_are_text_in_every_form():
    assert str(Score(0.0502, 0.002)) == "5.0 ± 0.2" and str(Score(0.834)) == "83.4"
    odd = Table("Odd | <cells>", ("a", "b"), (("x|y\n<b>", Score(0.5, bold=True)),), ("`n<`",))
    assert "| x\\|y\\n<b> | **50.0** |" in odd.markdown()
    assert r"x|y\textbackslash{}n" in odd.latex()
    page = Page(odd._repr_html_())
    assert "x|y\n<b>" in page.text and page.all("td") == [{}, {"class": "number"}]
    assert len(page.all("b")) == len(page.all("code")) == 1


def test_saved_files(tmp_path):
    paths = save_table(table("table6", some_records()), tmp_path / "tables", "table6")
    assert [path.suffix for path in paths] == [".md", ".csv", ".tex"]
    assert all(path.stat().st_size for path in paths)


def test_every_column_and_row_of_the_paper_has_a_name():
    names = {name for spec in SPECS.values() if "columns" in spec for name in spec["columns"]}
    assert names <= style.LABELS.keys()
    assert not {row.condition for row in lookup(table="2")} - style.LABELS.keys()


def test_a_task_without_a_table_of_its_own_has_one_of_its_metrics(monkeypatch):
    toy = dataclasses.replace(tables.TASKS["patching"], name="toy", title="Toy", table="9")
    monkeypatch.setattr(tables, "TASKS", tables.TASKS | {"toy": toy})
    monkeypatch.setattr(tables, "SPECS", tables._specs())
    records = [r | {"table": "9", "task": "toy"} for r in some_records() if r["table"] == "2"]
    made = table("table9", records)
    assert made.caption == "Toy" and made.header[2:4] == ("Exact match", "Has-changed F1")
    assert made.rows[0][1] == "Self" and str(made.rows[0][2]) == "35.2 ± 1.9"


def test_what_is_not_there_yet_and_the_error_by_other_clusters_are_said(records):
    notes = "\n".join(table("table1", records).notes)
    assert "best constant description" in notes and "echo" in notes and "near-twin" not in notes
    by = [
        r | {"clusters": "pair", "error_by": {"relation": {"stderr": 0.042}}}
        for r in some_records()
    ]
    said = "Self, Exact match: ± 1.9 by pair, ± 4.2 by relation."
    assert any(said in note for note in table("table2", by).notes)
    assert tables.BOLD not in "".join(table("table2", [r | {"p": None} for r in by]).notes)


def test_splits_and_the_papers_own_lookup_are_named(records):
    seen = [r | {"table": "1-seen"} for r in records if r["table"] == "1"]
    assert (f"{TARGET} (label seen in training)", "Self") in cells(table("table1_splits", seen))
    lookup_ = record("2-lookup", "lookup", "full", "has_changed_f1", 0.82, target="llama-3.1-8b")
    row = cells(table("table2", [*some_records(), lookup_]))[
        "llama-3.1-8b (the paper's data)", "Lookup (token type × layers)"
    ]
    assert row["Has-changed F1"] == "82.0 ± 1.9"
