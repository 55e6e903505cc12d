"""Run files (`run.json`, `predictions.parquet`) and `results.json`, the one flat list of records every table is drawn from."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from . import metrics
from .errors import UserError
from .paths import figures_dir
from .profiles import load_profile
from .records import records
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
}
GROUPS = {"patching": ("token_type", "block"), "ablation": ("subject", "hint")}  # further columns of a task, text


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
    columns = COLUMNS | dict.fromkeys(GROUPS[run["task"]], pa.string())
    if set(predictions.columns) != set(columns):
        wrong = sorted(set(predictions.columns) ^ set(columns))
        raise UserError(f"run {run['id']}: columns of the predictions missing or unknown: {wrong}")
    try:
        table = pa.Table.from_pandas(predictions, schema=pa.schema(columns), preserve_index=False)
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


def write_results(profile: str) -> list[dict]:
    """Write `results.json` of a profile (name or .yaml file) from its finished runs; same runs, same bytes. Returns it."""
    found = records(read_runs(profile))
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    _replace(figures_dir(load_profile(profile).name) / "results.json", lambda path: path.write_text(text))
    return found


def read_results(profile: str) -> list[dict]:
    """The records of `figures/<profile>/results.json`."""
    return json.loads((figures_dir(load_profile(profile).name) / "results.json").read_text())
