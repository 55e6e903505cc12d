"""What the tables and figures of all tasks share: records gathered into rows, the paper's rows, and
rows drawn as dots."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from introspect_utils.report import style
from introspect_utils.report.paper import lookup, model_name
from introspect_utils.report.table import Score
from introspect_utils.scores.metrics import bold

ONE_SEED = "One training seed: the standard errors are over the test rows only."
BOLD = "Bold: not significantly different from the best row of the same target (paired t-test, p ≥ 0.05)."
ROW = tuple[dict, dict[str, dict]]  # any record of a table row, and its records by column
TRAINED = ("Seeds", "Training rows", "Trained parameters")
UNSAID = ("–",) * (1 + len(TRAINED))  # n and these, of a row of the paper


def column(data: str, metric: str) -> str:
    """The column of a table that a number belongs to: its metric, and before it the held-out set
    where a task has several."""
    return metric if data == "test" else f"{data} {metric}"


def by_row(records: Iterable[dict], table: str) -> list[ROW]:
    """(any record of the row, {column: record}) for each row of a table, in the order of
    `style.order`."""
    rows: dict[tuple, dict[str, dict]] = {}
    for record in records:
        if record["table"] == table:
            key = (record["target"], record["explainer"], record["condition"])
            rows.setdefault(key, {})[column(record["data"], record["metric"])] = record
    keys = sorted(rows, key=lambda key: (key[0], style.order(key[1], key[2])))
    return [(next(iter(rows[key].values())), rows[key]) for key in keys]


def by_target(rows: Iterable[ROW]) -> dict[str, list[ROW]]:
    """The rows of each target, in the order they come in."""
    targets: dict[str, list[ROW]] = {}
    for row in rows:
        targets.setdefault(row[0]["target"], []).append(row)
    return targets


def score(record: dict | None, signed: bool = False) -> Score | str:
    """A record as a cell."""
    return (
        "–"
        if record is None
        else Score(record["value"], record["stderr"], bold(record.get("p_vs_best")), signed)
    )


def named(row: dict) -> tuple[str, str]:
    """The first two cells of one of our rows: its target, its explainer."""
    return f"{row['target']} (here)", style.label(row["explainer"], row["condition"])


def seeds(record: dict) -> str:
    """The training seeds of a record as a cell."""
    return ", ".join(map(str, record["seeds"])) or "–"


def trained(row: dict) -> tuple[str, str | int, str]:
    """The last cells of a row, below `TRAINED`."""
    parameters = f"{row['trained_parameters']:,}" if row["trained_parameters"] else "–"
    return seeds(row), "–" if row["n_train"] is None else row["n_train"], parameters


def artifacts(rows: Iterable[ROW]) -> tuple[str, ...]:
    """Which checkpoint or run made each row."""
    return tuple(row["artifact"] for row, _ in rows)


def published_rows(table: str, version: str = "v1") -> list[tuple[str, str, str, dict[str, Score]]]:
    """(target, explainer, condition, {column: score}) for each of the paper's rows, in its
    order."""
    rows: dict[tuple, dict[str, Score]] = {}
    for row in lookup(version, table=table):
        key = (row.target, row.explainer, row.condition)
        rows.setdefault(key, {})[column(row.data, row.metric)] = Score(row.value, row.stderr)
    return [(*key, scores) for key, scores in rows.items()]


@dataclass(frozen=True)
class Group:
    """The rows of one target, and which target of the paper they are shown beside."""

    rows: list[ROW]
    reference: str


def dot_figure(
    groups: Sequence[Group],
    columns: Sequence[str],
    width: float,
    limits: Sequence[tuple[float, float]],
) -> Figure:
    """A table as dots with 95% bars (scores x 100): a line of panels for each group, a panel for
    each column with its `limits`.

    Diamonds are the paper's rows of the same table, explainer and condition. `width` in inches.
    """
    heights = [len(group.rows) for group in groups]
    with matplotlib.rc_context(style.SETTINGS):
        figure = Figure(
            figsize=(width, sum(0.24 * height + 0.6 for height in heights) + 0.6),
            layout="constrained",
        )
        grid = figure.subplots(
            len(groups), len(columns), squeeze=False, sharey="row", height_ratios=heights
        )
        for panels, group in zip(grid, groups, strict=True):
            first = group.rows[0][0]
            paper = {
                row[1:3]: row[3]
                for row in published_rows(first["table"])
                if row[0] == group.reference
            }
            for axes, name, limit in zip(panels, columns, limits, strict=True):
                for y, (row, by) in enumerate(group.rows):
                    key = model_name(row["explainer"]), row["condition"]
                    if name in by:
                        value, error = 100 * by[name]["value"], 196 * by[name]["stderr"]
                        axes.errorbar(
                            value,
                            y,
                            xerr=error,
                            fmt="o",
                            color=style.colour(*key),
                            ms=4.5,
                            capsize=2,
                            lw=1.2,
                        )
                    if name in paper.get(key, {}):
                        axes.plot(100 * paper[key][name].value, y, **style.REFERENCE)
                axes.set(
                    xlim=limit,
                    title=style.title(name, [by[name] for _, by in group.rows if name in by]),
                )
                axes.grid(axis="x", lw=0.4, alpha=0.5)
                axes.tick_params(axis="y", length=0)
            panels[0].set_yticks(
                range(len(group.rows)),
                [style.label(r["explainer"], r["condition"]) for r, _ in group.rows],
            )
            panels[0].set_ylim(len(group.rows) - 0.5, -0.5)
            panels[0].set_ylabel(f"{first['target']}\n(paper: {group.reference})")
        grid[-1, (len(columns) - 1) // 2].set_xlabel("score × 100, bars: 95% interval")
        colours = dict.fromkeys(
            style.colour(row["explainer"], row["condition"])
            for group in groups
            for row, _ in group.rows
        )
        handles = [
            Line2D([], [], color=c, marker="o", ls="", ms=4.5, label=style.LEGEND[c])
            for c in colours
        ]
        handles.append(Line2D([], [], **style.REFERENCE, label="the paper"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure
