import csv
import io

import pytest

from introspect_utils.report import figures, style, tables
from introspect_utils.report.paper import count_condition, lookup
from introspect_utils.report.table import Score, Table, save_table, tex

TARGET = "smollm2-135m-instruct"
ROWS = {  # explainer, condition: exact match, has-changed F1, content match, p against the best
    ("self", "full"): (0.352, 0.792, 0.41, 1.0),
    ("self", "no-vector"): (0.281, 0.774, 0.35, 0.004),
    ("self", "no-layer"): (0.345, 0.788, 0.405, 0.31),
    ("self", "no-token"): (0.34, 0.78, 0.4, 0.12),
    ("self", "zero-vector"): (0.275, 0.76, 0.33, 0.002),
    ("self", "shuffled-vector"): (0.25, 0.74, 0.31, 0.001),
    ("gemma3-270m", "full"): (0.3, 0.75, 0.36, 0.01),
    ("untrained", "full"): (0.02, 0.31, 0.06, 0.0),
    ("lookup", "full"): (0.2, 0.775, 0.25, 0.0),
    ("majority", "full"): (0.12, 0.33, 0.15, 0.0),
}


def record(
    table,
    explainer,
    condition,
    metric,
    value,
    stderr=0.019,
    p=None,
    target=TARGET,
    data="test",
    task="patching",
):
    return {
        "table": table,
        "task": task,
        "data": data,
        "target": target,
        "explainer": explainer,
        "condition": condition,
        "metric": metric,
        "value": value,
        "stderr": stderr,
        "n": 600,
        "seeds": [0, 1],
        "n_train": None if explainer in ("lookup", "majority") else 2000,
        "trained_parameters": 0 if explainer in ("lookup", "majority", "untrained") else 1_234_567,
        "paper": None,
        "artifact": f"artifacts/mini/{explainer}_{condition}",
        "p_vs_best": p,
    }


MADE = "| 600 | 0, 1 | 2000 | 1,234,567 |"


def some_records(target=TARGET):
    found = []
    for (explainer, condition), (*values, p) in ROWS.items():
        for metric, value in zip(
            ("exact_match", "has_changed_f1", "content_match"), values, strict=True
        ):
            found.append(record("2", explainer, condition, metric, value, p=p, target=target))
        found.append(record("2", explainer, condition, "unparseable", 0.01, 0.004, target=target))
    for control, value in (
        ("zero-vector", 0.077),
        ("shuffled-vector", 0.102),
        ("no-vector", -0.071),
    ):
        found += [
            record("2-vector", "self", f"full minus {control}", metric, value, 0.016, target=target)
            for metric in ("exact_match", "has_changed_f1", "content_match")
        ]
    found.append(record("C.1", "self", "locate", "exact_match", 0.963, 0.006, target=target))
    counts = (
        ("train", "relation", "0-6", 12),
        ("train", " or", "0-6", 3),
        ("train", "</s> / x", "0-6", 4),
        ("test", "subject-final", "7-14", 9),
    )
    for split, token_type, layers, count in counts:
        for label in ("unchanged", "changed"):
            condition = count_condition(token_type, layers, label)
            found.append(
                record(
                    "6",
                    "",
                    condition,
                    "count",
                    count + (label == "changed"),
                    None,
                    target=target,
                    data=split,
                )
            )
    return found


def test_table_2_stands_above_the_papers():
    lines = tables.table2(some_records()).markdown().splitlines()
    assert (
        f"| {TARGET} (here) | Self | **35.2 ± 1.9** | **79.2 ± 1.9** | **41.0 ± 1.9** | 1.0 ± 0.4 "
        f"{MADE}" in lines
    )
    assert (
        f"| {TARGET} (here) | Self, – activation | 28.1 ± 1.9 | 77.4 ± 1.9 | 35.0 ± 1.9 | 1.0 ± "
        f"0.4 {MADE}" in lines
    )
    assert (
        "| qwen3-8b (paper) | Self | 64.0 ± 0.4 | 80.2 ± 0.3 | 71.0 ± 0.4 | – | – | – | – | – |"
        in lines
    )
    assert (
        "| llama-3.1-8b (paper) | Untrained | 3.2 ± 0.1 | 31.4 ± 0.4 | 7.0 ± 0.2 | – | – | – | – | "
        "– |" in lines
    )
    rows = [line for line in lines if line.startswith("| ") and "(" in line]
    assert len(rows) == len(ROWS) + 12
    assert (
        "- smollm2-135m-instruct: a difference in exact match below about 3.1 points"
        in "\n".join(lines)
    )
    assert (
        f"- `artifacts/mini/self_full`: {TARGET} (here), Self" in lines and "paper" not in lines[-1]
    )
    one_seed = [{**record, "seeds": record["seeds"][:1]} for record in some_records()]
    assert "One training seed" in tables.table2(
        one_seed
    ).markdown() and "One training seed" not in "".join(lines)


def test_rows_are_in_the_papers_order():
    names = [row[1] for row in tables.table2(list(reversed(some_records()))).rows[: len(ROWS)]]
    expected = [
        "Self",
        "Self, – activation",
        "Self, zero vector at test",
        "Self, shuffled vector at test",
        "Self, – layer",
        "Self, – token",
    ]
    assert names == [
        *expected,
        "gemma3-270m",
        "Untrained",
        "Lookup (token type × layers)",
        "Majority",
    ]


def test_csv_has_plain_numbers():
    rows = list(csv.DictReader(io.StringIO(tables.table2(some_records()).csv())))
    first, last = rows[0], rows[-1]
    assert (first["Exact match"], first["Exact match (s.e.)"], first["Exact match (bold)"]) == (
        "35.2000",
        "1.9000",
        "True",
    )
    assert (last["Target"], last["Content match"], last["Unparseable"]) == (
        "llama-3.1-8b (paper)",
        "7.0000",
        "",
    )


def test_latex_is_escaped_and_balanced():
    text = tables.table2(some_records()).latex()
    assert (
        r"\textbf{35.2 $\pm$ 1.9}" in text
        and r"\texttt{artifacts/mini/self\_full}" in text
        and "Self, -- activation" in text
    )
    assert text.count(r"\midrule") == 3 and text.count(r"\begin") == text.count(r"\end") == 2
    assert not set(text) & set("±×–≥`") and "_" not in text.replace(r"\_", "")
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    body = text.split(r"\midrule")[1].strip().splitlines()[0]
    assert body.replace(r"\&", "").count("&") == len(columns) - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & a_b #1 {x}", r"50\% \& a\_b \#1 \{x\}"),
        (
            "\\^~$<>",
            r"\textbackslash{}\textasciicircum{}\textasciitilde{}\$\textless{}\textgreater{}",
        ),
    ],
)
def test_tex(text, expected):
    assert tex(text) == expected


def test_cells():
    assert (
        str(Score(0.0502, 0.002)) == "5.0 ± 0.2"
        and str(Score(0.834)) == "83.4"
        and str(Score(0.077, 0.016, signed=True)) == "+7.7 ± 1.6"
    )
    table = Table("Odd | cells", ("a",), (("x|y\n",),))
    assert (
        "| x\\|y\\n |" in table.markdown()
        and r"x|y\textbackslash{}n" in table.latex()
        and table.csv() == 'a\n"x|y\n"\n'
    )


def test_what_the_vector_adds():
    lines = tables.table_vector(some_records()).markdown().splitlines()
    assert any(
        line.startswith(f"| {TARGET} (here) | Self | full minus zero-vector | +7.7 ± 1.6 |")
        for line in lines
    )
    assert any("full minus no-vector | -7.1 ± 1.6 |" in line for line in lines)
    assert (
        "| qwen3-8b (paper) | Self | full minus no-vector | +4.1 | +3.7 | +2.4 | – | – |" in lines
    )


def test_table_6_beside_the_papers():
    rows = tables.table6(some_records()).rows
    assert (TARGET, "train", "relation", "0-6", 12, 13, "0-7", 792, 911) in rows
    assert (TARGET, "train", "other tokens", "0-6", 7, 9, "–", "–", "–") in rows
    assert (TARGET, "test", "subject-final", "7-14", 9, 10, "8-15", 53, 211) in rows
    assert (TARGET, "test", "relation", "–", "–", "–", "24-31", 348, 22) in rows
    assert (
        sum(row[7] for row in rows if row[7] != "–") + sum(row[8] for row in rows if row[8] != "–")
        == 13_454 + 5_600
    )
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)


def test_locate_beside_the_papers():
    lines = tables.table_locate(some_records()).markdown().splitlines()
    assert f"| {TARGET} (here) | Self | 96.3 ± 0.6 | 600 | 0, 1 | 2000 | 1,234,567 |" in lines
    assert "| llama-3.1-8b (paper) | Self | 98.7 | – | – | – | – |" in lines


def test_saved_files(tmp_path):
    paths = save_table(tables.table6(some_records()), tmp_path / "tables", "table6")
    assert [path.name for path in paths] == ["table6.md", "table6.csv", "table6.tex"] and all(
        path.stat().st_size for path in paths
    )


def test_figure_is_the_same_bytes_each_time(tmp_path):
    first, second = (
        style.save_figure(tables.figure_patching(some_records()), tmp_path / name, "figure")
        for name in "ab"
    )
    assert [path.suffix for path in first] == [".png", ".svg", ".pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_figure_shows_every_row_and_the_papers_marks():
    figure = tables.figure_patching(some_records() + some_records("llama-3.1-8b"))
    assert len(figure.axes) == 6
    panel = figure.axes[0]
    assert len(panel.containers) == len(ROWS)
    marks = sorted(line.get_xdata()[0] for line in panel.lines if line.get_marker() == "D")
    llama = [
        row.value * 100
        for row in lookup(table="2", target="llama-3.1-8b", metric="exact_match")
        if row.explainer != "qwen3-8b"
    ]
    assert marks == pytest.approx(sorted(llama))


def test_colours_are_fixed_and_in_the_legend():
    assert (
        style.colour("self") == style.BLUE and style.colour("self", "zero-vector") == style.ORANGE
    )
    assert (
        style.colour("gemma3-270m") == style.VERMILLION and style.colour("untrained") == style.GREY
    )
    used = {*style.EXPLAINER.values(), *style.CONDITION.values(), style.VERMILLION}
    assert used <= style.LEGEND.keys()


def ablation_records():
    scores = {
        ("self", "full"): (0.4, 0.7, 0.5),
        ("gemma3-270m", "full"): (0.3, 0.6, 0.4),
        ("untrained", "full"): (0.1, 0.35, 0.3),
        ("oracle", "full"): (0.8, 0.8, 1.0),
        ("hint-letter", "full"): (0.2, 0.3, 0.25),
    }
    found = [
        record("3", *name, metric, value, p=None if name[0] == "oracle" else 1.0, task="ablation")
        for name, values in scores.items()
        for metric, value in zip(
            ("exact_match", "has_changed_f1", "content_match"), values, strict=True
        )
    ]
    found.append(record("sec5.2", "untrained", "full", "predicted_changed", 0.02, task="ablation"))
    found.append(
        record("sec5.2", "untrained", "changed rows", "content_match", 0.1, task="ablation")
    )
    for part, label, value in (
        ("train", "changed", 60),
        ("train", "unchanged", 40),
        ("test", "changed", 5),
        ("test", "unchanged", 5),
    ):
        found.append(record("7", "", label, "count", value, None, data=part, task="ablation"))
    for condition, value, n in (
        ("anatomy / right", 0.5, 4),
        ("anatomy / wrong", 0.75, 8),
        ("virology / wrong", 1.0, 12),
    ):
        found.append(
            record("hints", "", condition, "follows_hint", value, None, task="ablation") | {"n": n}
        )
    return found


def test_table_3_stands_above_both_versions_of_the_papers():
    table = tables.table3(ablation_records())
    lines = table.markdown().splitlines()
    assert [row[1] for row in table.rows[:5]] == [
        "Self", "gemma3-270m", "Untrained", "The hint’s letter", "Oracle: the target’s own answer",
    ]  # fmt: skip
    assert (
        sum("(paper v1)" in line for line in lines) == 6
        and sum("(paper v3)" in line for line in lines) == 3
    )
    assert any(
        line.startswith("| qwen3-8b (paper v1) | Self | 62.7 ± 1.3 | 73.4 ± 1.1 | 70.5 ± 1.2 |")
        for line in lines
    )
    assert any(
        line.startswith("| qwen3-8b (paper v3) | Self | 83.4 | 87.0 | 90.6 |") for line in lines
    )
    assert any(
        line.startswith("| llama-3.1-8b-instruct (paper v3) | Self | 63.8 | – | – |")
        for line in lines
    )
    untrained = dict(zip(table.header, table.rows[2], strict=True))
    assert (
        str(untrained["Says “changed”"]) == "2.0 ± 1.9"
        and str(untrained["Content match, changed rows"]) == "10.0 ± 1.9"
    )
    qwen = next(row for row in table.rows if row[:2] == ("qwen3-8b (paper v1)", "Untrained"))
    assert [str(cell) for cell in qwen[6:10]] == ["0.4", "14.3", "91.0", "–"]
    assert "**80.0" not in "".join(lines) and "**40.0" in "".join(
        lines
    )  # the oracle is no competitor
    latex = table.latex()
    assert (
        not set(latex) & set("±–≥“”’`")
        and r"\textquotedblleft{}changed\textquotedblright{}" in latex
    )


def test_table_7_beside_the_papers():
    rows = tables.table7(ablation_records()).rows
    assert rows[0] == (f"{TARGET} (here)", "train", 60, 40, Score(0.6)) and rows[1][:2] == (
        f"{TARGET} (here)",
        "test",
    )
    assert ("qwen3-8b (paper)", "test", 929, 466, Score(929 / 1395)) in rows and len(rows) == 6


def test_the_hint_figure_has_a_line_for_all_and_for_each_large_subject(tmp_path):
    cells = tables.hint_cells(ablation_records())
    assert cells[TARGET][1] == {"subject": "anatomy", "right": False, "n": 8, "followed": 6}
    (panel,) = figures.hints_followed(cells, least=12).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "all subjects (24)",
        "anatomy (12)",
        "virology (12)",
    ]
    dots = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([50, 100 * 18 / 20, 50, 75, 100])
    two = figures.hints_followed({"a": cells[TARGET], "b": cells[TARGET]})
    assert len(two.axes) == 2
    first, second = (
        style.save_figure(figures.hints_followed(cells), tmp_path / name, "figure") for name in "ab"
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
