"""A rehearsal of a profile: its runs with few rows. `./run_all.sh rehearsal` gives them small
models in the place of the real ones (scripts/rehearsal)."""

from math import log2
from pathlib import Path
from typing import Any

import yaml

NAME = "rehearsal"
SMALL = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))


def profile_of(source: str) -> str | None:
    """The profile or part that `source` rehearses: "rehearsal/qwen" is of "paper/qwen",
    "rehearsal-published" of "published". None for any other name."""
    name, slash, part = source.partition("/")
    if name != NAME and not name.startswith(f"{NAME}-"):
        return None
    return (name.removeprefix(NAME).removeprefix("-") or "paper") + slash + part


def rehearsed(settings: Any) -> Any:
    """The settings of a profile or of a part with the numbers of a rehearsal."""
    if not isinstance(settings, dict):
        return settings
    small = {name: _small(section, name) for name, section in settings.items()}
    features = small.get("features") or {}
    if any("gemma" in target for target in features.get("targets", ())):
        features["layers"] = SMALL["gemma"]["layers"]
        features["simulator"]["layers"] = SMALL["gemma"]["simulator"]
    return small


def _small(section: Any, name: str) -> Any:
    if not isinstance(section, dict):
        return section
    small = {}
    for key, value in section.items():
        small[key] = _small(value, key)
        if key == "sizes":  # far fewer, still different and in order
            small[key] = [min(n, round(4 * log2(n))) for n in value]
        elif not isinstance(value, dict | bool | None) and key in (
            at_most := SMALL | SMALL.get(name, {})
        ):
            numbers = type(value) in (int, float) and type(at_most[key]) in (int, float)
            small[key] = min(value, at_most[key]) if numbers else at_most[key]
    return small
