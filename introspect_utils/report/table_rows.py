"""What one row of a table rests on: the predictions of an explainer under a condition, by training
seed."""

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

RUNS = list[tuple[dict, pd.DataFrame]]  # run.json and predictions of each
TEMPLATE = r"the word '\S*'"  # a description that only names a word
# metrics that are no column of the predictions: (a column they need, per-row scores of a part [n])
DERIVED = {
    "has_changed_f1": (
        "is_different",
        lambda part: metrics.f1_rows(
            metrics.codes(part["is_different"]), metrics.codes(part["predicted_changed"])[None]
        )[0],
    ),
    "unparseable": ("is_different", lambda part: part["predicted_changed"].isna()),
    "predicted_changed": (
        "is_different",
        lambda part: metrics.codes(part["predicted_changed"]) == 1,
    ),
    "predicts_hint": ("hint", lambda part: part["predicted_content"] == part["hint"]),
    "judge_high": ("judge", lambda part: part["judge"] >= 0.75),
    "one_word": ("gold", lambda part: part["generation"].str.fullmatch(TEMPLATE)),
}


@dataclass(frozen=True, eq=False)
class Row:
    """An explainer under a condition: s training seeds, scored on the same n test rows."""

    task: str
    target: str
    data: str  # sae | act | dact; test if a task has one test set
    explainer: str
    condition: str
    n_train: int | None
    seeds: list[int]
    artifact: str
    trained_parameters: int = 0  # of one seed's run
    epochs: int | None = None
    parts: tuple[pd.DataFrame, ...] = ()  # [n] of each seed, in the order of the test rows
    split: str = ""  # which of the test rows, of features: seen, unseen, one-word, other-label

    def scores(self, metric: str) -> np.ndarray:
        """Per-row scores [s, n], whose mean is the metric."""
        _, derived = DERIVED.get(metric, (None, lambda part: part[metric]))
        return np.stack([np.asarray(derived(part), dtype=float) for part in self.parts])

    @cached_property
    def columns(self) -> set[str]:
        """Columns of the predictions that have values."""
        return {name for name, column in self.parts[0].items() if column.notna().any()}

    def metrics(self, *extra: str) -> list[str]:
        """The task's metrics and `extra` ones, as far as the row has numbers of them."""
        every = (*TASKS[self.task].metrics, *extra)
        return [name for name in every if DERIVED.get(name, (name,))[0] in self.columns]

    @cached_property
    def clusters(self) -> dict[str, np.ndarray]:
        """{column: cluster of each test row [n]}; the first is that of the errors. Empty if the
        predictions do not say it."""
        part, names = self.parts[0], TASKS[self.task].clusters
        known = {n: part[n].to_numpy() for n in names if n in part and part[n].notna().all()}
        return known if names and names[0] in known else {}

    @property
    def trained(self) -> bool:
        return bool(self.trained_parameters) or self.explainer.startswith(AS_PUBLISHED)

    def take(self, mask: np.ndarray, **fields) -> "Row":
        """The same of some of the test rows, `mask` [n]."""
        return replace(self, parts=tuple(part[mask] for part in self.parts), **fields)


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


def self_explained(runs: RUNS, task: str) -> tuple[dict, pd.DataFrame] | None:
    """(run, its predictions under "full" in the order of the test rows) of a task's self-explainer
    of the largest training size, the first target and the first seed. None if there is none."""
    explained = [
        (run, part[part["condition"] == "full"].sort_values("row"))
        for run, part in runs
        if run["task"] == task and names(run, run["explainer"] or "", "full")[0] == "self"
        if run["n_train"] and (part["condition"] == "full").any()
    ]
    return max(explained, key=lambda pair: pair[0]["n_train"], default=None)


def rows_of(runs: RUNS) -> list[Row]:
    """The table rows of all runs: one for each (task, target, data, explainer, condition, training
    size). Raises `UserError` if two runs of a target were not scored on the same test rows."""
    parts: dict[tuple, RUNS] = {}
    first: dict[tuple, tuple[str, np.ndarray]] = {}
    for run, predictions in runs:
        table = predictions if "data" in predictions else predictions.assign(data="test")
        for (explainer, condition, data), part in table.groupby(["explainer", "condition", "data"]):
            key = run["task"], run["target"], data, *names(run, explainer, condition)
            part = part.sort_values("row")
            parts.setdefault((*key, run["n_train"]), []).append((run, part))
            # the question "locate" (C.1) has answers of its own
            columns = ["row"] if condition == "locate" else list(TASKS[run["task"]].test_row)
            rows = part[columns].to_numpy()
            other, expected = first.setdefault((*key[:3], len(columns)), (run["id"], rows))
            if not np.array_equal(expected, rows):
                raise UserError(
                    f"runs {other} and {run['id']} were scored on different test rows: delete the "
                    "older, run again"
                )
    found = []
    for key, by_seed in parts.items():
        made, tables = zip(*sorted(by_seed, key=lambda pair: pair[0]["seed"] or 0), strict=True)
        seeds = [run["seed"] for run in made if run["seed"] is not None]
        settings = made[0]["settings"]
        training = settings.get("training", {}) | (settings.get(made[0]["task"]) or {})
        known = made[0]["trained_parameters"] or 0, training.get("epochs")
        found.append(Row(*key, seeds, artifact(made), *known, tables))
    return found


def artifact(runs: list[dict]) -> str:
    """What made a number: the checkpoints of runs, or their folders."""
    return ", ".join(run["checkpoint"] or f"runs/{run['id']}" for run in runs)


def by_size(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(rows of each explainer's largest training size, those of smaller ones). An explainer that
    was only trained on a smaller size of the self-explainer's stands beside that."""
    sizes: dict[tuple, set[int]] = {}
    for row in rows:
        sizes.setdefault((row.task, row.target, row.explainer), set()).add(row.n_train or 0)

    def in_tables(row: Row) -> bool:
        n, of_self = row.n_train or 0, sizes.get((row.task, row.target, "self"), {0})
        largest = n == max(sizes[row.task, row.target, row.explainer])
        return largest and (n in (0, max(of_self)) or n not in of_self)

    largest = [row for row in rows if in_tables(row)]
    return largest, [row for row in rows if row not in largest]
