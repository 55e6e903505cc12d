"""The settings of a run: `params/*.yaml` as frozen dataclasses, checked whole before anything runs.

A profile says all there is to say: there are no defaults. A task's section may be left out, and
then the task is not run. What is trained otherwise, or is about another target, stands in parts,
`params/<profile>/*.yaml`, whose runs are runs of the same profile. A part says only what differs:
the keys of its sections replace those of the profile. Of the tasks it has those that it names.
Parts in `params/<profile>/optional/` are left out unless they are asked for; one takes the place of
the part of its name.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.reading import UniqueKeys, nearest, read_dataclass
from introspect_utils.settings.rehearsal import profile_of, rehearsed
from introspect_utils.settings.sections import TASK_SECTIONS, AsReleased, Profile

# Environment variables, set by `run_all`: the parts that are left out, and optional ones asked for.
WITHOUT, WITH = "INTROSPECT_WITHOUT", "INTROSPECT_WITH"


def load_profile(name_or_path: str | Path) -> Profile:
    """The profile `params/<name>.yaml` with its parts, one of the parts ("paper/qwen"), or the
    profile in a .yaml file.

    Raises `UserError` naming every mistake in it.
    """
    text, known = str(name_or_path), _known()
    if of := profile_of(text):
        return _rehearsal(text, of, known)
    path = Path(text).resolve() if text.endswith((".yaml", ".yml")) else known.get(text)
    if path is None:
        raise UserError(f"there is no profile {text!r}; {nearest(text, list(known))}")
    source = next((name for name, file in known.items() if file == path), str(path))
    if source not in known and path.stem in known:
        raise UserError(
            f"{path} has the name of a profile in params/, whose results it would overwrite; "
            "rename the file"
        )
    if not re.fullmatch(r"[\w.-]+", path.stem):
        raise UserError(
            f"{path}: a profile's file name may hold letters, digits, '.', '_' and '-' only; it "
            "names folders"
        )
    name, settings = path.stem, _read(path)
    if source in known and "/" in source:
        name = source.partition("/")[0]
        whole = _read(known[name])
        _profile(known[name], whole, name, name)  # its mistakes are its own
        settings = _merged(whole, settings)
    profile = _profile(path, settings, name, source)
    return replace(profile, parts=_parts(source, source, known))


def _known() -> dict[str, Path]:
    """{name: file} of every profile and part in params/."""
    params = REPO / "params"
    depths = ("", "*/", "*/optional/")
    files = sorted(path for depth in depths for path in params.glob(f"{depth}*.yaml"))
    return {path.relative_to(params).with_suffix("").as_posix(): path for path in files}


def _parts(source: str, of: str, known: dict[str, Path]) -> tuple[Profile, ...]:
    """The parts of a profile that has those of `of`: with the optional ones that are asked for (all
    of them in a rehearsal) and without those that are left out."""
    names = [source + name.removeprefix(of) for name in known if name.startswith(f"{of}/")]
    chosen = {name for name in names if is_optional(name)}
    if source == of:
        chosen &= {*os.environ.get(WITH, "").split()}
    left_out = {*os.environ.get(WITHOUT, "").split()}
    left_out |= {name.replace("/optional/", "/") for name in chosen - left_out}
    parts = [name for name in names if name in chosen or not is_optional(name)]
    return tuple(load_profile(name) for name in parts if name not in left_out)


def is_optional(part: str) -> bool:
    return "/optional/" in part


def parts_of(profile: str) -> list[str]:
    """The names of all parts of a profile, optional ones too."""
    return [name for name in _known() if name.startswith(f"{profile}/")]


def _rehearsal(source: str, of: str, known: dict[str, Path]) -> Profile:
    """The profile or part `of` with the numbers of a rehearsal, and its parts."""
    (whole, _, part), name = of.partition("/"), source.partition("/")[0]
    if of not in known:
        raise UserError(f"{source}: there is no profile {of!r}; {nearest(of, list(known))}")
    settings = rehearsed(_read(known[whole]))
    if part:
        settings = _merged(settings, rehearsed(_read(known[of])))
    made = _profile(known[of], settings, name, source)
    return replace(made, parts=_parts(source, of, known))


def _read(path: Path) -> Any:
    """A YAML file. Raises `UserError` if there is none in it."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeys)
    except OSError as error:
        raise UserError(f"cannot read the profile {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Bytes that are no UTF-8 and impossible dates are ValueErrors.
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _merged(parent: dict, part: Any) -> Any:
    """The settings of a part: those of its profile, without the tasks that it does not name, with
    its own in their place."""
    if not isinstance(part, dict):
        return part
    tasks = {*TASK_SECTIONS, "tasks"} - part.keys()
    merged = {key: value for key, value in parent.items() if key not in tasks}
    for key, value in part.items():
        inherited = merged.get(key)
        both = isinstance(value, dict) and isinstance(inherited, dict)
        merged[key] = value
        if both:  # nothing in place of a value takes it out
            merged[key] = {k: v for k, v in (inherited | value).items() if v is not None}
    return merged


def _profile(path: Path, settings: Any, name: str, source: str) -> Profile:
    mistakes: list[str] = []
    profile = read_dataclass(Profile, settings, "", mistakes, name=name, source=source, parts=())
    if mistakes:
        lines = "".join(f"\n  {line}" for line in mistakes)
        raise UserError(f"{path}: {mistakes[0] if len(mistakes) == 1 else lines}")
    if not profile.as_released:
        return profile
    training = AsReleased(**vars(profile.training))
    explainer = replace(profile.explainer, vector_center=False, vector_scale="raw")
    return replace(profile, training=training, explainer=explainer)
