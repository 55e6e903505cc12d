"""The authors' published explainers, to be tested without training.

A profile names one by its hub id (`Transluce/act_patch_qwen3_8b_qwen3_8b`) or a folder of that
name, and sets `vector_scale: raw`, `vector_center: false`. `features_explain_*` and
`input_ablation_*` are transformers folders, `act_patch_*` are LoRA folders of PEFT that hold the
embeddings too. Assumed: their base is what `adapter_config.json` names, with its added tokens last.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.weights import read_adapter
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS

BEGINNINGS = ("features_explain_", "act_patch_", "input_ablation_")  # of their names
# all that are published (README of the authors' code), and the model that each was trained from
EXPLAINERS = {
    "features_explain_llama3.1_8b_llama3.1_8b": "llama-3.1-8b",
    "features_explain_llama3.1_8b_llama3.1_8b_instruct": "llama-3.1-8b-instruct",
    "features_explain_llama3.1_8b_llama3_8b": "llama-3-8b",
    "act_patch_llama3.1_8b_llama3.1_8b": "llama-3.1-8b",
    "act_patch_qwen3_8b_qwen3_8b": "qwen3-8b",
    "input_ablation_llama3.1_8b_instruct_llama3.1_8b_instruct": "llama-3.1-8b-instruct",
    "input_ablation_qwen3_8b_qwen3_8b_hint": "qwen3-8b",
}
# the form (tasks/prompts.yaml) in which explainers trained from these are asked; others as bases
FORMS = {"llama-3.1-8b-instruct": "authors-llama", "qwen3-8b": "authors-qwen"}


def is_published(name: str) -> bool:
    """Whether an explainer's name, a hub id or a folder, is that of a published one."""
    return "/" in name and Path(name).name.startswith(BEGINNINGS)


def trained_from(name: str) -> str | None:
    """The model that a published explainer was trained from; None for any other name."""
    return EXPLAINERS.get(Path(name).name) if is_published(name) else None


def prompt_form(name: str) -> str:
    """The form in which a published explainer was trained to be asked; "" for any other name."""
    base = trained_from(name)
    return FORMS.get(base, "authors-base") if base else ""


def published_folder(name: str) -> Path:
    """The files of a published explainer on this machine, downloaded if need be."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.pt"]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot load the published explainer {name} ({reason}): check the name and the network"
        ) from error


def _bare(model: str) -> str:
    """A model's name without its place, and without the maker's that old ids of Llama have."""
    return Path(model).name.lower().removeprefix("meta-")


def load_published(name: str, device: str, dtype: str) -> LanguageModel:
    """The model of a published explainer, with its adapters in it. Raises `UserError` for a folder
    of another format, of another base than its name says, or whose weights do not fit."""
    folder = published_folder(name)
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} has no *.safetensors: weights in other formats are not read; is it a "
            "published explainer?"
        )
    if not (folder / "adapter_config.json").is_file():
        return replace(load_model(str(folder.resolve()), device, dtype), name=name)
    described = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    kind, base = described.get("peft_type"), described.get("base_model_name_or_path")
    if kind != "LORA" or not base:
        raise UserError(
            f"{folder}/adapter_config.json is of {kind} on {base}: a LoRA that names its base is "
            "expected"
        )
    known = trained_from(name)
    if known and base != known and _bare(base) != _bare(MODELS[known].hub):
        raise UserError(
            f"{folder}/adapter_config.json names {base} as its base, and {Path(name).name} was "
            f"trained on {known} ({MODELS[known].hub}): get the adapter again"
        )
    lm = load_model(base, device, dtype)
    with safe_open(folder / "adapter_model.safetensors", "pt") as saved:
        embeddings = [key for key in saved.keys() if key.endswith("embed_tokens.weight")]
        rows = [saved.get_slice(key).get_shape()[0] for key in embeddings]
    if rows and rows[0] < len(lm.tokenizer):
        raise UserError(f"{folder} has {rows[0]} embeddings, {base} more tokens: of another base?")
    if rows:
        lm.model.resize_token_embeddings(rows[0], mean_resizing=False)
    model = read_adapter(lm.model, folder).eval().requires_grad_(False)
    return LanguageModel(name, model, lm.tokenizer)
