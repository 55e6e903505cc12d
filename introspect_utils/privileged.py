"""Privileged access as an estimate: what a self-explainer scores above each other explainer of its target, on the same rows.

The paper compares whole models that differ in many things. *rotated* differs from the target in its basis alone, *sibling* in a
little training, so their gaps say how much of the effect is basis and how much the model.
"""

from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import style
from .layout import column, published_rows
from .models import variant
from .table import Score, Table
from .table_rows import SURFACE

PAIRED = {"1-paired": "1", "2-paired": "2", "3-paired": "3", "4-paired": "4"}
NO_EXPLAINER = (*SURFACE, "self", "untrained", "nn-all", "nn-layer", "selfie", "most-frequent", "gold")
CONTROLS = ("zero-vector", "shuffled-vector", "no-vector", "no-layer", "no-token")
TASKS = {"1": "features", "2": "patching", "3": "ablation", "4": "features"}


def _trained_other(explainer: str, condition: str) -> bool:
    """Whether a row is a trained explainer other than the target, given all that the self-explainer is given."""
    return style.kind(explainer) not in NO_EXPLAINER and condition not in CONTROLS


def gaps(records: Iterable[dict]) -> list[dict]:
    """The paired differences, self minus another trained explainer, of all tasks; points on the way to a variant left out."""
    return [
        r
        for r in records
        if r["table"] in PAIRED and _trained_other(r["explainer"], r["condition"]) and variant(r["explainer"])[1] == 1
    ]


def paper_gaps() -> list[dict]:
    """The paper's own gaps: differences of the rows of its Tables 1 to 4 (v1), errors added as if the rows were independent."""
    found = []
    for table in TASKS:
        rows = published_rows(table)
        own = {target: by for target, explainer, condition, by in rows if (explainer, condition) == ("self", "full")}
        for target, explainer, condition, by in rows:
            if target in own and _trained_other(explainer, condition) and condition != "lora":
                found += [
                    {
                        **{"table": table, "task": TASKS[table], "target": target, "explainer": explainer},
                        **{"condition": condition, "column": name, "value": own[target][name].value - by[name].value},
                        "stderr": float(np.hypot(own[target][name].stderr or 0, by[name].stderr or 0)),
                    }
                    for name in by.keys() & own[target].keys()
                ]
    return found


def table_privileged(records: list[dict]) -> Table:
    """A line for each task, target, explainer and metric: the gap with its 95% interval, and the test's p."""
    found = gaps(records)
    rows = [(*_line(r, style.label(r["explainer"], r["condition"])), f"{r['p_vs_best']:.2g}") for r in found]
    return Table(
        "Privileged access: what the self-explainer scores above each other trained explainer of the same target "
        "(paired by test row and seed; ± standard error over rows and seeds, scaled to 100).",
        ("Task", "Target", "Self minus", "Metric", "Gap", "95% interval", "n", "Seeds", "p"),
        tuple(rows),
        ("With one seed the interval leaves the training noise out: a gap may be luck of the seed.",),
        tuple(r["artifact"] for r in found),
    )


def table_vector(records: list[dict]) -> Table:
    """What the vector adds over the text alone, for every task that has one and every explainer."""
    found = [r for r in records if r["table"] in ("1-vector", "2-vector", "4-vector")]
    return Table(
        "What the vector adds: an explainer minus the same one without its vector, with a zero, or with another row's "
        "(paired; ± standard error, scaled to 100).",
        ("Task", "Target", "Explainer", "Metric", "Difference", "95% interval", "n", "Seeds", "Difference to"),
        tuple((*_line(r, style.label(r["explainer"])), r["condition"].removeprefix("full minus ")) for r in found),
        (),
        tuple(r["artifact"] for r in found),
    )


def _line(r: dict, name: str) -> tuple:
    """The cells that both tables have: what is compared, the difference, its interval, and what it rests on."""
    compared = r["task"], r["target"], name, style.LABELS[column(r["data"], r["metric"])]
    return (*compared, Score(r["value"], r["stderr"], signed=True), _interval(r), r["n"], ", ".join(map(str, r["seeds"])))


def _interval(record: dict) -> str:
    low, high = (100 * (record["value"] + sign * 1.96 * record["stderr"]) for sign in (-1, 1))
    return f"{low:+.1f} to {high:+.1f}"


def figure_privileged(records: list[dict]) -> Figure:
    """A forest plot: a panel for each task's metric, a line for each explainer, its gap and 95% interval; then the paper's."""
    ours = [r | {"column": column(r["data"], r["metric"])} for r in gaps(records)]
    shown = list(dict.fromkeys((r["task"], r["column"]) for r in ours))
    with matplotlib.rc_context(style.SETTINGS):
        figure = Figure(figsize=(9.6, 0.4 + 2.6 * max(1, -(-len(shown) // 3))), layout="constrained")
        grid = figure.subplots(-(-len(shown) // 3), min(3, len(shown)), squeeze=False).flatten()
        for axes, (task, name) in zip(grid, shown, strict=False):
            lines = [(r, True) for r in ours if (r["task"], r["column"]) == (task, name)]
            lines += [(r, False) for r in paper_gaps() if (r["task"], r["column"]) == (task, name)]
            for y, (r, here) in enumerate(lines):
                value, error = 100 * r["value"], 196 * r["stderr"]
                colour = style.colour(r["explainer"], r["condition"]) if here else style.REFERENCE["mec"]
                axes.errorbar(
                    value,
                    y,
                    xerr=error,
                    fmt="o" if here else "D",
                    color=colour,
                    mfc=colour if here else "none",
                    ms=4.5,
                    capsize=2,
                )
            axes.axvline(0, color=style.BLACK, lw=0.8)
            labels = [style.label(r["explainer"], r["condition"]) + ("" if here else f" ({r['target']})") for r, here in lines]
            axes.set_yticks(range(len(lines)), labels)
            axes.set(title=f"{task}: {style.LABELS[name]}", ylim=(len(lines) - 0.5, -0.5))
            axes.grid(axis="x", lw=0.4, alpha=0.5)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        figure.supxlabel("self minus the explainer named, score × 100; bars: 95% interval", fontsize=8)
        handles = [
            Line2D([], [], color=c, marker="o", ls="", ms=4.5, label=style.LEGEND[c])
            for c in (style.GREEN, style.PURPLE, style.VERMILLION)
        ]
        handles.append(Line2D([], [], **style.REFERENCE, label="the paper (target in brackets)"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure
