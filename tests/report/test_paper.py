"""Every number of paper.py against the paper's own text, read here row by row; skipped where the
text is absent."""

import re
from pathlib import Path

import pytest

from introspect_utils.report import paper
from introspect_utils.report.paper import PUBLISHED, lookup, published

TEXT = Path(__file__).resolve().parents[3] / "shared" / "paper" / "paper.txt"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def text():
    if not TEXT.exists():
        pytest.skip(f"the paper's text is not at {TEXT}")
    return TEXT.read_text()


def rows_above(text, caption, header):
    """Tab-separated rows of the table that ends with `caption`, below the line that starts with
    `header`."""
    body = text[: text.index(caption)]
    return [
        line.split("\t") for line in body[body.rindex(header) :].splitlines()[1:] if line.strip()
    ]


def score(cell):
    """'45.1 \\pm 0.7' -> (45.1, 0.7)."""
    value, *stderr = map(float, NUMBER.findall(cell))
    return value, stderr[0] if stderr else None


def assert_rows(found, expected):
    """`found`: numbers of paper.py in the paper's order; `expected`: (value, error) on the printed
    scale."""
    ours = [
        (round(row.value * 100, 6), None if row.stderr is None else round(row.stderr * 100, 6))
        for row in found
    ]
    assert ours == expected


def test_table_1(text):
    rows = rows_above(text, "Table 1:", "Explainer\tSAE\t\tACT")
    cells = [score(cell) for _, *cells in rows for cell in cells if NUMBER.search(cell)]
    assert len(cells) == 11 * 4 + 2
    assert_rows(lookup(table="1"), cells)


@pytest.mark.parametrize("table", ["2", "3"])
def test_tables_2_and_3(text, table):
    rows = rows_above(text, f"Table {table}:", "Target\tExplainer\tExact Match")
    assert_rows(lookup(table=table), [score(cell) for _, _, *cells in rows for cell in cells])


def test_rows_of_table_2_are_attributed_to_the_right_target(text):
    """The names: an ablation belongs to the explainer above it, an untrained model explains
    itself."""
    target, names = "", []
    for _, explainer, *_ in rows_above(text, "Table 2:", "Target\tExplainer\tExact Match"):
        if not explainer.startswith("–"):
            model = explainer.replace("Qwen-3", "Qwen3").replace(" (Untrained)", "").lower()
            # the untrained row is the last of its target, so the next trained model starts a new
            # one
            target = target or model
            names.append(
                (
                    target,
                    "untrained"
                    if "Untrained" in explainer
                    else "self"
                    if model == target
                    else model,
                    "full",
                )
            )
            target = "" if "Untrained" in explainer else target
        else:
            names.append(
                (
                    target,
                    "self",
                    {"activation": "no-vector"}.get(explainer[2:], f"no-{explainer[2:]}"),
                )
            )
    ours = [
        (row.target, row.explainer, row.condition)
        for row in lookup(table="2", metric="exact_match")
    ]
    assert ours == names and len(names) == 12


def test_rows_of_table_3_are_attributed(text):
    short = {"Llama-Inst.": "llama-3.1-8b-instruct", "Qwen3-8B": "qwen3-8b"}
    names = []
    for target, explainer, *_ in rows_above(text, "Table 3:", "Target\tExplainer\tExact Match"):
        model = short[explainer.replace(" (Untrained)", "")]
        if "Untrained" in explainer:
            names.append(
                (model, "untrained")
            )  # "untrained models explaining themselves"; the first column repeats the explainer
        else:
            names.append((short[target], "self" if model == short[target] else model))
    assert [(row.target, row.explainer) for row in lookup(table="3", metric="exact_match")] == names


def test_v3_of_table_3():
    self, untrained = (
        [row.value for row in lookup(version="v3", target="qwen3-8b", explainer=e)]
        for e in ("self", "untrained")
    )
    assert self == [0.834, 0.87, 0.906] and untrained == [0.089, 0.444, 0.353]
    (llama,) = lookup(version="v3", target="llama-3.1-8b-instruct")
    assert (llama.explainer, llama.metric, llama.value) == ("self", "exact_match", 0.638)


def test_tables_4_and_5(text):
    assert_rows(
        lookup(table="4"),
        [score(row[1]) for row in rows_above(text, "Table 4:", "Model\tSAE (LM Judge)")],
    )
    rows = rows_above(text, "Table 5:", "Model\tSAE Act. Pattern")
    assert_rows(
        lookup(table="5"),
        [(number, None) for _, *cells in rows for cell in cells for number in score(cell)],
    )


def test_table_6(text):
    split, token_type, expected = "", "", {}
    for row in rows_above(text, "Table 6:", "\t\t\tFalse\tTrue"):
        at = next(i for i, cell in enumerate(row) if cell.startswith("("))
        first = [cell for cell in row[:at] if cell]
        split = next((cell.lower() for cell in first if cell in ("Train", "Test")), split)
        token_type = next((cell for cell in first if cell not in ("Train", "Test")), token_type)
        layers = NUMBER.findall(row[at])
        for label, count in zip(
            ("unchanged", "changed"), [cell for cell in row[at + 1 :] if cell], strict=True
        ):
            name = paper.count_condition(
                token_type.lower().replace(" ", "-"), f"{layers[0]}-{layers[-1]}", label
            )
            expected[split, name] = float(count)
    assert {(row.data, row.condition): row.value for row in lookup(table="6")} == expected
    assert len(expected) == 2 * 5 * 4 * 2


def test_table_7(text):
    target, expected = "", {}
    for model, split, changed, unchanged in rows_above(
        text, "Table 7:", "Target Model\tData Split"
    ):
        target = model.lower() or target
        expected |= {
            (target, split.lower(), "changed"): float(changed),
            (target, split.lower(), "unchanged"): float(unchanged),
        }
    assert {
        (row.target, row.data, row.condition): row.value for row in lookup(table="7")
    } == expected


def test_counts_add_up_to_the_published_datasets():
    def total(**fields):
        return sum(row.value for row in lookup(metric="count", **fields))

    assert total(table="6", data="train") == 13_454 and total(table="6", data="test") == 5_600
    assert (
        total(table="7", target="qwen3-8b", data="train")
        == total(table="7", target="llama-3.1-8b-instruct", data="train")
        == 12_642
    )


QUOTES = {
    "sec4": [
        r"Llama is already at (71)% of its end-performance. Qwen is only at (35)% .* at (55)% of",
        r"achieves (92.9)% of the end-performance of all-layer nearest neighbors and (77.4)%",
    ],
    "sec5.2": [
        r"only (0.4)% of the time.*unchanged answers \((91.0)% content match\).*\((14.3)% content match\)",
        r"as the hint (81.9)% of the time",
        r"around random \((25)%\)",
    ],
    "A.2": [
        r"we achieve (64)% exact agreement",
        r"agreement increases to (81.25)%",
        r"3 out of 100 pairs \((3)%\)",
    ],
    "B.4": [r"achieve (77.3)% and (75.2)% token-level"],
    "B.5": [r"only (27.7)% of cases"],
    "fig8": [
        r"only (27)% are genuine .* labels \((43.5)%\), LM judge error \((11)%\), and inherent .* activation \((18)%\)"
    ],
    "C.1": [r"get (98.7)% exact match accuracy"],
}


@pytest.mark.parametrize("table", QUOTES)
def test_numbers_quoted_in_the_text(text, table):
    expected = [
        float(number) for pattern in QUOTES[table] for number in re.search(pattern, text).groups()
    ]
    if table == "sec4":
        expected.insert(
            2, expected[2]
        )  # "both forms of nearest neighbors (within- and across-layer) are at 55%"
    assert_rows(lookup(table=table), [(number, None) for number in expected])


def test_lookup():
    one = published(
        table="2", target="qwen3-8b", explainer="self", condition="full", metric="exact_match"
    )
    assert (one.value, one.stderr, one.task, one.version) == (0.64, 0.004, "patching", "v1")
    assert published(table="2", target="smollm2-135m-instruct") is None
    with pytest.raises(ValueError, match="36 numbers"):
        published(table="2")
    assert paper.model_name("Qwen/Qwen3-8B") == "qwen3-8b"
    assert (
        paper.count_condition("Subject Final", "0-7", "changed") == "subject-final / 0-7 / changed"
    )
    assert (
        paper.count_condition("New Answer Option", "0-7", "changed")
        == "changed-answer-option / 0-7 / changed"
    )
    assert paper.count_condition(" New York / x", "0-7", "changed").rsplit(" / ", 2) == [
        " New York / x",
        "0-7",
        "changed",
    ]


def test_no_number_twice_and_all_on_one_scale():
    keys = [
        (r.table, r.data, r.target, r.explainer, r.condition, r.metric, r.version)
        for r in PUBLISHED
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= row.value <= 1 for row in PUBLISHED if row.metric != "count")
