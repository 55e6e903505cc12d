"""Names that a profile may use: models, explainers made from the target, and folders for them."""

import re
from dataclasses import dataclass

from introspect_utils.settings.reading import nearest


@dataclass(frozen=True)
class ModelSpec:
    """Where a named model comes from: exactly one of `asset` (introspect_utils.data.assets), `hub`
    id, or `tiny` (random weights)."""

    asset: str | None = None
    hub: str | None = None
    tiny: str | None = None
    gated: bool = False
    licence: str = ""
    parameters: float = 0.0  # 0: too few to matter


def _gated(hub: str, licence: str, parameters: float) -> ModelSpec:
    return ModelSpec(hub=hub, gated=True, licence=licence, parameters=parameters)


GEMMA = "Gemma terms of use"
MODELS = {
    "tiny-llama": ModelSpec(tiny="llama"),
    "tiny-qwen3": ModelSpec(tiny="qwen3"),
    "tiny-gemma3": ModelSpec(tiny="gemma3"),
    "smollm2-135m-instruct": ModelSpec(
        asset="smollm2-135m-instruct", licence="Apache-2.0", parameters=135e6
    ),
    "gemma3-270m": ModelSpec(asset="gemma3-270m", licence=GEMMA, parameters=268e6),
    "qwen2.5-coder-0.5b-instruct": ModelSpec(
        asset="qwen2.5-coder-0.5b-instruct", licence="Apache-2.0", parameters=630e6
    ),
    "llama-3.1-8b": _gated("meta-llama/Llama-3.1-8B", "Llama 3.1 community", 8.03e9),
    "llama-3.1-8b-instruct": _gated(
        "meta-llama/Llama-3.1-8B-Instruct", "Llama 3.1 community", 8.03e9
    ),
    "llama-3-8b": _gated("meta-llama/Meta-Llama-3-8B", "Llama 3 community", 8.03e9),
    "llama-3.1-70b": _gated("meta-llama/Llama-3.1-70B", "Llama 3.1 community", 70.6e9),
    "qwen3-8b": ModelSpec(hub="Qwen/Qwen3-8B", licence="Apache-2.0", parameters=8.19e9),
    "gemma-2-9b": _gated("google/gemma-2-9b", GEMMA, 9.24e9),
    "gemma-2-9b-it": _gated("google/gemma-2-9b-it", GEMMA, 9.24e9),
}
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
