"""Names that a profile may use: models (`models.yaml`), explainers made from the target, and
folders for them."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from introspect_utils.settings.reading import nearest


@dataclass(frozen=True)
class ModelSpec:
    """Where a named model comes from: exactly one of `asset`, `hub` and `tiny`."""

    asset: str | None = None
    hub: str | None = None
    tiny: str | None = None
    gated: bool = False
    parameters: float = 0.0


_YAML = yaml.safe_load(Path(__file__).with_name("models.yaml").read_text("utf-8"))
MODELS = {name: ModelSpec(**spec) for name, spec in _YAML.items()}
# Explainers made from the target (introspect_utils.explainer.variants).
VARIANTS = ("self", "sibling", "rotated")


def variant(name: str) -> tuple[str, float]:
    """(kind, share) of an explainer's name: "rotated@0.5" is half the way from the target to its
    rotated form."""
    kind, at, share = name.partition("@")
    return (kind, float(share)) if at and kind in VARIANTS else (name, 1.0)


def folder_name(name: str) -> str:
    """A model's name as a part of file names."""
    return name.strip("/").replace("/", "--")


def model_name(value: str) -> str | None:
    """What is wrong with `value` as a model: it must be one of `MODELS`, a hub id or a folder."""
    if value in MODELS or "/" in value:
        return None
    return f"no model is called {value!r}; {nearest(value, list(MODELS))}"


def explainer_name(value: str) -> str | None:
    """What is wrong with `value` as an explainer: "self", a variant (rotated, sibling@0.5) or a
    model."""
    kind, at, share = value.partition("@")
    if kind not in VARIANTS:
        return model_name(value)
    if not at or (kind != "self" and re.fullmatch(r"0\.\d*[1-9]", share)):
        return None
    return (
        f"got {value!r}; after the @ of sibling or rotated stands a share between 0 and 1, as in "
        f"{kind}@0.5"
    )
