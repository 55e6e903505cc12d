"""Privileged access as an estimate: what a self-explainer scores above each other explainer of its
target, on the same rows.

The paper compares whole models that differ in many things. *rotated* differs from the target in its
basis alone, *sibling* in a little training, so their gaps say how much of the effect is basis and
how much the model.
"""

from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from introspect_utils.report import style
from introspect_utils.report.layout import column, published_rows
from introspect_utils.report.paper import lookup
from introspect_utils.report.table import Score, Table
from introspect_utils.settings.names import variant

TABLES = ("1", "2", "3", "4")
SMALLER = "scaling-paired"  # explainers trained on fewer rows than those of the tables
PAIRED = (*(f"{table}-paired" for table in TABLES), SMALLER)


def _trained_other(explainer: str, condition: str) -> bool:
    """Whether a row is a trained explainer other than the target, given all that the self-explainer
    is given."""
    return (
        style.kind(explainer) in ("sibling", "rotated", "other")
        and condition not in style.CONDITION
    )


def gaps(records: Iterable[dict]) -> list[dict]:
    """The paired differences, self minus another trained explainer, of all tasks; points on the way
    to a variant left out."""
    return [
        r
        for r in records
        if r["table"] in PAIRED
        and _trained_other(r["explainer"], r["condition"])
        and variant(r["explainer"])[1] == 1
    ]


def paper_gaps() -> list[dict]:
    """The paper's own gaps: differences of the rows of its Tables 1 to 4 (v1), errors added as if
    the rows were independent."""
    found = []
    for table in TABLES:
        rows = published_rows(table)
        own = {
            target: by
            for target, explainer, condition, by in rows
            if (explainer, condition) == ("self", "full")
        }
        for target, explainer, condition, by in rows:
            if target in own and _trained_other(explainer, condition) and condition != "lora":
                found += [
                    {
                        **{
                            "table": table,
                            "task": lookup("v1", table=table)[0].task,
                            "target": target,
                            "explainer": explainer,
                        },
                        **{
                            "condition": condition,
                            "column": name,
                            "value": own[target][name].value - by[name].value,
                        },
                        "stderr": float(
                            np.hypot(own[target][name].stderr or 0, by[name].stderr or 0)
                        ),
                    }
                    for name in by.keys() & own[target].keys()
                ]
    return found


def table_privileged(records: list[dict]) -> Table:
    """A line for each task, target, explainer, size and metric: the gap with its 95% interval, and
    the test's p."""
    found = gaps(records)
    rows = [
        (
            *_line(r, style.label(r["explainer"], r["condition"])),
            f"{r['p_vs_best']:.2g}",
            f"{r['n_train']:,}",
        )
        for r in found
    ]
    return Table(
        "Privileged access: what the self-explainer scores above each other trained explainer of "
        "the same target "
        "(paired by test row and seed; ± standard error over rows and seeds, scaled to 100).",
        (
            "Task",
            "Target",
            "Self minus",
            "Metric",
            "Gap",
            "95% interval",
            "n",
            "Seeds",
            "p",
            "Trained on",
        ),
        tuple(rows),
        (
            "With one seed the interval leaves the training noise out: a gap may be luck of the "
            "seed.",
            "p is of the paired t-test over test rows; for has-changed F1, no mean over rows, of "
            "whether each row is right.",
        ),
        tuple(r["artifact"] for r in found),
    )


def table_vector(records: list[dict]) -> Table:
    """What the vector adds over the text alone, for every task that has one and every explainer."""
    found = [r for r in records if r["table"] in ("1-vector", "2-vector", "4-vector")]
    return Table(
        "What the vector adds: an explainer minus the same one without its vector, with a zero, or "
        "with another row's "
        "(paired; ± standard error, scaled to 100).",
        (
            "Task",
            "Target",
            "Explainer",
            "Metric",
            "Difference",
            "95% interval",
            "n",
            "Seeds",
            "Difference to",
        ),
        tuple(
            (*_line(r, style.label(r["explainer"])), r["condition"].removeprefix("full minus "))
            for r in found
        ),
        (),
        tuple(r["artifact"] for r in found),
    )


def _line(r: dict, name: str) -> tuple:
    """The cells that both tables have: what is compared, the difference, its interval, and what it
    rests on."""
    compared = r["task"], r["target"], name, style.LABELS[column(r["data"], r["metric"])]
    return (
        *compared,
        Score(r["value"], r["stderr"], signed=True),
        _interval(r),
        r["n"],
        ", ".join(map(str, r["seeds"])),
    )


def _interval(record: dict) -> str:
    low, high = (100 * (record["value"] + sign * 1.96 * record["stderr"]) for sign in (-1, 1))
    return f"{low:+.1f} to {high:+.1f}"


def figure_privileged(records: list[dict]) -> Figure:
    """A forest plot: a line of panels for each task, one for each metric; each explainer's gap with
    its 95% interval, then the paper's gaps of the same task."""
    found = [(r | {"column": column(r["data"], r["metric"])}, True) for r in gaps(records)]
    tasks = list(dict.fromkeys(r["task"] for r, _ in found))
    found += [(r, False) for r in paper_gaps() if r["task"] in tasks]
    targets = {
        task: {r["target"] for r, here in found if here and r["task"] == task} for task in tasks
    }
    drawn = [
        (r, here, _name(r, with_target=not here or len(targets[r["task"]]) > 1))
        for r, here in found
    ]
    lines = {
        task: list(dict.fromkeys(line for r, _, line in drawn if r["task"] == task))
        for task in tasks
    }
    columns = {
        task: sorted(
            {r["column"] for r, _ in found if r["task"] == task}, key=list(style.LABELS).index
        )
        for task in tasks
    }
    heights = [0.22 * len(lines[task]) + 0.6 for task in tasks]
    with matplotlib.rc_context(style.SETTINGS):
        figure = Figure(figsize=(9.6, sum(heights) + 0.7), layout="constrained")
        for part, task in zip(
            figure.subfigures(len(tasks), 1, height_ratios=heights, squeeze=False)[:, 0],
            tasks,
            strict=True,
        ):
            panels = part.subplots(1, len(columns[task]), squeeze=False, sharey=True)[0]
            for axes, name in zip(panels, columns[task], strict=True):
                shown = [
                    mark for mark in drawn if (mark[0]["task"], mark[0]["column"]) == (task, name)
                ]
                for r, here, line in shown:
                    colour = (
                        style.colour(r["explainer"], r["condition"])
                        if here
                        else style.REFERENCE["mec"]
                    )
                    shape = {"fmt": "o"} if here else {"fmt": "D", "mfc": "none"}
                    y, bar = lines[task].index(line), 196 * r["stderr"]
                    axes.errorbar(
                        100 * r["value"],
                        y,
                        xerr=bar,
                        color=colour,
                        ms=4,
                        capsize=2,
                        lw=1.1,
                        **shape,
                    )
                axes.axvline(0, color=style.BLACK, lw=0.8)
                axes.set_title(style.title(name, [r for r, here, _ in shown if here]))
                axes.set_ylim(len(lines[task]) - 0.5, -0.5)
                axes.grid(axis="x", lw=0.4, alpha=0.5)
            panels[0].set_yticks(range(len(lines[task])), lines[task])
            panels[0].set_ylabel(task)
        colours = dict.fromkeys(
            style.colour(r["explainer"], r["condition"]) for r, here in found if here
        )
        handles = [
            Line2D([], [], color=c, marker="o", ls="", ms=4, label=style.LEGEND[c]) for c in colours
        ]
        handles.append(Line2D([], [], **style.REFERENCE, label="the paper: explainer → target"))
        title = "self minus the explainer named, score × 100; bars: 95% interval"
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4, frameon=False, title=title
        )
    return figure


def _name(r: dict, with_target: bool) -> str:
    """A line's name: the explainer, and where there are several targets, which one it explains."""
    short = {"random-projection": "random", "pretrained-projection": "fitted"}.get(
        r["condition"], ""
    )
    explainer = (
        f"{style.label(r['explainer'])}, {short}"
        if short
        else style.label(r["explainer"], r["condition"])
    )
    explainer += f" ({r['n_train']:,} rows)" if r["table"] == SMALLER else ""
    return f"{explainer} → {r['target']}" if with_target else explainer
