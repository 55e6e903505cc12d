"""What the records of all tasks have in common: which predictions make up a table row, and the form
of a record."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd

from introspect_utils.explainer.published import trained_from
from introspect_utils.report.paper import AS_PUBLISHED, model_name, published
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.conditions import UNTRAINED

SURFACE = (
    "lookup",
    "majority",
    "unchanged",
    "hint-letter",
    "majority-letter",
    "logistic",
    "oracle",
)  # they see neither vector nor model


@dataclass(frozen=True, eq=False)
class Row:
    """What one table row rests on: an explainer under a condition, s training seeds scored on the
    same n test rows."""

    task: str
    target: str
    data: str  # sae | act | dact; test where a task has one test set
    explainer: str
    condition: str
    n_train: int | None
    seeds: list[int]
    artifact: str
    rows: np.ndarray  # [n] the test rows' numbers
    trained_parameters: int = field(default=0, kw_only=True)  # of one seed's run


R = TypeVar("R", bound=Row)


def names(run: dict, explainer: str, condition: str) -> tuple[str, str]:
    """(explainer, condition) as records say it: the target itself is "self", an untrained model an
    explainer of its own, and so is one that was published ("published self")."""
    if base := trained_from(explainer):
        return AS_PUBLISHED + names(run, base, condition)[0], condition
    name = "self" if explainer in (run["target"], "self") else explainer
    if condition in UNTRAINED:
        own = "untrained" if name in ("self", "untrained") else f"untrained {name}"
        return own, "full" if condition == "untrained" else condition
    return name, "full" if name in SURFACE else condition


def self_explained(
    runs: list[tuple[dict, pd.DataFrame]], task: str
) -> tuple[dict, pd.DataFrame] | None:
    """(run, its predictions under the condition "full" in the order of the test rows) of the
    self-explainer of a task: the one of the largest training size, the first target and the first
    seed. None where there is no such run."""
    own = [
        (run, said)
        for run, said in runs
        if run["task"] == task
        and run["n_train"]
        and names(run, run["explainer"] or "", "full")[0] == "self"
        if (said["condition"] == "full").any()
    ]
    if not own:
        return None
    run, said = max(own, key=lambda pair: pair[0]["n_train"])
    return run, said[said["condition"] == "full"].sort_values("row")


def grouped(runs: list[tuple[dict, pd.DataFrame]]) -> Iterator[tuple[dict, list[pd.DataFrame]]]:
    """The fields of a `Row` and its predictions by seed, for each (task, target, data, explainer,
    condition, training size).

    Raises `UserError` where two runs were not scored on the same test rows.
    """
    parts: dict[tuple, list[tuple[dict, pd.DataFrame]]] = {}
    for run, predictions in runs:
        table = predictions if "data" in predictions else predictions.assign(data="test")
        for (explainer, condition, data), part in table.groupby(["explainer", "condition", "data"]):
            key = (
                run["task"],
                run["target"],
                data,
                *names(run, explainer, condition),
                run["n_train"],
            )
            parts.setdefault(key, []).append((run, part.sort_values("row")))
    test_sets: dict[tuple, tuple[str, np.ndarray]] = {}
    for key, found in parts.items():
        found.sort(key=lambda pair: pair[0]["seed"] or 0)
        for run, part in found:
            located = key[4] == "locate"
            test_set = part[["row"] if located else list(TASKS[run["task"]].test_row)].to_numpy()
            first = test_sets.setdefault((key[:3], located), (run["id"], test_set))
            if not np.array_equal(first[1], test_set):
                raise UserError(
                    f"runs {first[0]} and {run['id']} were scored on different test rows: delete "
                    "the older, run again"
                )
        fields = dict(
            zip(("task", "target", "data", "explainer", "condition", "n_train"), key, strict=True)
        )
        fields["seeds"] = [run["seed"] for run, _ in found if run["seed"] is not None]
        fields["artifact"] = ", ".join(run["checkpoint"] or f"runs/{run['id']}" for run, _ in found)
        fields["rows"] = found[0][1]["row"].to_numpy()
        fields["trained_parameters"] = found[0][0]["trained_parameters"]
        yield fields, [part for _, part in found]


def against_self(rows: list[R]) -> Iterator[tuple[R, R, list[int], list[int], list[int]]]:
    """Of the rows of one target and test set: the self-explainer, another row, the seeds that both
    have, and the places of these in the one and in the other. What the differences of "-paired"
    rest on.

    A row of one seed or none (a baseline, the untrained explainer) stands against every seed of the
    self-explainer.
    """
    for own in (row for row in rows if (row.explainer, row.condition) == ("self", "full")):
        for other in (row for row in rows if row is not own):
            several = len(other.seeds) > 1
            both = [seed for seed in own.seeds if seed in other.seeds] if several else own.seeds
            if both:
                of_other = (
                    [other.seeds.index(seed) for seed in both] if several else [0] * len(both)
                )
                yield own, other, both, [own.seeds.index(seed) for seed in both], of_other


def stacked(parts: list[pd.DataFrame], column: str) -> np.ndarray:
    """A column of s seeds as floats [s, n]. Where a chat judge gave no rating, that row counts as
    the mean of the others."""
    columns = [part[column].astype(float) for part in parts]
    if column == "judge":
        columns = [ratings.fillna(ratings.mean()) for ratings in columns]
    return np.stack([values.to_numpy() for values in columns])


def by_size(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(rows of each explainer's largest training size, those of smaller ones), for the tables and
    for table "scaling".

    An explainer that has only been trained on a smaller size of the self-explainer's stands beside
    that, not in the tables.
    """
    sizes: dict[tuple, set[int]] = {}
    for row in rows:
        sizes.setdefault((row.task, row.target, row.explainer), set()).add(row.n_train or 0)

    def has_its_place(row: Row) -> bool:
        n, own = row.n_train or 0, sizes.get((row.task, row.target, "self"), {0})
        return n == max(sizes[row.task, row.target, row.explainer]) and (
            n in (0, max(own)) or n not in own
        )

    in_table = [row for row in rows if has_its_place(row)]
    return in_table, [row for row in rows if row not in in_table]


def record(
    table: str,
    row: Row,
    metric: str,
    score: tuple[float, float],
    p: float | None = None,
    condition: str = "",
) -> dict:
    """One record; `condition` where it is not the row's own (a difference)."""
    condition = condition or row.condition
    known = {
        "target": model_name(row.target),
        "explainer": model_name(row.explainer),
        "condition": condition,
    }
    paper = published(table=table, data=row.data, metric=metric, **known)
    return {
        "table": table,
        "task": row.task,
        "data": row.data,
        "target": row.target,
        "explainer": row.explainer,
        "condition": condition,
        "metric": metric,
        "value": round(score[0], 6),
        "stderr": round(score[1], 6),
        "n": len(row.rows),
        "seeds": row.seeds,
        "n_train": None
        if row.explainer.startswith(AS_PUBLISHED)
        else row.n_train,  # the authors' rows are not the run's
        "trained_parameters": row.trained_parameters,
        "paper": paper and paper.value,
        "artifact": row.artifact,
        "p_vs_best": None if p is None else float(f"{p:.4g}"),
    }


def count(run: dict, table: str, data: str, condition: str, value: int, n: int) -> dict:
    """One count of a run that is no score of an explainer."""
    paper = published(table=table, data=data, target=model_name(run["target"]), condition=condition)
    return (
        {
            "table": table,
            "task": run["task"],
            "data": data,
            "target": run["target"],
            "explainer": "",
        }
        | {
            "condition": condition,
            "metric": "count",
            "value": value,
            "stderr": None,
            "n": n,
            "seeds": [],
        }
        | {
            "n_train": None,
            "trained_parameters": 0,
            "paper": paper and paper.value,
            "artifact": f"runs/{run['id']}",
            "p_vs_best": None,
        }
    )
