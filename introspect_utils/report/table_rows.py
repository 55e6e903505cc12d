"""What one row of a table rests on: the predictions of an explainer under a condition, by training
seed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from introspect_utils.explainer.published import trained_from
from introspect_utils.report.paper import AS_PUBLISHED
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.conditions import UNTRAINED

RATED_HIGH = 0.75  # from here the judge takes a description for similar
TEMPLATE = re.compile(r"the word '\S*'")  # a description that only names a word


@dataclass(frozen=True, eq=False)
class Row:
    """An explainer under a condition, whose s training seeds were scored on the same n test rows."""

    task: str
    target: str
    data: str  # sae | act | dact; test if a task has one test set
    explainer: str
    condition: str
    n_train: int | None
    seeds: list[int]
    artifact: str
    trained_parameters: int  # of one seed's run
    epochs: int | None
    parts: list[pd.DataFrame]  # [n] predictions of each seed, in the order of the test rows
    split: str = ""  # which of the test rows, of features: seen, unseen, one-word, other-label

    def scores(self, metric: str) -> np.ndarray:
        """Per-row scores [s, n], whose mean is the metric."""
        return np.stack([_scores(part, metric) for part in self.parts])

    @cached_property
    def columns(self) -> set[str]:
        """Columns of the predictions that have values."""
        part = self.parts[0]
        return {name for name in part if part[name].dtype == object or part[name].notna().any()}

    @cached_property
    def clusters(self) -> dict[str, np.ndarray]:
        """Column of the task's clusters -> cluster of each test row [n]. The first is that of the
        errors; empty for predictions that do not say it."""
        part, names = self.parts[0], TASKS[self.task].clusters
        known = [name for name in names if name in part and part[name].notna().all()]
        return {name: part[name].to_numpy() for name in known} if names[0] in known else {}

    @property
    def trained(self) -> bool:
        return bool(self.trained_parameters) or self.explainer.startswith(AS_PUBLISHED)

    def take(self, mask: np.ndarray, split: str = "") -> "Row":
        """The same of some of the test rows, `mask` [n]."""
        return replace(self, parts=[part[mask] for part in self.parts], split=split)


def _scores(part: pd.DataFrame, metric: str) -> np.ndarray:
    """Per-row scores [n] of one seed."""
    if metric == "has_changed_f1":
        truth, said = metrics.codes(part["is_different"]), metrics.codes(part["predicted_changed"])
        return metrics.f1_rows(truth, said[None])[0]
    if metric in ("unparseable", "predicted_changed"):
        code = metrics.UNPARSEABLE if metric == "unparseable" else 1
        return (metrics.codes(part["predicted_changed"]) == code).astype(float)
    if metric == "predicts_hint":
        return (part["predicted_content"] == part["hint"]).to_numpy(dtype=float)
    if metric == "judge_high":
        return (part["judge"] >= RATED_HIGH).to_numpy(dtype=float)
    if metric == "one_word":
        return one_word(part["generation"]).astype(float)
    return part[metric].to_numpy(dtype=float)


def one_word(descriptions: pd.Series) -> np.ndarray:
    """Whether each description only names a word ("the word 'x'"), bool [n]."""
    return descriptions.str.fullmatch(TEMPLATE).to_numpy(dtype=bool)


def names(run: dict, explainer: str, condition: str) -> tuple[str, str]:
    """(explainer, condition) as records say it: the target itself is "self", an untrained model an
    explainer of its own, and so is one that was published ("published self")."""
    if base := trained_from(explainer):
        return AS_PUBLISHED + names(run, base, condition)[0], condition
    name = "self" if explainer in (run["target"], "self") else explainer
    if condition in UNTRAINED:
        untrained = "untrained" if name in ("self", "untrained") else f"untrained {name}"
        return untrained, "full" if condition == "untrained" else condition
    return name, condition


def self_explained(
    runs: list[tuple[dict, pd.DataFrame]], task: str
) -> tuple[dict, pd.DataFrame] | None:
    """(run, its predictions under "full" in the order of the test rows) of a task's self-explainer
    of the largest training size, the first target and the first seed. None if there is none."""
    explained = [
        (run, part)
        for run, part in runs
        if run["task"] == task
        and run["n_train"]
        and names(run, run["explainer"] or "", "full")[0] == "self"
        and (part["condition"] == "full").any()
    ]
    if not explained:
        return None
    run, part = max(explained, key=lambda pair: pair[0]["n_train"])
    return run, part[part["condition"] == "full"].sort_values("row")


def rows_of(runs: list[tuple[dict, pd.DataFrame]]) -> list[Row]:
    """The table rows of all runs: one for each (task, target, data, explainer, condition, training
    size).

    Raises `UserError` if two runs were not scored on the same test rows.
    """
    parts: dict[tuple, list[tuple[dict, pd.DataFrame]]] = {}
    for run, predictions in runs:
        table = predictions if "data" in predictions else predictions.assign(data="test")
        for (explainer, condition, data), part in table.groupby(["explainer", "condition", "data"]):
            key = run["task"], run["target"], data, *names(run, explainer, condition)
            parts.setdefault((*key, run["n_train"]), []).append((run, part.sort_values("row")))
    _check_same_rows(parts)
    rows = []
    for key, by_seed in parts.items():
        by_seed.sort(key=lambda pair: pair[0]["seed"] or 0)
        first = by_seed[0][0]
        training = first["settings"].get(first["task"]) or {}
        rows.append(
            Row(
                *key,
                seeds=[run["seed"] for run, _ in by_seed if run["seed"] is not None],
                artifact=", ".join(run["checkpoint"] or f"runs/{run['id']}" for run, _ in by_seed),
                trained_parameters=first["trained_parameters"] or 0,
                epochs=training.get("epochs")
                or first["settings"].get("training", {}).get("epochs"),
                parts=[part for _, part in by_seed],
            )
        )
    return rows


def _check_same_rows(parts: dict[tuple, list[tuple[dict, pd.DataFrame]]]) -> None:
    """Raises `UserError` if test rows of one task, target and data differ. The question "locate"
    (C.1) has answers of its own."""
    first: dict[tuple, tuple[str, np.ndarray]] = {}
    for (task, target, data, _, condition, _), by_seed in parts.items():
        columns = ["row"] if condition == "locate" else list(TASKS[task].test_row)
        for run, part in by_seed:
            rows = part[columns].to_numpy()
            run_id, expected = first.setdefault(
                (task, target, data, len(columns)), (run["id"], rows)
            )
            if not np.array_equal(expected, rows):
                raise UserError(
                    f"runs {run_id} and {run['id']} were scored on different test rows: delete "
                    "the older, run again"
                )


def by_size(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(rows of each explainer's largest training size, those of smaller ones), for the tables and
    for table "scaling".

    An explainer that was only trained on a smaller size of the self-explainer's stands beside that,
    not in the tables.
    """
    sizes: dict[tuple, set[int]] = {}
    for row in rows:
        sizes.setdefault((row.task, row.target, row.explainer), set()).add(row.n_train or 0)

    def in_tables(row: Row) -> bool:
        n, of_self = row.n_train or 0, sizes.get((row.task, row.target, "self"), {0})
        largest = n == max(sizes[row.task, row.target, row.explainer])
        return largest and (n in (0, max(of_self)) or n not in of_self)

    largest = [row for row in rows if in_tables(row)]
    return largest, [row for row in rows if row not in largest]


def shared_seeds(a: Row, b: Row) -> tuple[list[int], list[int], list[int]]:
    """(training seeds that a comparison rests on, their places in `a` and in `b`): those that both
    have. What is not trained stands against every seed of the other."""
    if a.trained and b.trained:
        seeds = [seed for seed in a.seeds if seed in b.seeds]
        return seeds, [a.seeds.index(s) for s in seeds], [b.seeds.index(s) for s in seeds]
    seeds = a.seeds if a.trained else b.seeds if b.trained else [*a.seeds, *b.seeds][:1]
    n = len(seeds) or 1
    return seeds, *(list(range(n)) if row.trained else [0] * n for row in (a, b))


def pairs(rows: list[Row], explainer: str = "self") -> Iterator[tuple[Row, Row]]:
    """(an explainer under "full", another row) for each other row of the same task, target and
    data."""
    for a in rows:
        if (a.explainer, a.condition) == (explainer, "full"):
            for b in rows:
                if b is not a and (b.task, b.target, b.data) == (a.task, a.target, a.data):
                    yield a, b
