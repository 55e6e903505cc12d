"""Figure 6's question: do explainers that are more like the target explain it better (B.2)?"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from introspect_utils.report import style
from introspect_utils.report.result_figures import BAR, BARS, STYLED, figure, interval, legend, pick
from introspect_utils.report.tables import COLUMNS, column
from introspect_utils.scores.metrics import rank_correlation
from introspect_utils.settings.names import variant

METRICS = ("activation_pattern", "dot_product", "cka")


def points(records: list[dict], metric: str, name: str) -> dict[int, list[tuple[float, dict]]]:
    """{training size: [(similarity, record of the score)]} of the explainers that have both, scores
    in a column of Table 1: of the size with the most of them, then of the largest. A second
    target's explainers are left out: scores of other directions do not compare."""
    targets = {r["target"] for r in records if r["table"] == "1"}
    of_target = [r for r in records if r["target"] in targets]
    similar = {
        (r["explainer"], r["condition"]): r["value"]
        for r in of_target
        if (r["table"], r["metric"]) == ("5", metric)
    }
    by_size: dict[int, list[tuple[float, dict]]] = {}
    for r in of_target:
        key = (r["explainer"], r["condition"])
        if r["table"] in ("1", "scaling") and key in similar and column(r) == name:
            by_size.setdefault(r["n_train"], []).append((similar[key], r))
    sizes = sorted(by_size, key=lambda n_train: (len(by_size[n_train]), n_train))[-1:]
    return {n_train: by_size[n_train] for n_train in [*sizes, *sorted(by_size)[-1:]]}


def rank(shown: Sequence[tuple[float, dict]]) -> float | None:
    """Spearman's rho of similarity and score over explainers, as `points` gives them."""
    ranked = rank_correlation([x for x, _ in shown], [r["value"] for _, r in shown])
    return ranked and ranked[0]


@STYLED
def figure_6(
    records: list[dict],
    metrics: Sequence[str] = ("dot_product",),
    columns: Sequence[str] = COLUMNS[1:2],
) -> Figure | None:
    """Figure 6: score against similarity to the target, the way to *rotated* as a line; of at least
    three explainers. One panel, or in the supplement one for each similarity and column."""
    found = {(m, name): points(records, m, name) for m in metrics for name in columns}
    first = next(iter(next(iter(found.values())).values()), [])
    if len(first) < 3:
        return None
    rises, one = (rank(first) or 0) > 0, len(found) == 1
    title = f"Scores {'rise' if rises else 'do not rise'} with likeness to the target"
    size, shape = (style.COLUMN, 3) if one else (style.PAGE, 5.6), {"sharex": True, "sharey": "col"}
    made, grid = figure(*size, title, len(metrics), len(columns), **shape)
    handles = {}
    for axes, ((metric, name), by_size) in zip(grid.flat, found.items(), strict=True):
        shown = sorted(next(iter(by_size.values()), []), key=lambda point: point[0])
        _draw(axes, shown, handles, one)
        axes.set(title=style.LABELS[name], xlim=(-8, 108), ylabel=BARS if one else "")
        axes.set_xlabel(style.LABELS["sae " + metric] + " × 100" * one)
        if (rho := rank(shown)) is not None:
            note = f"ρ = {rho:.2f}, n = {len(shown)}"
            axes.text(0.03, 0.97, note, transform=axes.transAxes, va="top")
    note = f"trained on {first[0][1]['n_train']:,} directions" + "; all × 100" * (not one)
    same = {"table": "5", "explainer": "rotated", "target": first[0][1]["target"]}
    if cka := pick(records, "sae cka", **same):
        note += f"; CKA of rotated is {cka['value']:.2f}"
    legend(made, handles, 2 if one else 4, note)
    return made


def _draw(axes: Axes, shown: Sequence[tuple[float, dict]], handles: dict, named: bool) -> None:
    """The explainers as points, and a line from the target by way of the dial to *rotated*."""
    way = []
    for x, r in shown:
        kind, share = variant(r["explainer"])
        at, look = (100 * x, 100 * r["value"]), style.look(kind, r["condition"])
        drawn = axes.errorbar(*at, yerr=interval(r), ls="", **look, **BAR)
        handles.setdefault(style.label(kind, r["condition"]), drawn)
        way += [at] * (r["condition"] == "full" and kind in ("self", "rotated"))
        if named and share < 1:
            text = {"textcoords": "offset points", "xytext": (-4, 3), "ha": "right"}
            axes.annotate(f"{share:.0%} of the way", at, **text)
    axes.plot(*zip(*way, strict=True), color=style.look("rotated")["color"], lw=0.8, alpha=0.5)
    axes.grid(lw=0.3, alpha=0.5)
