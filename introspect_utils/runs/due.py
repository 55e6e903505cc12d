"""What is done and what is due: every run's record of what its results were made from.

A run is done when its small outputs exist (they are committed for the reference profiles) and
`made_from.json` beside its `run.json` says that they were made from the present settings, notebook
code and inputs. That record, not file times and not Snakemake's own memory, decides: neither of
these survives a fresh clone. Markdown and the code of `introspect_utils` are left out of it, so
that mending a sentence or tidying a function does not throw hours of results away; `--forcerun RUN`
makes a run anew all the same.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from introspect_utils.runs.plan import Run, plan
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO, artifacts_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile

ASKED = "asked for"


def upstream(run: Run, runs: list[Run]) -> list[Run]:
    """The runs that make the inputs of `run`."""
    return [other for other in runs if set(other.outputs) & set(run.inputs)]


def heavy_outputs(profile: Profile, run: Run) -> list[Path]:
    """The outputs under artifacts/, which git ignores: a done run may lack them until a due run
    needs them."""
    return [path for path in run.outputs if path.is_relative_to(artifacts_dir(profile.name))]


def made_from(run: Run, runs: list[Run]) -> dict[str, Any]:
    """What the results of `run` depend on, as it is now."""
    path = REPO / "notebooks" / f"{run.notebook}.ipynb"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot read the notebook {path} ({error}); restore it, e.g. with git checkout"
        ) from None
    # the defaults in the cell of parameters are for people: a run is given its own
    code = [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and not _holds_parameters(cell)
    ]
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
    """Note what the outputs of `run`, which must be whole, were made from. Written last, and
    atomically."""
    text = json.dumps(made_from(run, runs), indent=1) + "\n"
    for record in reversed(_records(profile, run)):
        record.parent.mkdir(parents=True, exist_ok=True)
        with replaced(record) as part:
            part.write_text(text, encoding="utf-8")


def mark_unfinished(profile: Profile, run: Run) -> None:
    """Take the note back: from here on the outputs of `run` are being replaced."""
    for record in _records(profile, run):
        record.unlink(missing_ok=True)


def _why_stale(record: Path, outputs: list[Path], now: dict[str, Any]) -> str | None:
    """Why `outputs` do not stand for `now`, going by the record of what they were made from; `None`
    if they do."""
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
    changed = {
        "notebook": f"the code of notebook {name} has changed",
        "inputs": f"its input {name} has changed",
    }
    return changed.get(part, f"{name} is {new.get(key)}, was {old.get(key)}")


def _flat(value: Any, at: str = "") -> dict[str, str]:
    """A nested dictionary as one of dotted keys, its values as JSON text."""
    if not isinstance(value, dict):
        return {at: json.dumps(value)}
    return {
        key: text
        for name, item in value.items()
        for key, text in _flat(item, f"{at}.{name}".lstrip(".")).items()
    }


def due(profile: Profile, forced: Collection[str] = ()) -> dict[str, str]:
    """The runs that must run, in order of execution, and why: {run id: reason}. `forced`: run ids
    to run in any case."""
    runs = plan(profile)
    reasons = {}
    for run in runs:  # upstream runs first
        small = [path for path in run.outputs if path not in heavy_outputs(profile, run)]
        reason = (
            ASKED
            if run.id in forced
            else _why_stale(_records(profile, run)[0], small, made_from(run, runs))
        )
        anew = [other.id for other in upstream(run, runs) if other.id in reasons]
        if reason or anew:
            reasons[run.id] = reason or f"its input {anew[0]} is made anew"
    for run in reversed(
        runs
    ):  # what the due runs read must be on this machine, and what is made for them so must read
        heavy = heavy_outputs(profile, run)
        read = any(other.id in reasons and set(heavy) & set(other.inputs) for other in runs)
        if (
            read
            and run.id not in reasons
            and _why_stale(_records(profile, run)[1], heavy, made_from(run, runs))
        ):
            reasons[run.id] = "its data is not on this machine"
    return {run.id: reasons[run.id] for run in runs if run.id in reasons}
