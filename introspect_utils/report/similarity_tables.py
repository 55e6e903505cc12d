"""Table 5 and Figure 6: how similar the explainers are to the target, and how well they explain it
(section B.2)."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from introspect_utils.report import style
from introspect_utils.report.feature_tables import COLUMNS
from introspect_utils.report.layout import artifacts, by_row, column, named, published_rows
from introspect_utils.report.table import Score, Table
from introspect_utils.settings.names import variant

METRICS = ("activation_pattern", "dot_product", "cka")  # each with its "_sd"
MARKERS = {"pretrained-projection": "s", "capped-projection": "^"}
DEVIATION = "Standard deviations, as in the paper: of features (pattern), tokens (dot product), layers (CKA)."


def table5(records: list[dict]) -> Table:
    """Table 5: our explainers, then the paper's; mean ± standard deviation x 100."""
    ours = by_row(records, "5")
    rows = [(*named(row), *_cells(by), row["n"]) for row, by in ours]
    for target, explainer, condition, by in published_rows("5"):
        rows.append((f"{target} (paper)", style.label(explainer, condition), *_cells(by), "–"))
    return Table(
        "Table 5. Similarity of the explainers' activations to the target's, before training (mean "
        "± standard deviation, × 100).",
        ("Target", "Explainer", *(style.LABELS[metric] for metric in METRICS), "Features"),
        tuple(rows),
        (
            DEVIATION,
            "Dot products are of unit vectors. Where an explainer has a projection, the target's "
            "vectors are seen through it.",
            "CKA is the same in every orthogonal basis: what is rotated keeps it and loses the "
            "other two.",
        ),
        artifacts(ours),
    )


def _cells(by: dict) -> list[Score | str]:
    """Mean and deviation of each metric of a row of records or of the paper's scores."""
    found = []
    for metric in METRICS:
        mean, deviation = (by.get(column("sae", name)) for name in (metric, f"{metric}_sd"))
        both = [
            part["value"] if isinstance(part, dict) else part.value
            for part in (mean, deviation)
            if part is not None
        ]
        found.append(Score(*both) if both else "–")
    return found


def points(records: list[dict], metric: str, name: str) -> dict[int, list[tuple[float, dict]]]:
    """{training size: (similarity, record of the score) of each explainer that has both}, scores in
    a column of Table 1: of the size with the most of them, at which they compare best, then of the
    largest.

    A second target's explainers are left out: scores of other directions do not compare.
    """
    targets = {r["target"] for r in records if r["table"] == "1"}
    similar = {
        (r["explainer"], r["condition"]): r["value"]
        for r in records
        if (r["table"], r["metric"]) == ("5", metric) and r["target"] in targets
    }
    found: dict[int, list[tuple[float, dict]]] = {}
    for r in records:
        key, scored = (
            (r["explainer"], r["condition"]),
            r["table"] in ("1", "scaling") and r["target"] in targets,
        )
        if scored and key in similar and column(r["data"], r["metric"]) == name:
            found.setdefault(r["n_train"], []).append((similar[key], r))
    if not found:
        return {}
    best = max(found, key=lambda n_train: (len(found[n_train]), n_train))
    return {n_train: found[n_train] for n_train in (best, max(found))}


def rank_correlation(shown: Sequence[tuple[float, dict]]) -> float | None:
    """Spearman's rho of similarity and score over explainers, as `points` gives them; None where
    all are equally similar."""
    similar = [round(x, 3) for x, _ in shown]  # CKA is 1 for many: float error is no rank
    return (
        float(spearmanr(similar, [r["value"] for _, r in shown]).statistic)
        if len(set(similar)) > 1
        else None
    )


def figure_6(records: list[dict], columns: Sequence[str] = COLUMNS) -> Figure:
    """Score against similarity: a line of panels for each similarity, a panel for each column of
    Table 1; Spearman's rho.

    Filled: the training size with the most explainers, of which rho is, and a line along the dial.
    Hollow: the largest size.
    """
    with matplotlib.rc_context(style.SETTINGS):
        figure = Figure(figsize=(9.6, 7), layout="constrained")
        grid = figure.subplots(len(METRICS), len(columns), squeeze=False, sharex=True, sharey="col")
        handles, sizes = {}, {}  # in the order drawn
        for line, metric in zip(grid, METRICS, strict=True):
            for axes, name in zip(line, columns, strict=True):
                by_size = points(records, metric, name)
                for number, shown in enumerate(by_size.values()):
                    for x, r in shown:
                        handles.setdefault(*_draw_point(axes, x, r, filled=not number))
                    if not number:
                        _draw_dial(axes, shown)
                        _write_rank(axes, shown)
                sizes |= dict.fromkeys(f"{n_train:,}" for n_train in by_size)
                axes.set(xlim=(-12, 112), xlabel=f"{style.LABELS[metric]} × 100")
                axes.xaxis.set_tick_params(labelbottom=True)
                axes.grid(lw=0.4, alpha=0.5)
            line[0].set_ylabel("score × 100, bars: 95%")
        for axes, name in zip(grid[0], columns, strict=True):
            axes.set_title(style.LABELS[name])
        if handles:
            most, *others = sizes
            title = f"filled: trained on {most} directions" + (
                f"; hollow: on {', '.join(others)}" if others else ""
            )
            figure.legend(
                handles.values(),
                handles.keys(),
                loc="outside lower center",
                ncols=4,
                frameon=False,
                title=title,
            )
    return figure


def _draw_point(axes: Axes, x: float, r: dict, filled: bool) -> tuple[str, ErrorbarContainer]:
    """One explainer, and its name in the legend; one on the way to a variant has its share beside
    it instead."""
    kind, share = variant(r["explainer"])
    on_the_way = share < 1
    look = {
        "color": style.colour(r["explainer"], r["condition"]),
        "fmt": MARKERS.get(r["condition"], "d" if on_the_way else "o"),
    }
    look |= {} if filled else {"mfc": "white", "alpha": 0.6}
    y = 100 * r["value"]
    drawn = axes.errorbar(100 * x, y, yerr=196 * r["stderr"], ms=4.5, capsize=2, lw=1.2, **look)
    if on_the_way:
        axes.annotate(
            f"{share:.0%}",
            (100 * x, y),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=6.5,
        )
    name = style.label(kind, r["condition"])
    return (f"{name}, a share of the way" if on_the_way else name), drawn


def _draw_dial(axes: Axes, shown: list[tuple[float, dict]]) -> None:
    """A line from the target to each of its variants by way of the points between them."""
    at = {
        variant(r["explainer"]): (100 * x, 100 * r["value"])
        for x, r in shown
        if r["condition"] == "full"
    }
    for kind in sorted({kind for kind, share in at if share < 1}):
        way = [point for (of, _), point in sorted(at.items()) if of == kind]
        start = [at["self", 1.0]] if ("self", 1.0) in at else []
        axes.plot(*zip(*start, *way, strict=True), color=style.colour(kind), lw=0.8, alpha=0.5)


def _write_rank(axes: Axes, shown: list[tuple[float, dict]]) -> None:
    """Their rank correlation, where they are more than two, and not all alike."""
    if len(shown) > 2 and (rho := rank_correlation(shown)) is not None:
        axes.text(
            0.03,
            0.97,
            f"ρ = {rho:.2f}, n = {len(shown)}",
            transform=axes.transAxes,
            va="top",
            fontsize=7.5,
        )
