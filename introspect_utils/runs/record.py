"""The files of a run: `predictions.parquet`, and `run.json` with its settings, statistics and what
made it (commit, versions, machine, time, memory)."""

import dataclasses
import json
import operator
import platform
import resource
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from introspect_utils.explainer.gates import check_checkpoint, warnings
from introspect_utils.runs.plan import plan
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO, ROOT, replaced
from introspect_utils.settings.profile import Profile, load_profile
from introspect_utils.tasks import TASKS

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "scikit-learn")
RUN_KEYS = {
    *("id", "task", "target", "explainer", "condition", "n_train", "seed", "checkpoint"),
    *("checkpoint_sha256", "trained_parameters", "seconds", "finished", "peak_memory_mb"),
    *("commit", "versions", "device", "settings", "statistics"),
}


def commit() -> str:
    """The commit of the code, with "+" if the working tree differs from it; "unknown" outside a
    git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPO), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "introspect_utils", "notebooks", "params")
    return head + "+" * bool(changed) or "unknown"


def run_record(
    run_id: str, profile: Profile, device, checkpoint: Path | None = None, **fields
) -> dict:
    """A `run.json`: the fields given, and what made them. Raises `UserError` when the checkpoint is
    not the one of the hash."""
    import torch

    if checkpoint:
        check_checkpoint(checkpoint, fields["checkpoint_sha256"])
    machine = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    unit = 1024**2 if platform.system() == "Darwin" else 1024
    return {
        "id": run_id,
        "checkpoint": str(checkpoint.relative_to(ROOT)) if checkpoint else None,
        "commit": commit(),
        "device": machine,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
        "settings": dataclasses.asdict(profile),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        **fields,
    }


def _to_arrow(run: dict, predictions: pd.DataFrame) -> pa.Table:
    """The predictions as a table of the task's columns. Raises `UserError` naming the first thing
    that is wrong in them or in the run."""
    task, wrong = TASKS[run["task"]], None
    if run.keys() != RUN_KEYS:
        wrong = f"keys of run.json missing or unknown: {sorted(run.keys() ^ RUN_KEYS)}"
    elif different := sorted(set(predictions.columns) ^ task.all_columns.keys()):
        wrong = f"columns of the predictions missing or unknown: {different}"
    elif predictions.duplicated(["explainer", "condition", "row"]).any():
        wrong = "a test row occurs twice for one explainer and condition, write one line for each"
    else:
        schema = pa.schema(list(task.all_columns.items()))
        try:
            table = pa.Table.from_pandas(predictions, schema, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            wrong = f"a column of the predictions has the wrong type: {error.args[-1]}"
    if wrong := wrong or task.wrong(run, predictions):
        raise UserError(f"run {run.get('id')}: {wrong}")
    return table.replace_schema_metadata(None)


def write_run(directory: Path, run: dict, predictions: pd.DataFrame | None = None) -> None:
    """Write `predictions.parquet`, then `run.json`: where run.json exists, the run is finished and
    whole.

    A run that predicts nothing (it makes data, or a simulator) has a table of no lines. What
    `gates.warnings` finds strange is printed, and kept as `warnings` among the run's statistics.
    """
    if predictions is None:
        predictions = pd.DataFrame(columns=list(TASKS[run["task"]].all_columns))
    table = _to_arrow(run, predictions)
    if strange := warnings(run, predictions):
        print(*(f"warning: {line}" for line in strange), sep="\n", flush=True)
        run = run | {"statistics": run["statistics"] | {"warnings": strange}}
    listed = operator.methodcaller("tolist")  # a tensor, an array or a number of theirs
    text = json.dumps(run, indent=1, sort_keys=True, allow_nan=False, default=listed) + "\n"
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
    predictions = pq.read_table(directory / "predictions.parquet").to_pandas()
    return json.loads((directory / "run.json").read_text()), predictions


def read_runs(profile: str) -> list[tuple[dict, pd.DataFrame]]:
    """The finished runs that a profile (name or .yaml file) plans, in its order. Others in the
    folder, made with other settings, are left out."""
    outputs = [path for run in plan(load_profile(profile)) for path in run.outputs]
    runs = [read_run(path.parent) for path in outputs if path.name == "run.json" and path.exists()]
    if not runs:
        raise UserError(
            f"no run of profile {profile} is finished: ./run_all.sh {profile} runs them, "
            "notebooks/01 to 08 one each"
        )
    return runs
