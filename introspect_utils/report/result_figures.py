"""The figures of the results, from the records of `results.json`, the paper's numbers beside ours.
A function gives None where there is nothing to show."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from introspect_utils.report import style, table_rows
from introspect_utils.report.figures import hints_followed
from introspect_utils.report.paper import ERROR_CATEGORIES, LABEL_ERROR, lookup, model_name
from introspect_utils.report.paper import PATCHING_METRICS as OUTCOMES
from introspect_utils.report.tables import column, is_other, our_rows, paper_rows

REFERENCE = {"1": "llama-3.1-8b", "4": "gemma-2-9b"}  # of Tables 2 and 3: qwen3-8b
BARS = "score × 100; bars: 95% interval"
UNCOVERED = "(of one seed: its training is not covered)"
ONE_SEED = f"{BARS} by feature, fact pair or subject {UNCOVERED}"
WIDEST = f"{BARS}, the widest by any kind of cluster {UNCOVERED}"
FLOOR = {"color": style.BLACK, "lw": 0.8, "ls": ":"}
FLOOR_NAME = "floor: the best row without the right vector (hints: without a model)"
BAR = {"ms": 4, "capsize": 1.5, "lw": 1}
STYLED = plt.rc_context(style.SETTINGS)


@dataclass(frozen=True)
class Line:
    """A row of a dot plot: explainer and condition, and its records, ours and the paper's, by
    column."""

    name: str
    key: tuple[str, str]
    ours: dict[str, dict]
    paper: dict[str, dict]


def figure(width: float, height: float, title: str, *shape: int, **panels):
    """A figure at the size it is printed at, its message on top, and the grid of its panels."""
    size = {"figsize": (width, height), "layout": "constrained", "squeeze": False}
    made, grid = plt.subplots(*shape, **size, **panels)
    made.suptitle(title, x=0.01, ha="left", weight="bold")
    plt.close(made)
    return made, grid


def legend(made: Figure, handles: dict, ncols: int = 2, title: str | None = None) -> None:
    """A legend below the panels."""
    place = {"loc": "outside lower center", "ncols": ncols, "title": title, "columnspacing": 1}
    made.legend(handles.values(), handles.keys(), frameon=False, **place)


def interval(r: dict) -> float:
    """Half of the 95% interval of a record, or of a number of the paper, × 100; of a difference the
    widest by any kind of cluster, by which `word` judges it."""
    is_difference = str(r.get("table")).endswith("-paired")
    return 100 * (table_rows.widest(r)[0] if is_difference else table_rows.half_width(r))


def one_seed(r: dict) -> bool:
    """Whether a difference rests on one training seed, so that nothing is said to be above."""
    return table_rows.ONE_SEED in (r.get("reason") or "")


def word(r: dict | None) -> str:
    """What a paired difference says of self: a verdict only if training seeds were compared, and
    only what holds by each kind of cluster, as in `claims`."""
    if r is None or abs(r["value"]) <= table_rows.widest(r)[0]:
        return "is not told apart from" if r else "is not compared with"
    side = "above" if r["value"] > 0 else "below"
    points = f"{abs(100 * r['value']):.1f} points (one seed) "
    return f"is {points * one_seed(r)}{side}"


def tally(differences: Iterable[dict | None]) -> str:
    """In how many scores self is above, below, or not told apart; of one seed no verdict."""
    found = [r for r in differences if r]
    words = Counter(word(r).removeprefix("is ").removesuffix(" from") for r in found)
    if not found or all(map(one_seed, found)):
        return "one seed, no verdict" if found else "not compared"
    return ", ".join(f"{said} in {n} of {len(found)} scores" for said, n in words.items())


def pick(records: Iterable[dict], name: str, **fields) -> dict | None:
    """The first record with these fields in a column."""
    found = (r for r in records if all(r[key] == value for key, value in fields.items()))
    return next((r for r in found if column(r) == name), None)


def targets(records: Iterable[dict], *tables: str) -> list[tuple[str, str]]:
    """(table, target) of some tables; the target whose vectors are explained comes first."""
    found = dict.fromkeys((r["table"], r["target"]) for r in records if r["table"] in tables)
    with_vectors = {r["target"] for r in records if r["table"] in ("1", "2")}
    return sorted(found, key=lambda each: (each[0], each[1] not in with_vectors, each[1]))


def difference(
    records: Iterable[dict], table: str, target: str, rival: Line, name: str
) -> dict | None:
    """The paired difference of self and a row of a table, in a column; of a control of self's own,
    what the vector adds to it."""
    r = next(iter(rival.ours.values()))
    same = {"table": f"{table}-paired", "explainer": r["explainer"], "condition": r["condition"]}
    if r["explainer"] == "self":
        same |= {"table": f"{table}-vector", "condition": f"full minus {r['condition']}"}
    return pick(records, name, target=target, **same)


def paper_of(table: str, target: str) -> dict[tuple[str, str], dict[str, dict]]:
    """The paper's rows beside a target of ours: of the same target, where it has it. All of v1: of
    the revised numbers of Table 3 (v3) too few are known to compare them with each other."""
    rows, same = paper_rows(table), model_name(target)
    if same not in {r["target"] for r, _ in rows}:
        same = REFERENCE.get(table[:1], "qwen3-8b")
    return {(r["explainer"], r["condition"]): by for r, by in rows if r["target"] == same}


def lines(records: list[dict], table: str, target: str, columns: Sequence[str]) -> list[Line]:
    """The rows of a table of one target without those that score as a row above them in every
    column (a control that changes nothing); of paired differences those to trained explainers."""
    found, paired = {}, table.endswith("-paired")
    paper = {} if paired else paper_of(table, target)
    for r, by in our_rows(records, table):
        key = model_name(r["explainer"]), r["condition"]
        values = tuple(by[name]["value"] for name in columns if name in by)
        shown = r["target"] == target and (not paired or is_other(*key) and "@" not in key[0])
        if shown and values:
            line = Line(style.label(r["explainer"], key[1]), key, by, paper.get(key, {}))
            found.setdefault(values, line)
    return list(found.values())


def floor(shown: Iterable[Line], name: str) -> dict | None:
    """The best of what is not given the right vector, nor the model, in a column."""
    kinds = "baseline", "without-vector"
    blind = [line for line in shown if style.kind(*line.key) in kinds and name in line.ours]
    found = [line.ours[name] for line in blind if line.key[0] not in style.WORDS["not_floors"]]
    return max(found, key=lambda r: r["value"], default=None)


def draw(axes: Axes, shown: Sequence[Line], name: str, least: dict | None) -> None:
    """Lines as dots with 95% bars, the paper's diamonds below them; a vertical line at 0 or at a
    floor, which is named below the panel."""
    for y, line in enumerate(shown):
        if r := line.ours.get(name):
            look = style.look(*line.key)
            axes.errorbar(100 * r["value"], y, xerr=interval(r), ls="", **look, **BAR)
        if r := line.paper.get(name):
            axes.errorbar(100 * r["value"], y + 0.25, xerr=interval(r), **style.PAPER)
    if least:
        axes.axvline(100 * least["value"], **FLOOR)
        axes.set_xlabel(floor_name(least))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [line.name for line in shown])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", lw=0.3, alpha=0.5)


def floor_name(least: dict, width: int = 22) -> str:
    """A floor's name, broken into lines of `width` characters; none for no difference."""
    name = style.label(least["explainer"], least["condition"]) if "explainer" in least else ""
    return fill(f"floor: {name.split(' (')[0]}", width) if name else ""


def marks(line_name: str) -> dict[str, Line2D]:
    """What diamonds and the dotted line are; colours and markers are named at the axis."""
    paper = Line2D([], [], **style.PAPER)
    return {"the paper (v1)": paper, line_name: Line2D([], [], **FLOOR)}


@STYLED
def of_table(
    records: list[dict], tables: Sequence[str], columns: Sequence[str], rival: str = ""
) -> Figure | None:
    """Tables as dot plots, a line of panels for each target, a panel for each column, with the
    column's floor (of paired differences: 0). The title says how self stands to a `rival` (an
    explainer, its kind, or a condition) in the first target's columns, or how often it is above."""
    groups = [(key, lines(records, *key, columns)) for key in targets(records, *tables)]
    groups = [(key, shown) for key, shown in groups if shown]
    if not groups:
        return None
    (table, target), first = groups[0]
    paired, last = table.endswith("-paired"), {name: shown for (name, _), shown in groups}
    for name, shown in last.items() if paired else ():  # the paper's gaps below the last target's
        for r, by in paper_rows(name):
            key = r["explainer"], r["condition"]
            shown.append(Line(f"{style.label(*key)} → {r['target']}", key, {}, by))
    found = [(line.name, r) for _, of in groups for line in of for r in line.ours.values()]
    names = sorted({name for name, r in found if not one_seed(r)})
    decided = [word(r) for _, r in found if not one_seed(r)]
    title = "Self among other explainers"
    if paired:
        whom = " and ".join(names) if len(names) < 3 else "others"
        title = f"Self is above {whom} in {decided.count('is above')} of {len(decided)} comparisons"
        one = len(found) - len(decided)
        title += f" ({one} with one seed are not judged)" * bool(one)
        title = title if decided else "Self minus others (one training seed: no verdict)"
    against = [line for line in first if rival in (*line.key, style.kind(*line.key))]
    if not paired and against:
        name = against[0].name[0].lower() + against[0].name[1:]
        found = (difference(records, table, target, against[0], c) for c in columns)
        title = f"Self beside {name}: {tally(found)}"
    heights = [len(shown) + 4 for _, shown in groups]
    shape = {"sharey": "row", "height_ratios": heights}
    size = (style.PAGE, 0.16 * sum(heights) + 0.6)
    made, grid = figure(*size, title, len(groups), len(columns), **shape)
    for panels, ((_, target), shown) in zip(grid, groups, strict=True):
        for axes, name in zip(panels, columns, strict=True):
            draw(axes, shown, name, {"value": 0} if paired else floor(shown, name))
            n = sorted({line.ours[name]["n"] for line in shown if name in line.ours})
            axes.set_title(f"{style.LABELS[name]}\nn = {'–'.join(map(str, n))}")
        task = next(iter((shown[0].ours or shown[0].paper).values()))["task"]
        panels[0].set_ylabel(
            f"{style.LABELS.get(task, task)} of\n{target.replace('-', '-' + chr(10), 1)}"
        )
    told = WIDEST if paired else ONE_SEED
    legend(made, marks("no difference" if paired else FLOOR_NAME), title=told)
    return made


@STYLED
def figure_8(records: list[dict], least: int = 20) -> Figure | None:
    """Figure 8 as bars: what is to blame where the judge scores 0, the paper's as diamonds; as a
    person sorted the cases or, else, a rule. Not of fewer cases than `least`."""
    cells = [r for r in records if r["table"] == "fig8" and r["n"] >= least]
    metric = "share" if any(r["metric"] == "share" for r in cells) else "share_automatic"
    chosen = [r for r in cells if r["metric"] == metric]
    if not chosen:
        return None
    names, n = [*ERROR_CATEGORIES, LABEL_ERROR], chosen[0]["n"]
    shares = pd.DataFrame(chosen).set_index("condition").loc[names, ["low", "value", "high"]]
    low, share, high = 100 * shares.to_numpy(dtype=float).T
    who = "a person puts" if metric == "share" else "a rule puts"
    title = f"Of self’s zero scores {who} {share[0]:.0f}%\ndown to {names[0]}"
    made, [[axes]] = figure(style.COLUMN, 2.2, title, 1, 1)
    bars = {"xerr": [share - low, high - share], "capsize": 2, "error_kw": {"lw": 0.8}}
    axes.barh(names, share, color=style.FAINT, height=0.7, **bars)
    for row in lookup(table="fig8"):
        axes.plot([100 * row.value], [row.condition], **style.PAPER)
    axes.set(xlim=(0, 100), xlabel="% of cases; bars: 95%; ◇ the paper")
    axes.set_title(f"{n} cases; the paper’s: by people")
    axes.invert_yaxis()
    return made


def figure_ablation(records: list[dict]) -> Figure | None:
    """`figures.hints_followed` from records."""
    cells: dict[str, list[dict]] = {}
    for r in (r for r in records if r["table"] == "hints"):
        subject, right = r["condition"].rsplit(" / ", 1)
        cell = {"subject": subject, "right": right == "right", "n": r["n"]}
        cells.setdefault(r["target"], []).append(cell | {"followed": round(r["value"] * r["n"])})
    return hints_followed(cells) if cells else None


@STYLED
def figure_matrix(records: list[dict]) -> Figure | None:
    """Table 3 as a matrix, targets × explainers, where there are two targets or more."""
    cells = pd.DataFrame([r for r in records if (r["table"], r["condition"]) == ("3", "full")])
    models = sorted(cells["target"].unique()) if len(cells) else []
    if len(models) < 2:
        return None
    cells["explainer"] = cells["explainer"].where(cells["explainer"] != "self", cells["target"])
    seeds = cells.loc[cells["explainer"].isin(models), "seeds"].map(len).min()
    cells = cells.pivot(index=["metric", "target"], columns="explainer", values="value")
    cells = cells.reindex(columns=models)
    compared = cells[cells.index.isin(OUTCOMES, level="metric") & (cells.count(axis=1) > 1)]
    own = sum(compared.loc[key].idxmax() == key[1] for key in compared.index)
    title = f"Self is the best explainer in {own} of {len(compared)} pairs of target and score"
    title += " (one training seed: no verdict)" if seeds < 2 else ""
    size = (style.PAGE, 0.35 * len(models) + 1.2)
    made, grid = figure(*size, title, 1, len(OUTCOMES), sharey=True)
    names = [name.replace("-", "-\n", 1) for name in models]
    look = {
        "cmap": "Blues",
        "vmin": 0,
        "vmax": 150,
        "cbar": False,
        "annot_kws": {"size": 7, "color": style.BLACK},
    }
    look |= {"xticklabels": names, "yticklabels": names, "annot": True, "fmt": ".1f"}
    for axes, metric in zip(grid[0], OUTCOMES, strict=True):
        sns.heatmap(100 * cells.loc[metric].loc[models], ax=axes, **look)
        axes.set(title=style.LABELS[metric], xlabel="explainer", ylabel="")
        axes.tick_params(axis="both", rotation=0, length=0)
    grid[0, 0].set_ylabel("target")
    return made
