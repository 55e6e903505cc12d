"""Tables 1 and 4, section B.4 and their figure, from the records of `results.json`, the paper's own
rows beside ours."""

from matplotlib.figure import Figure

from introspect_utils.report import style
from introspect_utils.report.layout import (
    BOLD,
    ONE_SEED,
    TRAINED,
    UNSAID,
    Group,
    artifacts,
    by_row,
    by_target,
    dot_figure,
    named,
    published_rows,
    score,
    seeds,
    trained,
)
from introspect_utils.report.paper import GEMMA, LLAMA
from introspect_utils.report.table import Score, Table

COLUMNS = ("sae judge", "sae simulator", "act simulator", "dact simulator")  # of Tables 1 and 4
ABSOLUTE = ("sae simulator_abs", "act simulator_abs", "dact simulator_abs")
CONSTANT = ("sae constant", "act constant", "dact constant")
TARGETS = {"1": LLAMA, "4": GEMMA}  # the paper's target in each table
SIMULATOR = "Simulator: the mean signed correlation of simulated with true activations over a direction's exemplars (eq. 2)."


def table1(records: list[dict]) -> Table:
    """Table 1, feature descriptions: the rows of our first target, then the paper's."""
    return _descriptions(
        records,
        "1",
        "Table 1. Feature descriptions: how well each explainer describes its target's directions",
    )


def table4(records: list[dict]) -> Table:
    """Table 4, feature descriptions of other targets: our rows, then the paper's, of which it gives
    one column."""
    return _descriptions(records, "4", "Table 4. Feature descriptions of another target")


def _numbers(by: dict[str, dict]) -> str:
    """Test rows of the held-out sets, one number where they agree: "150 / 60 / 60" for SAE, ACT and
    dACT."""
    counts = [by[column]["n"] for column in COLUMNS[1:] if column in by]
    return " / ".join(map(str, counts if len(set(counts)) > 1 else counts[:1]))


def _descriptions(records: list[dict], table: str, caption: str) -> Table:
    ours = by_row(records, table)
    rows = [
        (*named(row), *(score(by.get(column)) for column in COLUMNS))
        + (_numbers(by), *trained(row))
        for row, by in ours
    ]
    rows += [
        (
            f"{target} (paper)",
            style.label(explainer, condition),
            *(by.get(column, "–") for column in COLUMNS),
            *UNSAID,
        )
        for target, explainer, condition, by in published_rows(table)
    ]
    notes = [
        BOLD + " The paper's bold is not in our copy of its text, so its rows carry none.",
        SIMULATOR
        + " The authors' code takes absolute values, so the paper's numbers may be means of those; ours are `simulator_abs`.",
        "SAE: held-out features; ACT: activations; dACT: activation differences; n in this order.",
        "Gold labels are what the judge compares with: 100 by definition, and no part of the bold "
        "of its column.",
        *_scorers(records, table),
    ]
    if ours and all(len(row["seeds"]) < 2 for row, _ in ours):
        notes.append(ONE_SEED)
    header = ("Target", "Explainer", *(style.LABELS[column] for column in COLUMNS), "n", *TRAINED)
    return Table(
        f"{caption} (mean ± standard error, scaled to 100).",
        header,
        tuple(rows),
        tuple(notes),
        artifacts(ours),
    )


def _scorers(records: list[dict], table: str) -> list[str]:
    """A line for each target of `table`: what its descriptions were scored by."""
    lines = []
    for target in by_target(by_row(records, table)):
        names = {
            r["metric"]: r["condition"]
            for r in records
            if (r["table"], r["target"]) == ("scored-by", target)
        }
        lines.append(
            f"{target}: scored by the judge {names['judge']} and the simulator "
            f"`{names['simulator']}`."
        )
    return lines


def table_paired(records: list[dict]) -> Table:
    """The self-explainer minus every other row of Tables 1 and 4, on the same test rows."""
    ours = by_row(records, "1-paired") + by_row(records, "4-paired")
    rows = [
        (
            *named(row),
            *(cell for column in COLUMNS for cell in _difference(by.get(column))),
            _numbers(by),
            seeds(row),
        )
        for row, by in ours
    ]
    return Table(
        "What the self-explainer is ahead by: paired differences on the same test rows (± standard "
        "error, scaled to 100), "
        "each with the p of the paired t-test.",
        (
            "Target",
            "Self minus",
            *(
                name
                for column in COLUMNS
                for name in (style.LABELS[column], f"p, {style.LABELS[column]}")
            ),
            "n",
            "Seeds",
        ),
        tuple(rows),
        (
            "Another explainer is another training run: with one seed the error leaves the "
            "training noise out.",
            "p is of the test rows' means over seeds; the standard error also holds the spread of "
            "the seeds.",
        ),
        artifacts(ours),
    )


def _difference(record: dict | None) -> tuple[Score | str, str]:
    """The cells of a difference: itself and its p."""
    if record is None:
        return "–", "–"
    return Score(record["value"], record["stderr"], signed=True), f"{record['p_vs_best']:.2g}"


def table_absolute(records: list[dict]) -> Table:
    """Tables 1 and 4 with the mean |r|, which the authors' code computes, in place of eq. 2's
    signed r; and what has no r."""
    ours = by_row(records, "1") + by_row(records, "4")
    rows = [
        (*named(row), *(score(by.get(column)) for column in ABSOLUTE))
        + tuple(f"{by[column]['value']:.2f}" if column in by else "–" for column in CONSTANT)
        for row, by in ours
    ]
    return Table(
        "Feature descriptions by the mean absolute correlation over exemplars (± standard error, "
        "scaled to 100); and how many "
        "of a description's exemplars have constant activations, true or simulated (r = 0).",
        ("Target", "Explainer", *(style.LABELS[column] for column in (*ABSOLUTE, *CONSTANT))),
        tuple(rows),
        (
            BOLD,
            "An absolute correlation also rewards a description that says where a direction is "
            "low; by chance it is above 0.",
        ),
        artifacts(ours),
    )


def table_token_match(records: list[dict]) -> Table:
    """Section B.4: how far a description stays the same when the prompt leaves the layer out, or
    names another."""
    name = "sae token_match"
    ours = by_row(records, "B.4")
    rows = [(*named(row), score(by[name]), row["n"], *trained(row)) for row, by in ours]
    for target, explainer, condition, by in published_rows("B.4"):
        rows.append((f"{target} (paper)", style.label(explainer, condition), by[name], *UNSAID))
    return Table(
        "Section B.4. Token match of a description with that for the right layer (mean ± standard "
        "error, scaled to 100).",
        ("Target", "Explainer", style.LABELS[name], "n", *TRAINED),
        tuple(rows),
        artifacts=artifacts(ours),
    )


def figure_features(records: list[dict]) -> Figure:
    """Tables 1 and 4 as dots with 95% bars, a line of panels for each target; diamonds are the
    paper's rows of the same name.

    The simulator's three panels have one scale, which depends on the scores shown; the judge's is
    whole.
    """
    groups = [
        Group(rows, TARGETS[table])
        for table in ("1", "4")
        for rows in by_target(by_row(records, table)).values()
    ]
    shown = [
        by[column]
        for group in groups
        for _, by in group.rows
        for column in COLUMNS[1:]
        if column in by
    ]
    ends = [100 * r["value"] + sign * 196 * r["stderr"] for r in shown for sign in (-1, 1)]
    ends += [
        100 * by[column].value
        for *_, by in published_rows("1")
        for column in COLUMNS[1:]
        if column in by
    ]
    limits = (min(0, *ends) - 2, max(ends) + 2)
    return dot_figure(groups, COLUMNS, width=9.6, limits=[(-2, 106), limits, limits, limits])
