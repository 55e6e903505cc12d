"""The form of a record of `results.json`; what its keys mean, `records` says."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from introspect_utils.report.paper import AS_PUBLISHED, model_name, published
from introspect_utils.report.table_rows import Row, artifact
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError

ONE_SEED = "one training seed"
FORM = (
    "table task data target explainer condition metric value stderr low high n clusters n_clusters "
    "stderr_by seeds n_train trained_parameters paper artifact p reason"
).split()
OF_ROW = "task data target explainer condition seeds n_train trained_parameters artifact".split()
Block = list[tuple[int, Row]]  # rows of the same test rows, each with its sign


def record(table: str, row: Row, metric: str, value: float | None, **fields) -> dict:
    """One record of a row; `fields` in place of what they would be."""
    known = {key: getattr(row, key) for key in OF_ROW}
    known |= {"table": table, "metric": metric, "value": value, "stderr_by": {}}
    known |= {"clusters": None, "n": len(row.parts[0]) if row.parts else None}
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
    """The record of per-row scores [s, n] with their error and p; by default the row's own.

    Raises `UserError` for a score that is not a number.
    """
    fields = ({"p": None} if scores is None else {}) | fields
    scores = row.scores(metric) if scores is None else scores
    clusters = row.clusters if clusters is None else clusters
    first, *others = [*clusters.items()] or [(None, np.arange(scores.shape[1]))]
    try:
        found = metrics.estimate(scores, first[1])
    except ValueError as error:
        raise UserError(f"{row.artifact}: {metric}, {error}") from None
    error_by = {name: metrics.estimate(scores, ids).stderr for name, ids in others}
    error = found._asdict() | {"n": scores.shape[1], "clusters": first[0]}
    error |= {"n_clusters": len(set(first[1]))}
    error |= {"stderr_by": {name: e and round(e, 6) for name, e in error_by.items()}}
    return record(table, row, metric, **error | fields)


def paired(rows: list[Row], metric: str) -> tuple[list[int], list[np.ndarray]]:
    """(the training seeds that all trained rows have, the scores [s, n] of each row for them). What
    is not trained has the same scores for every seed."""
    trained = [row for row in rows if row.trained]
    seeds = [s for s in (trained or rows)[0].seeds if all(s in row.seeds for row in trained)]
    n = len(seeds) if trained else 1
    places = [[row.seeds.index(s) for s in seeds] if row.trained else [0] * n for row in rows]
    return seeds, [row.scores(metric)[at] for row, at in zip(rows, places, strict=True)]


def contrast(table: str, row: Row, metric: str, *blocks: Block, **fields) -> list[dict]:
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
