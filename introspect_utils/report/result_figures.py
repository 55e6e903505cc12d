"""Dot plots of the results, from the records of `results.json`, the paper's numbers beside ours. A
function gives None where there is nothing to show."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from introspect_utils.report import style, table_rows
from introspect_utils.report.paper import ERROR_CATEGORIES, LABEL_ERROR, lookup, model_name
from introspect_utils.report.tables import column, is_other, our_rows, paper_rows

REFERENCE = {"1": "llama-3.1-8b", "4": "gemma-2-9b"}  # of Tables 2 and 3: qwen3-8b
BARS = "score × 100; bars: 95% interval"
UNCOVERED = "(of one seed: its training is not covered)"
ONE_SEED = f"{BARS} by feature, fact pair or subject {UNCOVERED}"
DIFFERENCE = "self minus the row, × 100; bars: 95% interval, the widest by any kind of cluster "
DIFFERENCE += UNCOVERED
THE_PAPER = "the paper"
FLOOR = {"color": style.BLACK, "lw": 0.8, "ls": ":"}
FLOOR_NAME = "floor: the best row without the right vector (hints: without a model)"
BAR = {"ms": 4, "capsize": 1.5, "lw": 1}


@dataclass
class Line:
    """A row of a dot plot: explainer and condition, and its records, ours and the paper's, by
    column."""

    name: str
    key: tuple[str, str]
    record: dict
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
    is_difference = r["table"].endswith("-paired")
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
    explainer, condition = rival.record["explainer"], rival.record["condition"]
    same = {"table": f"{table}-paired", "explainer": explainer, "condition": condition}
    if explainer == "self":
        same |= {"table": f"{table}-vector", "condition": f"full minus {condition}"}
    return pick(records, name, target=target, **same)


def both_ways(records: Iterable[dict], table: str, name: str) -> dict | None:
    """In a column, what two models gain by explaining themselves and not each other."""
    return pick(records, name, table=f"{table}-interaction")


def paper_of(table: str, target: str) -> dict[tuple[str, str], dict[str, dict]]:
    """The paper's rows beside a target of ours: of the same target, where it has it. All of v1: of
    the revised numbers of Table 3 (v3) too few are known to compare them with each other."""
    rows, same = paper_rows(table), model_name(target)
    if same not in {r["target"] for r, _ in rows}:
        same = REFERENCE.get(table[:1], "qwen3-8b")
    return {(r["explainer"], r["condition"]): by for r, by in rows if r["target"] == same}


def lines(records: list[dict], table: str, target: str, columns: Sequence[str]) -> list[Line]:
    """The rows of a table of one target; of paired differences those to trained explainers."""
    found, paired = [], table.endswith("-paired")
    paper = {} if paired else paper_of(table, target)
    for r, by in our_rows(records, table):
        key = model_name(r["explainer"]), r["condition"]
        shown = r["target"] == target and (not paired or is_other(*key) and "@" not in key[0])
        if shown and any(name in by for name in columns):
            name = style.label(r["explainer"], key[1])
            found.append(Line(name, key, r, by, paper.get(key, {})))
    return found


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
            below = 0.25 if line.ours else 0
            axes.errorbar(100 * r["value"], y + below, xerr=interval(r), **style.PAPER)
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


Groups = dict[tuple[str, str], list[Line]]  # {(table, target or "the paper"): rows}


def _groups(records: list[dict], tables: Sequence[str], columns: Sequence[str]) -> Groups:
    """The rows of each target without those that score as a row above them in every column (a
    control that changes nothing). Where others have two training seeds, one alone is named so."""
    found = {}
    for key in targets(records, *tables):
        by_values: dict[tuple, Line] = {}
        for line in lines(records, *key, columns):
            values = tuple(line.ours[name]["value"] for name in columns if name in line.ours)
            by_values.setdefault(values, line)
        found[key] = list(by_values.values())
    every = [line for shown in found.values() for line in shown]
    several = any(len(line.record["seeds"]) > 1 for line in every)
    for line in every:
        if several and line.record["trained_parameters"] and len(line.record["seeds"]) < 2:
            line.name += " (one seed)"
    return {key: shown for key, shown in found.items() if shown}


@style.STYLED
def of_table(
    records: list[dict], tables: Sequence[str], columns: Sequence[str], rival: str = ""
) -> Figure | None:
    """Tables as dot plots with the column's floor. The title says how self stands to a `rival` (an
    explainer, its kind, or a condition) in the first target's columns; where two models explain
    themselves and each other, what they gain by themselves."""
    if not (groups := _groups(records, tables, columns)):
        return None
    (table, target), first = next(iter(groups.items()))
    title = "Self among other explainers"
    if against := [line for line in first if rival in (*line.key, style.kind(*line.key))]:
        name = against[0].name[0].lower() + against[0].name[1:]
        name = {"other": "another model", "nn-all": "the nearest neighbour"}.get(rival, name)
        found = (difference(records, table, target, against[0], c) for c in columns)
        title = f"Self beside {name}: {tally(found)}"
    if rival == "other" and any(both := [both_ways(records, table, c) for c in columns]):
        title = f"Self beside another model, both ways together: {tally(both)}"
    return _panels(groups, columns, title, FLOOR_NAME, ONE_SEED)


@style.STYLED
def of_differences(
    records: list[dict], tables: Sequence[str], columns: Sequence[str]
) -> Figure | None:
    """Paired differences of self and others as dot plots, the paper's gaps in panels of their own.
    The title says how often self is above."""
    if not (groups := _groups(records, tables, columns)):
        return None
    found = [(line.name, r) for of in groups.values() for line in of for r in line.ours.values()]
    names = sorted({name for name, r in found if not one_seed(r)})
    decided = [word(r) for _, r in found if not one_seed(r)]
    whom = " and ".join(names) if len(names) < 3 else "others"
    title = f"Self is above {whom} in {decided.count('is above')} of {len(decided)} comparisons"
    one = len(found) - len(decided)
    title += f" ({one} with one seed are not judged)" * bool(one)
    title = title if decided else "Self minus others (one training seed: no verdict)"
    for table in dict.fromkeys(table for table, _ in groups):
        for r, by in paper_rows(table):
            key = r["explainer"], r["condition"]
            line = Line(f"{style.label(*key)} → {r['target']}", key, r, {}, by)
            groups.setdefault((table, THE_PAPER), []).append(line)
    return _panels(groups, columns, title, "no difference", DIFFERENCE)


def _panels(
    groups: Groups, columns: Sequence[str], title: str, line_name: str, told: str
) -> Figure:
    """A line of panels for each group, a panel for each column."""
    paired, heights = told == DIFFERENCE, [len(shown) + 4 for shown in groups.values()]
    shape = {"sharey": "row", "sharex": "col" if paired else "none", "height_ratios": heights}
    size = (style.PAGE, 0.16 * sum(heights) + 0.6)
    made, grid = figure(*size, title, len(groups), len(columns), **shape)
    for panels, ((_, target), shown) in zip(grid, groups.items(), strict=True):
        for axes, name in zip(panels, columns, strict=True):
            draw(axes, shown, name, {"value": 0} if paired else floor(shown, name))
            n = sorted({line.ours[name]["n"] for line in shown if name in line.ours})
            axes.set_title(style.LABELS[name] + f"\nn = {'–'.join(map(str, n))}" * bool(n))
        task, of = shown[0].record["task"], "," if target == THE_PAPER else " of"
        whom = target.replace("-", "-\n", 1)
        panels[0].set_ylabel(f"{style.LABELS.get(task, task)}{of}\n{whom}")
    legend(made, marks(line_name), title=told)
    return made


@style.STYLED
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
    axes.set_yticks(range(len(names)), [*ERROR_CATEGORIES, "both label errors"])
    for row in lookup(table="fig8"):
        axes.plot([100 * row.value], [row.condition], **style.PAPER)
    axes.set(xlim=(0, 100), xlabel="% of cases; whiskers: 95%; ◇ the paper")
    axes.set_title(f"{n} cases; the paper’s: by people")
    axes.invert_yaxis()
    return made
