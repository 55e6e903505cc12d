"""A run: one execution of a notebook with its parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from introspect_utils.settings.paths import artifacts_dir, run_dir
from introspect_utils.settings.profile import Profile

PUBLISHED = "15_published_data"  # in place of a task's own data notebook


@dataclass(frozen=True)
class Run:
    id: str
    notebook: str  # stem in notebooks/
    parameters: dict[str, Any]  # for papermill
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    settings: dict[str, Any]  # all that the results depend on, besides the notebook and the inputs


def new_run(
    profile: Profile,
    run_id: str,
    notebook: str,
    parameters: dict[str, Any],
    settings: dict[str, Any],
    inputs: Iterable[Path] = (),
    files: Iterable[str] = (),  # beside run.json
    heavy: Iterable[Path] = (),  # outputs among the artifacts
) -> Run:
    """A run of `profile` that writes `run.json` and `files` into its folder."""
    folder, parameters = run_dir(profile.name, run_id), {"profile": profile.source} | parameters
    outputs = (*(folder / name for name in ("run.json", *files)), *heavy)
    return Run(run_id, notebook, parameters, tuple(inputs), outputs, settings)


def checkpoint(profile: Profile, run_id: str, file: str = "explainer.json") -> Path:
    """The file that a trained explainer's (or simulator's) folder is known by."""
    return artifacts_dir(profile.name) / "checkpoints" / run_id / file


def scores(run: Run) -> tuple[Path, ...]:
    """The outputs that a run is scored by: not the checkpoint, which a clone of the results
    lacks."""
    return tuple(path for path in run.outputs if path.name in ("run.json", "predictions.parquet"))
