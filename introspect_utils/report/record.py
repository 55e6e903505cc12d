"""The form of a record of `results.json`; what its keys mean, `records` says."""

from collections.abc import Mapping

import numpy as np

from introspect_utils.report.paper import AS_PUBLISHED, model_name, published
from introspect_utils.report.table_rows import Row, shared_seeds
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError

ONE_SEED = "one training seed"


def record(table: str, row: Row, metric: str, value: float | None, **fields) -> dict:
    """One record of a row; `fields` in place of what they would be."""
    condition = fields.get("condition", row.condition)
    target, explainer = model_name(row.target), model_name(row.explainer)
    paper = published(table, row.data, target, explainer, condition, metric)
    return {
        "table": table,
        "task": row.task,
        "data": row.data,
        "target": row.target,
        "explainer": row.explainer,
        "condition": condition,
        "metric": metric,
        "value": _rounded(value),
        "stderr": _rounded(fields.get("stderr")),
        "low": _rounded(fields.get("low")),
        "high": _rounded(fields.get("high")),
        "n": fields.get("n", len(row.parts[0]) if row.parts else None),
        "clusters": fields.get("clusters"),
        "n_clusters": fields.get("n_clusters"),
        "stderr_by": fields.get("stderr_by", {}),
        "seeds": fields.get("seeds", row.seeds),
        # the authors' training rows are not the run's
        "n_train": None if row.explainer.startswith(AS_PUBLISHED) else row.n_train,
        "trained_parameters": row.trained_parameters,
        "paper": paper and paper.value,
        "artifact": row.artifact,
        "p": fields.get("p"),
        "reason": fields.get("reason"),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def measured(
    table: str,
    row: Row,
    metric: str,
    scores: np.ndarray | None = None,
    clusters: Mapping[str, np.ndarray] | None = None,
    tested: bool = False,
    **fields,
) -> dict:
    """The record of per-row scores [s, n] with their error; by default the row's own. `tested`: they
    are a difference, whose p is given unless it rests on one training seed.

    Raises `UserError` for a score that is not a number.
    """
    scores = row.scores(metric) if scores is None else scores
    clusters = row.clusters if clusters is None else clusters
    try:
        of_rows = metrics.estimate(scores, next(iter(clusters.values()), None))
    except ValueError as error:
        raise UserError(f"{row.artifact}: {metric}, {error}") from None
    low, high = of_rows.interval
    others = list(clusters.items())[1:]
    fields = {
        "stderr": of_rows.stderr,
        "low": low,
        "high": high,
        "n": scores.shape[1],
        "clusters": next(iter(clusters), None),
        "n_clusters": len(np.unique(next(iter(clusters.values()))))
        if clusters
        else scores.shape[1],
        "stderr_by": {name: _rounded(metrics.estimate(scores, ids).stderr) for name, ids in others},
    } | fields
    if tested:
        one_seed = len(fields.get("seeds", row.seeds)) < 2
        fields |= {"reason": ONE_SEED} if one_seed else {"p": of_rows.p}
    return record(table, row, metric, of_rows.value, **fields)


def difference(
    table: str, a: Row, b: Row, metric: str, condition: str | None = None
) -> dict | None:
    """`a` minus `b`, paired by test row and training seed, as a record of `b`; None if they have no
    seed in common."""
    seeds, of_a, of_b = shared_seeds(a, b)
    trained = a.trained or b.trained
    if trained and not seeds:
        return None
    scores = a.scores(metric)[of_a] - b.scores(metric)[of_b]
    fields = {"seeds": seeds} | ({"condition": condition} if condition else {})
    found = measured(table, b, metric, scores, tested=trained, **fields)
    if not trained:  # nothing was trained, so there are no seeds: the rows are all there is
        found["p"] = metrics.estimate(scores, next(iter(b.clusters.values()), None)).p
    return found


def part_of(condition: str, part: str) -> str:
    """The condition of a number about a part of what an explainer said under `condition`."""
    return part if condition == "full" else f"{condition}, {part}"


def bare_row(run: dict, data: str, explainer: str, condition: str, **fields) -> Row:
    """A row of a number that a run gives itself, without predictions."""
    made = {"n_train": run["n_train"], "seeds": [run["seed"]], "artifact": f"runs/{run['id']}"}
    made |= {"trained_parameters": run["trained_parameters"] or 0, "epochs": None, "parts": []}
    return Row(run["task"], run["target"], data, explainer, condition, **(made | fields))


def count(run: dict, table: str, data: str, condition: str, value: float, n: int) -> dict:
    """One count of a run that is no score of an explainer."""
    none = {"n_train": None, "seeds": [], "trained_parameters": 0}
    return record(table, bare_row(run, data, "", condition, **none), "count", value, n=n)
