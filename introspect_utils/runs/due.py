"""What is done and what is due: every run's record of what its results were made from.

A run is done when its small outputs exist (they are committed for the reference profiles) and
`made_from.json` beside its `run.json` names the present settings, notebook code and inputs. File
times and Snakemake's memory do not count: neither survives a fresh clone. Neither do Markdown,
imports, comments and layout of the notebook, nor the code of `introspect_utils`, so that tidying
throws no results away; `--forcerun RUN` makes a run anew all the same.
"""

import ast
import hashlib
import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from introspect_utils.runs.plan import Run, plan
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO, ROOT, artifacts_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile

ASKED = "asked for"
LAYOUT = {"ctx", "kind", "type_comment", "type_params"}  # fields of a syntax tree without effect


def upstream(run: Run, runs: list[Run]) -> list[Run]:
    """The runs that make the inputs of `run`."""
    return [other for other in runs if set(other.outputs) & set(run.inputs)]


def heavy_outputs(profile: Profile, run: Run) -> list[Path]:
    """The outputs under artifacts/, which git ignores: a done run may lack them until a due run
    needs them."""
    return [path for path in run.outputs if path.is_relative_to(artifacts_dir(profile.name))]


def made_from(run: Run, runs: list[Run], digests: dict[str, str] | None = None) -> dict[str, Any]:
    """What the results of `run` depend on, as it is now. `digests`, by run id, are those found so
    far of the runs upstream, to be found once."""
    digests = {} if digests is None else digests
    for other in (above := upstream(run, runs)):
        if other.id not in digests:
            digests[other.id] = _digest(made_from(other, runs, digests))
    path = _notebook(run.notebook)
    code = _code_digest(run.notebook, path.stat().st_mtime_ns if path.is_file() else 0)
    inputs = {other.id: digests[other.id] for other in above}
    made = {"settings": run.settings, "notebook": {run.notebook: code}, "inputs": inputs}
    values = [json.loads(value) for value in _flat(run.settings).values() if "/" in value]
    named = {name: _contents(name) for name in values if isinstance(name, str)}
    contents = {name: digest for name, digest in named.items() if digest}
    return made | ({"contents": contents} if contents else {})


@cache
def _contents(name: str) -> str | None:
    """A digest of the file or folder that a setting names, of a folder by the names,
    sizes and times of its files; None for any other setting."""
    path = ROOT / name
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path == ROOT or not path.is_dir():
        return None
    stats = ((str(p.relative_to(path)), p.stat()) for p in sorted(path.rglob("*")) if p.is_file())
    return _digest([[file, stat.st_size, stat.st_mtime_ns] for file, stat in stats])


@cache
def _code_digest(stem: str, changed: int) -> str:
    """Of the code of a notebook whose file was `changed` then."""
    return _digest(notebook_code(stem))


def _notebook(stem: str) -> Path:
    return REPO / "notebooks" / f"{stem}.ipynb"


def notebook_code(stem: str) -> list:
    """The syntax trees of a notebook's code cells as lists of texts, without imports, bare texts
    and the cell of parameters, in whose place a run has its own. The same on every Python. A cell
    with a line that only IPython reads counts as it is written."""
    path, trees = _notebook(stem), []
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot read the notebook {path} ({error}); restore it, e.g. with git checkout"
        ) from None
    for cell in cells:
        tags = cell.get("metadata", {}).get("tags", [])
        if cell["cell_type"] == "code" and "parameters" not in tags:
            code = "".join(cell["source"])
            try:
                trees.append(_tree(ast.parse(code)))
            except SyntaxError:
                trees.append(code)
    return trees


def _tree(node: Any) -> Any:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant(str())):
            return None  # does not count
        case list():
            return [tree for item in node if (tree := _tree(item)) is not None]
        case ast.AST():
            fields = [field for field in ast.iter_fields(node) if field[0] not in LAYOUT]
            return [type(node).__name__, *([name, _tree(value)] for name, value in fields)]
    return repr(node)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _records(profile: Profile, run: Run) -> tuple[Path, Path]:
    """Where it is noted what the small and the heavy outputs of `run` were made from."""
    small = run_dir(profile.name, run.id) / "made_from.json"
    return small, artifacts_dir(profile.name) / "made_from" / f"{run.id}.json"


def mark_done(profile: Profile, run: Run, made: dict[str, Any]) -> None:
    """Note what the outputs of `run`, which must be whole, were made from: what `made_from` said
    before the run, since files may be edited while it is at work. Written last, and atomically."""
    for record in reversed(_records(profile, run)):
        record.parent.mkdir(parents=True, exist_ok=True)
        with replaced(record) as part:
            part.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def mark_unfinished(profile: Profile, run: Run) -> None:
    """Take the note back: from here on the outputs of `run` are being replaced."""
    for record in _records(profile, run):
        record.unlink(missing_ok=True)


def _why_stale(record: Path, outputs: list[Path], now: dict[str, Any]) -> str | None:
    """Why `outputs`, made from what `record` says, do not stand for `now`; `None` if they do."""
    absent = [path.name for path in outputs if not path.is_file()]
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "not run yet" if absent else "not finished"
    if absent:
        return f"{absent[0]} is missing"
    old, new = _flat(before), _flat(now)
    changed = [key for key in [*new, *old] if old.get(key) != new.get(key)]
    if not changed:
        return None
    part, _, name = changed[0].partition(".")
    if part == "settings":
        return f"{name} is {new.get(changed[0])}, was {old.get(changed[0])}"
    what = {"notebook": "the code of notebook", "inputs": "its input", "contents": "what is in"}
    return f"{what[part]} {name} has changed"


def _flat(value: Any, at: str = "") -> dict[str, str]:
    """A nested dictionary as one of dotted keys, its values as JSON text."""
    if not isinstance(value, dict):
        return {at: json.dumps(value)}
    flat = {}
    for name, item in value.items():
        flat |= _flat(item, f"{at}.{name}".lstrip("."))
    return flat


def due(profile: Profile, forced: Collection[str] = ()) -> dict[str, str]:
    """The runs that must run, each behind what it reads, and why: {run id: reason}. `forced`: run
    ids to run in any case."""
    _contents.cache_clear()  # a large folder is looked through once a call, not once a run
    runs, reasons, digests = plan(profile), {}, {}
    made = {run.id: made_from(run, runs, digests) for run in runs}
    for run in runs:  # upstream runs first
        small = [path for path in run.outputs if path not in heavy_outputs(profile, run)]
        record, now = _records(profile, run)[0], made[run.id]
        reason = ASKED if run.id in forced else _why_stale(record, small, now)
        anew = [other.id for other in upstream(run, runs) if other.id in reasons]
        if reason or anew:
            reasons[run.id] = reason or f"its input {anew[0]} is made anew"
    for run in reversed(runs):  # what a due run reads must be here, and what that was made from
        heavy = heavy_outputs(profile, run)
        read = any(other.id in reasons and set(heavy) & set(other.inputs) for other in runs)
        record, now = _records(profile, run)[1], made[run.id]
        if read and run.id not in reasons and _why_stale(record, heavy, now):
            reasons[run.id] = "its data is not on this machine"
    return {run.id: reasons[run.id] for run in runs if run.id in reasons}
