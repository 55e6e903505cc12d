"""Run files (`run.json`, `predictions.parquet`) and `results.json`, the one flat list of records every table is drawn from.

A record has the keys `table, task, data, target, explainer, condition, metric, value, stderr, n, seeds, n_train, paper, artifact,
p_vs_best`. `paper` is the published value where our target is the paper's target, else null. `artifact` is the checkpoint (from
the repository's root) or, without one, the run's folder (beside `results.json`); those of several seeds are joined by ", ".
`p_vs_best` is the p of the paired t-test against the best row of the same table, target and metric: bold is p >= 0.05.
Records of table "2-vector" are paired differences (value may be negative), those of table "6" counts.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from . import metrics
from .errors import UserError
from .paper import PATCHING_METRICS, count_condition, model_name, published
from .paths import figures_dir
from .profiles import load_profile
from .runs import plan

RUN_KEYS = {"id", "task", "target", "explainer", "condition", "n_train", "seed", "checkpoint", "checkpoint_sha256"} | {
    *("trained_parameters", "seconds", "peak_memory_mb", "commit", "device", "settings", "statistics"),
}
COLUMNS = {
    "row": pa.int64(),  # the test row; one line for each of them, explainer and condition
    "condition": pa.string(),
    "explainer": pa.string(),
    "generation": pa.string(),
    "predicted_changed": pa.bool_(),  # null where the answer could not be parsed
    "predicted_content": pa.string(),
    "is_different": pa.bool_(),
    "content": pa.string(),
    "exact_match": pa.bool_(),
    "has_changed": pa.bool_(),  # predicted_changed is right
    "content_match": pa.bool_(),
    "token_type": pa.string(),
    "block": pa.string(),
}
SURFACE = ("lookup", "majority")  # baselines that see neither the vector nor a model
VECTOR_CONTROLS = ("no-vector", "zero-vector", "shuffled-vector")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: to a temporary file in its folder, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _to_arrow(run: dict, predictions: pd.DataFrame) -> pa.Table:
    """Check a run and its predictions against the schema; UserError names the first thing that is wrong."""
    if run.keys() != RUN_KEYS:
        raise UserError(f"run {run.get('id')}: keys of run.json missing or unknown: {sorted(run.keys() ^ RUN_KEYS)}")
    if set(predictions.columns) != set(COLUMNS):
        wrong = sorted(set(predictions.columns) ^ set(COLUMNS))
        raise UserError(f"run {run['id']}: columns of the predictions missing or unknown: {wrong}")
    try:
        table = pa.Table.from_pandas(predictions, schema=pa.schema(COLUMNS), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"run {run['id']}: a column of the predictions has the wrong type: {error.args[-1]}") from error
    if predictions.duplicated(["explainer", "condition", "row"]).any():
        raise UserError(f"run {run['id']}: a test row occurs twice for one explainer and condition, write one line for each")
    right = metrics.codes(predictions["predicted_changed"]) == metrics.codes(predictions["is_different"])
    if (predictions["has_changed"].to_numpy(dtype=bool) != right).any():
        raise UserError(f"run {run['id']}: has_changed must be predicted_changed == is_different, and False where it is null")
    return table.replace_schema_metadata(None)


def write_run(directory: Path, run: dict, predictions: pd.DataFrame) -> None:
    """Write `predictions.parquet`, then `run.json`: where run.json exists, the run is finished and whole."""
    table = _to_arrow(run, predictions)
    text = json.dumps(run, indent=1, sort_keys=True, allow_nan=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").unlink(missing_ok=True)  # never an old run.json beside new predictions
    _replace(directory / "predictions.parquet", lambda path: pq.write_table(table, path, compression="zstd"))
    _replace(directory / "run.json", lambda path: path.write_text(text))


def read_run(directory: Path) -> tuple[dict, pd.DataFrame]:
    """One finished run: its run.json and its predictions."""
    return json.loads((directory / "run.json").read_text()), pq.read_table(directory / "predictions.parquet").to_pandas()


def read_runs(profile: str) -> list[tuple[dict, pd.DataFrame]]:
    """The finished runs among those that a profile (name or .yaml file) plans, in its order.

    Runs that lie in the folder but are not planned (made with other settings) are left out.
    """
    planned = [path for run in plan(load_profile(profile)) for path in run.outputs if path.name == "run.json"]
    runs = [read_run(path.parent) for path in planned if path.exists()]
    if not runs:
        raise UserError(f"no run of profile {profile} is finished: run ./run_all.sh {profile} first")
    return runs


@dataclass(frozen=True, eq=False)
class Row:
    """What one table row rests on: an explainer under a condition, s training seeds scored on the same n test rows."""

    target: str
    explainer: str
    condition: str
    n_train: int | None
    seeds: list[int]
    artifact: str
    rows: np.ndarray  # [n] the test rows' numbers
    truth: np.ndarray  # [n] 1 changed, 0 unchanged
    predicted: np.ndarray  # [s, n] 1, 0, or UNPARSEABLE
    exact_match: np.ndarray  # [s, n] 0/1 floats, as the next two
    has_changed: np.ndarray
    content_match: np.ndarray

    def scores(self, metric: str) -> np.ndarray:
        """Per-row scores [s, n]; for macro-F1, which has none, the has-changed correctness (the t-test's stand-in)."""
        return getattr(self, {"has_changed_f1": "has_changed"}.get(metric, metric))


def _names(run: dict, explainer: str, condition: str) -> tuple[str, str]:
    """(explainer, condition) as records say it: the target itself is "self", an untrained model an explainer of its own."""
    name = "self" if explainer in (run["target"], "self") else explainer
    if condition == "untrained":
        return ("untrained" if name in ("self", "untrained") else f"untrained {name}"), "full"
    return name, "full" if name in SURFACE else condition


def _rows(runs: list[tuple[dict, pd.DataFrame]]) -> list[Row]:
    """The predictions of all runs, one `Row` for each (target, explainer, condition, number of training rows)."""
    parts: dict[tuple, list[tuple[dict, pd.DataFrame]]] = {}
    for run, predictions in runs:
        for (explainer, condition), part in predictions.groupby(["explainer", "condition"]):
            key = (run["target"], *_names(run, explainer, condition), run["n_train"])
            parts.setdefault(key, []).append((run, part.sort_values("row")))
    rows, test_sets = [], {}
    for key, found in parts.items():
        found.sort(key=lambda pair: pair[0]["seed"] or 0)
        for run, part in found:
            test_set = part[["row", "is_different", "content"]] if key[2] != "locate" else part[["row"]]
            first = test_sets.setdefault((key[0], key[2] == "locate"), (run["id"], test_set))
            if not np.array_equal(first[1].to_numpy(), test_set.to_numpy()):
                raise UserError(
                    f"runs {first[0]} and {run['id']} were scored on different test rows: delete the older, run again"
                )

        def stack(column, found=found):
            return np.stack([part[column].to_numpy(dtype=float) for _, part in found])

        rows.append(
            Row(
                *key,
                seeds=[run["seed"] for run, _ in found if run["seed"] is not None],
                artifact=", ".join(run["checkpoint"] or f"runs/{run['id']}" for run, _ in found),
                rows=found[0][1]["row"].to_numpy(),
                truth=metrics.codes(found[0][1]["is_different"]),
                predicted=np.stack([metrics.codes(part["predicted_changed"]) for _, part in found]),
                exact_match=stack("exact_match"),
                has_changed=stack("has_changed"),
                content_match=stack("content_match"),
            )
        )
    return rows


def _record(table: str, row: Row, metric: str, score: tuple[float, float], p: float | None = None, condition: str = "") -> dict:
    """One record; `condition` where it is not the row's own (a difference)."""
    condition = condition or row.condition
    names = {"target": model_name(row.target), "explainer": model_name(row.explainer), "condition": condition}
    paper = published(table=table, metric=metric, **names)
    return {
        "table": table,
        "task": "patching",
        "data": "test",
        "target": row.target,
        "explainer": row.explainer,
        "condition": condition,
        "metric": metric,
        "value": round(score[0], 6),
        "stderr": round(score[1], 6),
        "n": len(row.rows),
        "seeds": row.seeds,
        "n_train": row.n_train,
        "paper": paper and paper.value,
        "artifact": row.artifact,
        "p_vs_best": None if p is None else float(f"{p:.4g}"),
    }


def _score(row: Row, metric: str) -> tuple[float, float]:
    if metric == "has_changed_f1":
        return metrics.f1_score(row.truth, row.predicted)
    return metrics.mean_score(row.scores(metric))


def _table_2(rows: list[Row]) -> list[dict]:
    """The three metrics with the test against the best, and the share of unparseable answers; `rows` of one target."""
    found = []
    for metric in PATCHING_METRICS:
        scores = [_score(row, metric) for row in rows]
        p = metrics.p_vs_best(
            {i: value for i, (value, _) in enumerate(scores)}, {i: row.scores(metric).mean(axis=0) for i, row in enumerate(rows)}
        )
        found += [_record("2", row, metric, scores[i], p[i]) for i, row in enumerate(rows)]
    unparseable = [metrics.mean_score((row.predicted == metrics.UNPARSEABLE).astype(float)) for row in rows]
    return found + [_record("2", row, "unparseable", score) for row, score in zip(rows, unparseable, strict=True)]


def _vector(rows: list[Row]) -> list[dict]:
    """What the vector adds: full minus each control of the same explainer, paired by test row and by the seeds both have."""
    found, full = [], {row.explainer: row for row in rows if row.condition == "full"}
    for row in rows:
        a = full.get(row.explainer)
        both = [seed for seed in row.seeds if a and seed in a.seeds]
        if row.condition not in VECTOR_CONTROLS or not both:
            continue
        of_a, of_b = [a.seeds.index(seed) for seed in both], [row.seeds.index(seed) for seed in both]
        for metric in PATCHING_METRICS:
            if metric == "has_changed_f1":
                score = metrics.f1_difference(row.truth, a.predicted[of_a], row.predicted[of_b])
            else:
                score = metrics.mean_score(a.scores(metric)[of_a] - row.scores(metric)[of_b])
            found.append(_record("2-vector", row, metric, score, condition=f"full minus {row.condition}") | {"seeds": both})
    return found


def _table_6(run: dict) -> list[dict]:
    """Rows per split, token type, layer block and has-changed of a data run."""
    found, cells = [], run["statistics"].get("table6", [])
    for cell in cells:
        n = sum(other["unchanged"] + other["changed"] for other in cells if other["split"] == cell["split"])
        for label in ("unchanged", "changed"):
            condition = count_condition(cell["token_type"], cell["layers"], label)
            paper = published(table="6", data=cell["split"], target=model_name(run["target"]), condition=condition)
            found.append(
                {"table": "6", "task": "patching", "data": cell["split"], "target": run["target"], "explainer": ""}
                | {"condition": condition, "metric": "count", "value": cell[label], "stderr": None, "n": n, "seeds": []}
                | {"n_train": None, "paper": paper and paper.value, "artifact": f"runs/{run['id']}", "p_vs_best": None}
            )
    return found


def records(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """All records of the runs, sorted. Table 2 takes each explainer's largest training size; smaller ones are table "scaling"."""
    rows = _rows(runs)
    located = [row for row in rows if row.condition == "locate"]
    patched = [row for row in rows if row.condition != "locate"]
    largest: dict[tuple, int] = {}
    for row in patched:
        key = (row.target, row.explainer)
        largest[key] = max(largest.get(key, 0), row.n_train or 0)
    in_table = [row for row in patched if (row.n_train or 0) == largest[row.target, row.explainer]]
    smaller = [row for row in patched if row not in in_table]
    found = [_record("C.1", row, "exact_match", _score(row, "exact_match")) for row in located]
    found += [_record("scaling", row, metric, _score(row, metric)) for row in smaller for metric in PATCHING_METRICS]
    for target in sorted({row.target for row in in_table}):
        of_target = [row for row in in_table if row.target == target]
        found += _table_2(of_target) + _vector(of_target)
    found += [record for run, _ in runs for record in _table_6(run)]
    keys = ("table", "target", "explainer", "condition", "data", "metric", "n_train")
    return sorted(found, key=lambda record: [str(record[key]) for key in keys])


def write_results(profile: str) -> list[dict]:
    """Write `results.json` of a profile (name or .yaml file) from its finished runs; same runs, same bytes. Returns it."""
    found = records(read_runs(profile))
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    _replace(figures_dir(load_profile(profile).name) / "results.json", lambda path: path.write_text(text))
    return found


def read_results(profile: str) -> list[dict]:
    """The records of `figures/<profile>/results.json`."""
    return json.loads((figures_dir(load_profile(profile).name) / "results.json").read_text())
