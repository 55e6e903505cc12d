"""What one row of a table rests on, the predictions of an explainer under a condition by training
seed; and the records of `results.json` that are made of it. What a record's keys mean, `records`
says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from introspect_utils.explainer.published import trained_from
from introspect_utils.report.paper import AS_PUBLISHED, model_name, published
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.conditions import UNTRAINED

RUNS = list[tuple[dict, pd.DataFrame]]  # run.json and predictions of each
TEMPLATE = r"the word '\S*'"  # a description that only names a word
ONE_SEED = "one training seed"
RATED = ("judge", "judge_high")  # not a number where a chat judge gave no rating
FORM = (
    "table task data target explainer condition metric value stderr low high n clusters n_clusters "
    "error_by seeds n_train trained_parameters paper artifact p reason"
).split()
OF_ROW = "task data target explainer condition seeds n_train trained_parameters artifact".split()


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
        return np.stack([np.asarray(part[metric], dtype=float) for part in self.parts])

    @cached_property
    def columns(self) -> set[str]:
        """Columns of the predictions that have values."""
        return {name for name, column in self.parts[0].items() if column.notna().any()}

    def metrics(self, *extra: str) -> list[str]:
        """The task's metrics and `extra` ones, as far as the row has numbers of them."""
        return [name for name in (*TASKS[self.task].metrics, *extra) if name in self.columns]

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
        by = table.sort_values("row").groupby(["explainer", "condition", "data"])
        for (explainer, condition, data), part in by:
            test_set = run["task"], run["target"], data
            key = *test_set, *names(run, explainer, condition), run["n_train"]
            parts.setdefault(key, []).append((run, with_derived(part)))
            # the question "locate" (C.1) has answers of its own
            columns = ["row"] if condition == "locate" else list(TASKS[run["task"]].test_row)
            rows = part[columns].to_numpy()
            other, expected = first.setdefault((*test_set, len(columns)), (run["id"], rows))
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


def with_derived(part: pd.DataFrame) -> pd.DataFrame:
    """Predictions with the per-row scores that are made of other columns. Says "changed" is false
    of an answer that cannot be parsed."""
    made = {}
    if "is_different" in part:
        said = metrics.codes(part["predicted_changed"])
        f1 = metrics.f1_rows(metrics.codes(part["is_different"]), said[None])[0]
        made = {"has_changed_f1": f1, "unparseable": said == metrics.UNPARSEABLE}
        made["predicted_changed"] = said == 1
    if "hint" in part:
        made["predicts_hint"] = part["predicted_content"] == part["hint"]
    if "judge" in part:
        made["judge_high"] = part["judge"].ge(0.75).where(part["judge"].notna())
        made["one_word"] = part["generation"].str.fullmatch(TEMPLATE)
    return part.assign(**made)


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

    return [row for row in rows if in_tables(row)], [row for row in rows if not in_tables(row)]


def record(table: str, row: Row, metric: str, value: float | None, **fields) -> dict:
    """One record of a row; `fields` in place of what they would be."""
    known = {key: getattr(row, key) for key in OF_ROW}
    known |= {"table": table, "metric": metric, "value": value, "error_by": {}}
    known["n"] = len(row.parts[0]) if row.parts else None
    if row.explainer.startswith(AS_PUBLISHED):
        known["n_train"] = None  # the authors' training rows are not the run's
    found = dict.fromkeys(FORM) | known | fields
    target, explainer = model_name(row.target), model_name(row.explainer)
    paper = published(table, row.data, target, explainer, found["condition"], metric)
    numbers = {key: found[key] for key in ("value", "stderr", "low", "high")}
    numbers = {k: None if v is None else round(float(v), 6) for k, v in numbers.items()}
    return found | numbers | {"paper": paper and paper.value}


def measured(
    table: str,
    row: Row,
    metric: str,
    scores: np.ndarray | None = None,
    clusters: Mapping[str, np.ndarray] | None = None,
    **fields,
) -> dict:
    """The record of per-row scores [s, n] with their error and p; by default the row's own. A test
    row that a chat judge did not rate (`task_features.wrong` says how few may be) is left out.

    Raises `UserError` for another score that is not a number.
    """
    if scores is None:
        scores, clusters, fields = row.scores(metric), row.clusters, {"p": None} | fields
    if metric in RATED:
        [scores], clusters = rated([scores], clusters)
    first, *others = [*clusters.items()] or [(None, np.arange(scores.shape[1]))]
    try:
        found = metrics.estimate(scores, first[1])
    except UserError as error:
        raise UserError(f"{row.artifact}: {metric}, {error}") from None
    error_by = {}
    for name, ids in others:
        by = metrics.estimate(scores, ids)
        if by.stderr:
            error_by[name] = {key: round(getattr(by, key), 6) for key in ("stderr", "low", "high")}
            error_by[name]["p"] = float(f"{by.p:.4g}")
    error = found._asdict() | {"n": scores.shape[1], "clusters": first[0], "error_by": error_by}
    error["n_clusters"] = len(set(first[1]))
    return record(table, row, metric, **error | fields)


def rated(
    scores: Sequence[np.ndarray], clusters: Mapping[str, np.ndarray]
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """(each of these scores [s, n], the clusters [n]) of the test rows that have all of them."""
    here = ~np.isnan(np.vstack(scores)).any(axis=0)
    return [of[:, here] for of in scores], {name: ids[here] for name, ids in clusters.items()}


def paired(rows: list[Row], metric: str) -> tuple[list[int], list[np.ndarray]]:
    """(the training seeds that all trained rows have, the scores [s, n] of each row for them). What
    is not trained has the same scores for every seed."""
    trained = [row for row in rows if row.trained]
    seeds = [s for s in (trained or rows)[0].seeds if all(s in row.seeds for row in trained)]
    n = len(seeds) if trained else 1
    places = [[row.seeds.index(s) for s in seeds] if row.trained else [0] * n for row in rows]
    return seeds, [row.scores(metric)[at] for row, at in zip(rows, places, strict=True)]


def contrast(
    table: str, row: Row, metric: str, *blocks: list[tuple[int, Row]], **fields
) -> list[dict]:
    """The record, as one of `row`, of a sum of signed rows: paired by test row within a block and
    by training seed over all; the blocks are of different test rows. Without a p if it rests on
    one training seed; none at all if there is no seed in common."""
    rows = [r for block in blocks for _, r in block]
    seeds, scores = paired(rows, metric)
    if not scores[0].size:
        return []
    at = iter(scores)
    parts = [sum(sign * next(at) for sign, _ in block) for block in blocks]
    first = [block[0][1].clusters for block in blocks]
    shared = [name for name in first[0] if all(name in of_block for of_block in first)]
    clusters = {name: np.hstack([of_block[name] for of_block in first]) for name in shared}
    if len(seeds) < 2 and any(row.trained for row in rows):
        because = fields.get("reason")
        fields |= {"p": None, "reason": f"{because}, {ONE_SEED}" if because else ONE_SEED}
    scores = parts[0] if len(parts) == 1 else metrics.summed(parts)
    return [measured(table, row, metric, scores, clusters, seeds=seeds, **fields)]


def half_width(r: dict) -> float:
    """Half of the 95% interval of a record, or of a number of the paper."""
    if r.get("high") is not None:
        return r["high"] - r["value"]
    return 1.96 * (r["stderr"] or 0)  # the paper gives no interval


def widest(r: dict) -> tuple[float, str]:
    """(half of the 95% interval of a record, " by layer" if that clustering makes it wider)."""
    others = [((e["high"] - e["low"]) / 2, f" by {by}") for by, e in r.get("error_by", {}).items()]
    return max([(half_width(r), ""), *others])


def within(condition: str, part: str) -> str:
    """The condition of a number about a part of what an explainer said under `condition`."""
    return part if condition == "full" else f"{condition}, {part}"


def of_run(table, run, metric, value, data="", explainer="", condition="", **fields) -> dict:
    """A number that a run gives itself, of an explainer if one is named."""
    row = Row(run["task"], run["target"], data, explainer, condition, None, [], artifact([run]))
    if explainer:
        made = {"n_train": run["n_train"], "seeds": [run["seed"]]}
        row = replace(row, **made, trained_parameters=run["trained_parameters"] or 0)
    return record(table, row, metric, value, **fields)


def share(hits: int, n: int) -> dict:
    """Error and interval (Wilson's) of a share of n."""
    value, low, high = metrics.wilson(hits, n)
    error = (value * (1 - value) / n) ** 0.5
    return {"value": value, "stderr": error, "low": low, "high": high, "n": n, "n_clusters": n}
