"""Figure 6's question: do explainers that are more like the target explain it better (B.2)?"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from introspect_utils.report import result_figures as plot
from introspect_utils.report import style
from introspect_utils.report.claims import points, rank
from introspect_utils.report.tables import COLUMNS
from introspect_utils.scores.metrics import SIGNIFICANCE
from introspect_utils.settings.names import variant

METRICS = ("activation_pattern", "dot_product", "cka")


@style.STYLED
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
    one, first_rank = len(found) == 1, rank(first)
    rise = first_rank and first_rank[0] > 0 and first_rank[1] < SIGNIFICANCE
    size = (style.COLUMN, 3.8) if one else (style.PAGE, 5.8)
    shape = {"sharex": True, "sharey": "col"}
    title = f"Scores {'rise' if rise else 'are not seen to rise'} with likeness to the target"
    if any(len(r["seeds"]) < 2 for _, r in first):
        title = "Score and likeness to the target (one seed)"
    made, grid = plot.figure(*size, title, len(metrics), len(columns), **shape)
    handles = {}
    for axes, ((metric, name), by_size) in zip(grid.flat, found.items(), strict=True):
        shown, way = sorted(next(iter(by_size.values()), []), key=lambda point: point[0]), []
        for x, r in shown:
            kind, share = variant(r["explainer"])
            at, look = (100 * x, 100 * r["value"]), style.look(kind, r["condition"])
            drawn = axes.errorbar(*at, yerr=plot.interval(r), ls="", **look, **plot.BAR)
            handles.setdefault(style.label(kind, r["condition"]), drawn)
            way += [at] * (r["condition"] == "full" and kind in ("self", "rotated"))
            if one and share < 1:
                text = {"textcoords": "offset points", "xytext": (-4, 3), "ha": "right"}
                axes.annotate(f"{share:.0%} of the way", at, **text)
        axes.plot(*zip(*way, strict=True), color=style.look("rotated")["color"], lw=0.8, alpha=0.5)
        axes.grid(lw=0.3, alpha=0.5)
        axes.set(title=style.LABELS[name], xlim=(-8, 108), ylabel=plot.BARS if one else "")
        axes.set_xlabel(style.LABELS["sae " + metric] + " × 100" * one)
        if ranked := rank(shown):
            note = f"ρ = {ranked[0]:.2f}, n = {len(shown)}"
            axes.text(0.03, 0.97, note, transform=axes.transAxes, va="top")
    note = f"trained on {first[0][1]['n_train']:,} directions" + "; all × 100" * (not one)
    same = {"table": "5", "explainer": "rotated", "target": first[0][1]["target"]}
    if cka := plot.pick(records, "sae cka", **same):
        note += f"; CKA of rotated is {cka['value']:.2f}"
    plot.legend(made, handles, 1 if one else 3, note)
    return made
