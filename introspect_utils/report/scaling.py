"""How scores grow with the training directions (section 4): the curves of Figures 5 and 7, and the
paper's sentence about them.

end share    what part of its own end performance an explainer has with 0.8 % of the training
directions data factor  how many times the directions that NN-all needs to reach a score the
self-explainer reaches it with fewer of
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from introspect_utils.report import style
from introspect_utils.report.layout import column
from introspect_utils.report.paper import lookup
from introspect_utils.tasks import TASKS

SHARE = 0.008  # of the training directions: the paper's 1,024 a layer
CONTROLS = ("zero-vector", "shuffled-vector", "dot-product")
Curve = list["Point"]


@dataclass(frozen=True)
class Point:
    n_train: int  # directions of all layers together
    value: float
    stderr: float


def curves(records: Sequence[dict], target: str, name: str) -> dict[tuple[str, str], Curve]:
    """{(explainer, condition): its points by size} in a column of Table 1; what has no training
    directions is left out."""
    found: dict[tuple[str, str], Curve] = {}
    for r in records:
        if (
            r["table"] in ("1", "4", "scaling")
            and TASKS[r["task"]].simulated
            and r["target"] == target
            and r["n_train"]
        ):
            if column(r["data"], r["metric"]) == name and r["condition"] not in CONTROLS:
                point = Point(r["n_train"], r["value"], r["stderr"])
                found.setdefault((r["explainer"], r["condition"]), []).append(point)
    several = {
        key: sorted(curve, key=lambda p: p.n_train)
        for key, curve in found.items()
        if len(curve) > 1
    }
    return dict(sorted(several.items(), key=lambda item: style.order(*item[0])))


def score_at(curve: Curve, n_train: float) -> float | None:
    """The score with `n_train` directions, straight lines between the points on a log axis; None
    outside of them."""
    sizes = [p.n_train for p in curve]
    if not sizes[0] <= n_train <= sizes[-1]:
        return None
    return float(np.interp(np.log(n_train), np.log(sizes), [p.value for p in curve]))


def size_for(curve: Curve, value: float) -> float | None:
    """The fewest directions with which a score is reached, on the same lines; None if it never
    is."""
    if curve[0].value >= value:
        return float(curve[0].n_train)
    for low, high in zip(curve, curve[1:], strict=False):
        if low.value < value <= high.value:
            part = (value - low.value) / (high.value - low.value)
            return float(low.n_train * (high.n_train / low.n_train) ** part)
    return None


def end_share(curve: Curve, share: float = SHARE) -> float | None:
    """Score with a share of the directions over the score with all; None where no point is that
    small, or the end not above 0."""
    value = score_at(curve, share * curve[-1].n_train)
    return None if value is None or curve[-1].value <= 0 else value / curve[-1].value


def data_factor(own: Curve, other: Curve) -> float | None:
    """End size of `other` over the size with which `own` has the same score; None if it never
    has."""
    needed = size_for(own, other[-1].value)
    return None if needed is None else other[-1].n_train / needed


def sentence(found: dict[tuple[str, str], Curve]) -> list[dict]:
    """Section 4's sentence as lines of a table: each curve's end share, the paper's, and the
    self-explainer's data factor."""
    own, lines = found.get(("self", "full")), []
    for (explainer, condition), curve in found.items():
        paper = [row.value for row in lookup(table="sec4", explainer=explainer, metric="end-share")]
        lines.append(
            {
                "explainer": style.label(explainer, condition),
                "fewest": curve[0].n_train,
                "most": curve[-1].n_train,
                "end": curve[-1].value,
                "end share": end_share(curve),
                "end share (paper)": paper[0] if paper else None,
                "self needs fewer by": data_factor(own, curve)
                if own and curve is not own
                else None,
            }
        )
    return lines


def figure_scaling(
    records: Sequence[dict], target: str, columns: Sequence[str], n_layers: int
) -> Figure:
    """Score against training directions a layer, a panel for each column of Table 1, 95% bars;
    SelfIE, which has none, a line."""
    with matplotlib.rc_context(style.SETTINGS):
        figure = Figure(figsize=(max(4.8, 3.3 * len(columns) + 0.3), 3.6), layout="constrained")
        of_target, handles = [r for r in records if (r["table"], r["target"]) == ("1", target)], {}
        for axes, name in zip(
            figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True
        ):
            ticks: set[float] = set()
            for (explainer, condition), curve in curves(records, target, name).items():
                sizes, values = (
                    [p.n_train / n_layers for p in curve],
                    [100 * p.value for p in curve],
                )
                shape = {
                    "fmt": "o-" if condition == "full" else "s--",
                    "ms": 3.5,
                    "lw": 1.2,
                    "capsize": 2,
                }
                if explainer == "nn-layer":
                    shape["fmt"] = "v:"
                bars = [196 * p.stderr for p in curve]
                label = style.label(explainer, condition)
                handles[label] = axes.errorbar(
                    sizes,
                    values,
                    yerr=bars,
                    color=style.colour(explainer, condition),
                    label=label,
                    **shape,
                )
                ticks |= set(sizes)
            shown = [r for r in of_target if column(r["data"], r["metric"]) == name]
            for r in (r for r in shown if r["explainer"] == "selfie"):
                handles["SelfIE"] = axes.axhline(
                    100 * r["value"], color=style.colour("selfie"), lw=1, ls="-.", label="SelfIE"
                )
            axes.set(
                xscale="log", title=style.title(name, shown), xlabel="training directions per layer"
            )
            axes.set_xticks(sorted(ticks), [f"{size:,.0f}" for size in sorted(ticks)], minor=False)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.grid(lw=0.4, alpha=0.5)
            axes.set_ylabel("score × 100, bars: 95% interval")
        columns_of_legend = 2 if len(columns) == 1 else 4
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=columns_of_legend,
            frameon=False,
        )
    return figure
