"""Targets and explainers by name: the registry, and one way to load an asset, a hub id, a folder or
a tiny random model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS, ModelSpec
from introspect_utils.settings.paths import ASSET_CACHE
from introspect_utils.settings.reading import nearest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def choose_device(device: str = "auto") -> str:
    """The device for a setting: "auto" is CUDA where there is a GPU, else the CPU."""
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UserError(
            "device: cuda was asked for, and there is no usable GPU here: set device: auto or cpu"
        )
    return ("cuda" if there else "cpu") if device == "auto" else device


def choose_dtype(dtype: str = "auto", device: str = "auto") -> torch.dtype:
    """The dtype for a setting: "auto" is bfloat16 on CUDA and float32 on the CPU."""
    import torch

    if dtype == "auto":
        return torch.bfloat16 if choose_device(device) == "cuda" else torch.float32
    return getattr(torch, dtype)


def choose_compute_dtype(compute_dtype: str = "auto", device: str = "auto") -> str:
    """The dtype of training's products: "auto" is bfloat16 where it is fast, else float32. An Intel
    CPU without matrix units (AMX) has the instructions, and a training step takes 1.4 times as
    long with them (measured)."""
    import torch

    from introspect_utils.models.products import is_intel

    if compute_dtype != "auto":
        return compute_dtype
    if choose_device(device) == "cuda":
        return "bfloat16"
    cpu = torch.cpu.get_capabilities()
    fast = cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and not is_intel(cpu))
    return "bfloat16" if fast else "float32"


def load_model(
    name: str, device: str = "auto", dtype: str = "auto", seed: int = 0
) -> LanguageModel:
    """Load a model of `MODELS`, a hub id ("owner/name") or a local folder in the transformers
    format. `seed` draws the weights of a tiny model. Raises `UserError` when the name is unknown,
    the download is refused (gated, no network), a file is damaged, or the model is built in a way
    that this package would read wrongly."""
    from introspect_utils.models.gate import check_architecture
    from introspect_utils.models.products import use_onednn

    torch_dtype, where = choose_dtype(dtype, device), choose_device(device)
    if name in MODELS and MODELS[name].tiny:
        from introspect_utils.models.tiny import tiny_model

        model, tokenizer = tiny_model(MODELS[name].tiny, seed)
        model.to(where, torch_dtype).eval().requires_grad_(False)
        use_onednn(model)
        return LanguageModel(name, model, tokenizer)
    lm = _from_files(name, torch_dtype)
    lm.model.to(where).eval().requires_grad_(False)
    use_onednn(lm.model)
    check_architecture(lm)
    if lm.tokenizer.chat_template:
        lm.chat("a question", "a system prompt")  # raises where the template leaves one out
    return lm


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer alone of a model that `load_model` loads by this name."""
    from transformers import AutoTokenizer

    if name in MODELS and MODELS[name].tiny:
        from introspect_utils.models.tiny import tiny_model

        return tiny_model(MODELS[name].tiny)[1]
    return AutoTokenizer.from_pretrained(_place(name))


def _place(name: str) -> str:
    """The folder or hub id of a model that is no tiny one."""
    spec = MODELS.get(name) or ModelSpec(hub=name)
    if spec.hub and "/" not in spec.hub:
        known = nearest(name, list(MODELS))
        raise UserError(f"no model is called {name!r}; {known} (a hub id has the form owner/name)")
    return str(_converted(spec.asset)) if spec.asset else spec.hub


def _from_files(name: str, dtype: torch.dtype) -> LanguageModel:
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    from introspect_utils.models.weights import read_model

    place = _place(name)
    what = name if name == place else f"{name} ({place})"
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left")
        model = read_model(place, dtype)
    except SafetensorError as error:
        raise UserError(
            f"a weight file of {what} is damaged ({error}): delete it and get it again"
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(f"cannot load {what}: {reason}; {_cure(name, Path(place))}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {what} has no EOS token, which ends an explanation: set eos_token "
            "in its settings"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(name, model, tokenizer)


def _cure(name: str, place: Path) -> str:
    if place.is_dir():
        files = "config.json, the tokenizer and *.safetensors"
        return f"a model folder holds {files}, as save_pretrained writes them"
    if place.is_absolute():
        return "there is no such folder"
    if name in MODELS and MODELS[name].gated:
        return "accept its licence on the hub, set HF_TOKEN, and check the network"
    return "check the name and the network"


def _converted(asset: str) -> Path:
    """The asset's GGUF as a transformers folder, converted on first use (reading a GGUF takes from
    20 s to 2 min each time)."""
    import torch
    from filelock import FileLock
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from introspect_utils.data.assets import ASSETS, fetch

    folder = ASSET_CACHE / "converted" / f"{asset}-{ASSETS[asset].sha256[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            print(f"converting {asset} to safetensors (once)", flush=True)
            gguf = fetch(asset)
            source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
            quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
            # a model read from GGUF refuses to be saved, so its weights go into a plain one
            quantised.config.__dict__.pop("quantization_config", None)
            plain = AutoModelForCausalLM.from_config(quantised.config)
            plain.load_state_dict(quantised.state_dict())
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                whole = Path(temporary, "model")
                plain.save_pretrained(whole)
                AutoTokenizer.from_pretrained(**source).save_pretrained(whole)
                whole.rename(folder)
    return folder
