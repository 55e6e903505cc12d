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
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import figures_dir, replaced
from introspect_utils.settings.profile import load_profile

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
ROW = {  # the test row; one line for each of them, explainer and condition
    "row": pa.int64(),
    "condition": pa.string(),
    "explainer": pa.string(),
    "generation": pa.string(),
}
OUTCOME = ROW | {
    "predicted_changed": pa.bool_(),  # null where the answer could not be parsed
    "predicted_content": pa.string(),
    "is_different": pa.bool_(),
    "content": pa.string(),
    "exact_match": pa.bool_(),
    "has_changed": pa.bool_(),  # predicted_changed is right
    "content_match": pa.bool_(),
}
FEATURE = ROW | {
    "feature": pa.string(),  # the direction's name
    "data": pa.string(),  # its held-out set: sae | act | dact
    "layer": pa.string(),
    "gold": pa.string(),  # "" for act and dact, which have no label
    "judge": pa.float64(),  # 0..1; null for act and dact
    "simulator": pa.float64(),  # eq. 2, -1..1
    "simulator_abs": pa.float64(),  # the mean |r|
    "constant": pa.int64(),  # exemplars without a correlation, which entered both means as 0
}
COLUMNS = {
    "patching": OUTCOME | dict.fromkeys(("token_type", "block"), pa.string()),
    "ablation": OUTCOME | dict.fromkeys(("subject", "hint"), pa.string()),
    "features": FEATURE,
}


def _to_arrow(run: dict, predictions: pd.DataFrame) -> pa.Table:
    """Check a run and its predictions against the schema; UserError names the first thing that is
    wrong."""
    if run.keys() != RUN_KEYS:
        raise UserError(
            f"run {run.get('id')}: keys of run.json missing or unknown: "
            f"{sorted(run.keys() ^ RUN_KEYS)}"
        )
    columns = COLUMNS[run["task"]]
    if set(predictions.columns) != set(columns):
        wrong = sorted(set(predictions.columns) ^ set(columns))
        raise UserError(f"run {run['id']}: columns of the predictions missing or unknown: {wrong}")
    try:
        table = pa.Table.from_pandas(predictions, schema=pa.schema(columns), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(
            f"run {run['id']}: a column of the predictions has the wrong type: {error.args[-1]}"
        ) from error
    if predictions.duplicated(["explainer", "condition", "row"]).any():
        raise UserError(
            f"run {run['id']}: a test row occurs twice for one explainer and condition, write one "
            "line for each"
        )
    wrong = _wrong_scores(run, predictions)
    if wrong:
        raise UserError(f"run {run['id']}: {wrong}")
    return table.replace_schema_metadata(None)


def _wrong_scores(run: dict, predictions: pd.DataFrame) -> str | None:
    """What cannot be in the scores of `predictions`, which have the task's columns."""
    if run["task"] != "features":
        right = metrics.codes(predictions["predicted_changed"]) == metrics.codes(
            predictions["is_different"]
        )
        if (predictions["has_changed"].to_numpy(dtype=bool) != right).any():
            return (
                "has_changed must be predicted_changed == is_different, and False where it is null"
            )
    elif len(predictions):
        if not predictions["data"].isin(["sae", "act", "dact"]).all():
            return "data must be sae, act or dact"
        if (predictions["judge"].notna() != (predictions["data"] == "sae")).any():
            return "judge must be a number in the rows of sae, and null in those of act and dact"
        judge, r, abs_r = (
            predictions[column] for column in ("judge", "simulator", "simulator_abs")
        )
        if not (
            judge.dropna().between(0, 1).all()
            and (r.abs() <= abs_r + 1e-6).all()
            and abs_r.between(0, 1 + 1e-6).all()
        ):
            return "judge and simulator_abs must lie in 0..1, simulator within plus or minus simulator_abs"
        missing = {"judge", "simulator"} - run["statistics"].keys()
        if missing:
            return f"its statistics must say which judge and which simulator scored it; not given: {sorted(missing)}"
    return None


def write_run(directory: Path, run: dict, predictions: pd.DataFrame | None = None) -> None:
    """Write `predictions.parquet`, then `run.json`: where run.json exists, the run is finished and
    whole.

    A run that predicts nothing (it makes data, or a simulator) has a table of no lines. What
    `gates.warnings` finds strange is printed, and kept as `warnings` among the run's statistics.
    """
    predictions = (
        pd.DataFrame(columns=list(COLUMNS[run["task"]])) if predictions is None else predictions
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
