"""Names that a profile may use: models, explainers made from the target, and folders for them."""

from __future__ import annotations

from dataclasses import dataclass


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


MODELS = {
    "tiny-llama": ModelSpec(tiny="llama"),
    "tiny-qwen3": ModelSpec(tiny="qwen3"),
    "tiny-gemma3": ModelSpec(tiny="gemma3"),
    "smollm2-135m-instruct": ModelSpec(
        asset="smollm2-135m-instruct", licence="Apache-2.0", parameters=135e6
    ),
    "gemma3-270m": ModelSpec(asset="gemma3-270m", licence="Gemma terms of use", parameters=268e6),
    "llama-3.1-8b": ModelSpec(
        hub="meta-llama/Llama-3.1-8B", gated=True, licence="Llama 3.1 community", parameters=8.03e9
    ),
    "llama-3.1-8b-instruct": ModelSpec(
        hub="meta-llama/Llama-3.1-8B-Instruct",
        gated=True,
        licence="Llama 3.1 community",
        parameters=8.03e9,
    ),
    "llama-3-8b": ModelSpec(
        hub="meta-llama/Meta-Llama-3-8B", gated=True, licence="Llama 3 community", parameters=8.03e9
    ),
    "llama-3.1-70b": ModelSpec(
        hub="meta-llama/Llama-3.1-70B", gated=True, licence="Llama 3.1 community", parameters=70.6e9
    ),
    "qwen3-8b": ModelSpec(hub="Qwen/Qwen3-8B", licence="Apache-2.0", parameters=8.19e9),
    "gemma-2-9b": ModelSpec(
        hub="google/gemma-2-9b", gated=True, licence="Gemma terms of use", parameters=9.24e9
    ),
    "gemma-2-9b-it": ModelSpec(
        hub="google/gemma-2-9b-it", gated=True, licence="Gemma terms of use", parameters=9.24e9
    ),
}


VARIANTS = (
    "self",
    "sibling",
    "rotated",
)  # explainers made from the target (introspect_utils.explainer.variants)


def variant(name: str) -> tuple[str, float]:
    """(kind, share) of an explainer's name: "rotated@0.5" is half the way from the target to its
    rotated form."""
    kind, at, share = name.partition("@")
    return (kind, float(share)) if at and kind in VARIANTS else (name, 1.0)


def folder_name(name: str) -> str:
    """A model's name as a part of file names."""
    return name.strip("/").replace("/", "--")
