"""How scores grow with the training directions (section 4): the curves of Figures 5 and 7, and the
paper's sentence about them."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from introspect_utils.report import result_figures as plot
from introspect_utils.report import style
from introspect_utils.report.paper import lookup
from introspect_utils.report.tables import column

SHARE = 0.008  # of the training directions: the paper's 1,024 a layer
CONTROLS = ("zero-vector", "shuffled-vector", "dot-product")
Curve = list[dict]  # records by training size, of all layers together


def curves(records: Sequence[dict], target: str, name: str) -> dict[tuple[str, str], Curve]:
    """{(explainer, condition): its records by size} in a column of Table 1, where there are two
    sizes or more."""
    found: dict[tuple[str, str], Curve] = {}
    for r in records:
        of_column = r["table"] in ("1", "4", "scaling") and column(r) == name
        if of_column and r["target"] == target and r["n_train"] and r["condition"] not in CONTROLS:
            found.setdefault((r["explainer"], r["condition"]), []).append(r)
    several = (item for item in found.items() if len(item[1]) > 1)
    in_order = sorted(several, key=lambda item: style.order(*item[0]))
    return {key: sorted(curve, key=lambda r: r["n_train"]) for key, curve in in_order}


def end_share(curve: Curve, share: float = SHARE) -> float | None:
    """Score with a share of the directions over the score with all, on straight lines between the
    points on a log axis; None where no point is that small, or the end is not above 0."""
    sizes, end = [r["n_train"] for r in curve], curve[-1]["value"]
    if share * sizes[-1] < sizes[0] or end <= 0:
        return None
    values = [r["value"] for r in curve]
    return float(np.interp(np.log(share * sizes[-1]), np.log(sizes), values)) / end


def data_factor(own: Curve, other: Curve) -> float | None:
    """End size of `other` over the fewest directions with which `own` has the same score; None if
    it never has."""
    value, size = other[-1]["value"], other[-1]["n_train"]
    if own[0]["value"] >= value:
        return size / own[0]["n_train"]
    for low, high in zip(own, own[1:], strict=False):
        if low["value"] < value <= high["value"]:
            part = (value - low["value"]) / (high["value"] - low["value"])
            return size / (low["n_train"] * (high["n_train"] / low["n_train"]) ** part)
    return None


def sentence(found: dict[tuple[str, str], Curve]) -> list[dict]:
    """Section 4's sentence as lines of a table: each curve's end share, the paper's, and how many
    times fewer directions the self-explainer needs."""
    own, rows = found.get(("self", "full")), []
    for (explainer, condition), curve in found.items():
        paper = [row.value for row in lookup(table="sec4", explainer=explainer, metric="end-share")]
        line = {"explainer": style.label(explainer, condition), "fewest": curve[0]["n_train"]}
        line |= {"most": curve[-1]["n_train"], "end": curve[-1]["value"]}
        line |= {"end share": end_share(curve), "end share (paper)": paper[0] if paper else None}
        fewer = data_factor(own, curve) if own and curve is not own else None
        rows.append(line | {"self needs fewer by": fewer})
    return rows


@style.STYLED
def figure_scaling(
    records: list[dict], target: str, columns: Sequence[str], n_layers: int
) -> Figure | None:
    """Figures 5 and 7: score against training directions a layer; the floor, and SelfIE, which has
    no training directions, as lines."""
    found = {name: curves(records, target, name) for name in columns}
    every = [r for by_key in found.values() for curve in by_key.values() for r in curve]
    if not every:
        return None
    sizes, one = sorted({r["n_train"] // n_layers for r in every}), len(columns) == 1
    nearest = plot.pick(records, columns[0], table="1-paired", explainer="nn-all")
    title = f"With {sizes[-1]:,} directions of each layer self {plot.word(nearest)} the all-layer "
    title += "nearest neighbour"
    title += "" if one else f" ({style.LABELS[columns[0]]})"
    title = fill(title, 44 if one else 100)
    size = (style.COLUMN, 3.6) if one else (style.PAGE, 2.8)
    made, grid = plot.figure(*size, title, 1, len(columns))
    handles = {}
    for axes, (name, by_key) in zip(grid[0], found.items(), strict=True):
        trained = {key: of for key, of in by_key.items() if style.kind(*key) != "baseline"}
        for number, (key, curve) in enumerate(trained.items()):
            aside = 1.05 ** (number - (len(trained) - 1) / 2)  # so that bars are not hidden
            at = [r["n_train"] / n_layers * aside for r in curve]
            scores = [100 * r["value"] for r in curve]
            bars = {"yerr": list(map(plot.interval, curve)), **style.look(*key), **plot.BAR}
            bars["ls"] = "--" if key[0] == "nn-layer" else "-"
            handles[style.label(*key)] = axes.errorbar(at, scores, **bars)
        shown = plot.lines(records, "1", target, [name])
        for line in (line for line in shown if line.key == ("selfie", "full")):
            look = {"color": style.SELFIE, "lw": 0.8, "ls": "-."}
            handles["SelfIE"] = axes.axhline(100 * line.ours[name]["value"], **look)
        if at_floor := plot.floor(shown, name):
            handles["floor"] = axes.axhline(100 * at_floor["value"], **plot.FLOOR)
        below = f"training directions per layer\n{plot.floor_name(at_floor or {}, 40)}".strip()
        axes.set(xscale="log", title=style.LABELS[name], xlabel=below)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(lw=0.3, alpha=0.5)
    grid[0, 0].set_ylabel(plot.BARS)
    plot.legend(made, handles, 1 if one else 3)
    return made
