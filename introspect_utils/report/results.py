"""Run files (`run.json`, `predictions.parquet`) and `results.json`, the one flat list of records
every table is drawn from."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from introspect_utils.explainer.gates import warnings
from introspect_utils.report.records import records
from introspect_utils.runs.plan import plan
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import figures_dir, replaced
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import TASKS

RUN_KEYS = {
    "id",
    "task",
    "target",
    "explainer",
    "condition",
    "n_train",
    "seed",
    "checkpoint",
    "checkpoint_sha256",
} | {
    *(
        "trained_parameters",
        "seconds",
        "finished",
        "peak_memory_mb",
        "commit",
        "versions",
        "device",
        "settings",
        "statistics",
    )
}


def _to_arrow(run: dict, predictions: pd.DataFrame) -> pa.Table:
    """Check a run and its predictions against the schema; UserError names the first thing that is
    wrong."""
    if run.keys() != RUN_KEYS:
        raise UserError(
            f"run {run.get('id')}: keys of run.json missing or unknown: "
            f"{sorted(run.keys() ^ RUN_KEYS)}"
        )
    task = TASKS[run["task"]]
    columns = task.all_columns
    if set(predictions.columns) != set(columns):
        wrong = sorted(set(predictions.columns) ^ set(columns))
        raise UserError(f"run {run['id']}: columns of the predictions missing or unknown: {wrong}")
    try:
        table = pa.Table.from_pandas(
            predictions, schema=pa.schema(list(columns.items())), preserve_index=False
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(
            f"run {run['id']}: a column of the predictions has the wrong type: {error.args[-1]}"
        ) from error
    if predictions.duplicated(["explainer", "condition", "row"]).any():
        raise UserError(
            f"run {run['id']}: a test row occurs twice for one explainer and condition, write one "
            "line for each"
        )
    wrong = task.wrong(run, predictions)
    if wrong:
        raise UserError(f"run {run['id']}: {wrong}")
    return table.replace_schema_metadata(None)


def write_run(directory: Path, run: dict, predictions: pd.DataFrame | None = None) -> None:
    """Write `predictions.parquet`, then `run.json`: where run.json exists, the run is finished and
    whole.

    A run that predicts nothing (it makes data, or a simulator) has a table of no lines. What
    `gates.warnings` finds strange is printed, and kept as `warnings` among the run's statistics.
    """
    predictions = (
        pd.DataFrame(columns=list(TASKS[run["task"]].all_columns))
        if predictions is None
        else predictions
    )
    table = _to_arrow(run, predictions)
    if strange := warnings(run, predictions):
        print(*(f"warning: {line}" for line in strange), sep="\n", flush=True)
        run = run | {"statistics": run["statistics"] | {"warnings": strange}}
    text = json.dumps(run, indent=1, sort_keys=True, allow_nan=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").unlink(missing_ok=True)  # never an old run.json beside new predictions
    with replaced(directory / "predictions.parquet") as path:
        pq.write_table(table, path, compression="zstd")
    with replaced(directory / "run.json") as path:
        path.write_text(text)


def read_run(directory: Path) -> tuple[dict, pd.DataFrame]:
    """One finished run: its run.json and its predictions. Raises `UserError` where it is not
    finished."""
    if not (directory / "run.json").is_file():
        profile = directory.parent.parent.name
        raise UserError(
            f"{directory / 'run.json'} is missing: ./run_all.sh {profile} --until {directory.name} "
            "makes it"
        )
    return json.loads((directory / "run.json").read_text()), pq.read_table(
        directory / "predictions.parquet"
    ).to_pandas()


def read_runs(profile: str) -> list[tuple[dict, pd.DataFrame]]:
    """The finished runs among those that a profile (name or .yaml file) plans, in its order.

    Runs that lie in the folder but are not planned (made with other settings) are left out.
    """
    planned = [
        path
        for run in plan(load_profile(profile))
        for path in run.outputs
        if path.name == "run.json"
    ]
    runs = [read_run(path.parent) for path in planned if path.exists()]
    if not runs:
        raise UserError(
            f"no run of profile {profile} is finished: ./run_all.sh {profile} runs them, "
            "notebooks/01 to 08 one each"
        )
    return runs


def write_results(profile: str) -> list[dict]:
    """Write `results.json` of a profile (name or .yaml file) from its finished runs; same runs,
    same bytes. Returns it."""
    found = records(read_runs(profile))
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    with replaced(figures_dir(load_profile(profile).name) / "results.json") as path:
        path.write_text(text)
    return found


def read_results(profile: str) -> list[dict]:
    """The records of `figures/<profile>/results.json`."""
    return json.loads((figures_dir(load_profile(profile).name) / "results.json").read_text())
