"""Weights: read whole from files, shared between models, and what is decoded with them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from introspect_utils.models.chat_template import render
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from introspect_utils.models.language_model import LanguageModel

# PEFT asks each model for an attribute that transformers has given another name
warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)

ADAPTER = "adapter_model.safetensors"
# ways to begin a LoRA that leave the base as it is, or change it in the same way each time
REPEATABLE = (True, False, "gaussian", "orthogonal", "eva", "pissa", "olora")


def check_keys(where: str | Path, missing: Iterable[str], unused: Iterable[str]) -> None:
    """Raises `UserError` when weights of a model were not in its files, or weights in its files
    were not used. Prefixes of wrappers (`_orig_mod.`, `module.`) are not stripped."""
    for keys, what in ((missing, "lacks"), (unused, "holds unknown")):
        if keys := sorted(keys):
            some = ", ".join(keys[:3]) + ", ..." * (len(keys) > 3)
            raise UserError(
                f"{where} {what} weights ({len(keys)}: {some}): they do not fit this model; save "
                "them again from the model itself, without wrappers and with all layers"
            )


def read_model(path: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model of a folder or hub id. Raises `UserError` as `check_keys` does, and
    for weights of another shape."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import set_tqdm_hook

    # A progress bar only for what takes long: a bar that is gone at once stays in a notebook at 0%.
    set_tqdm_hook(lambda bar, args, settings: bar(*args, **settings, delay=10))
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, output_loading_info=True
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the weights of {path} do not fit its config.json ({reason})") from error
    check_keys(path, report["missing_keys"], report["unexpected_keys"])
    return model


def read_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the LoRA of a PEFT folder in its modules. Raises `UserError` as `read_model`."""
    import torch
    from peft import PeftConfig, get_peft_model
    from safetensors import safe_open

    if not (folder / ADAPTER).is_file():
        raise UserError(f"{folder} has no {ADAPTER}: get the adapter again")
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = True
    if (drawn := getattr(config, "init_lora_weights", True)) not in REPEATABLE:
        raise UserError(
            f"{folder}/adapter_config.json has init_lora_weights: {drawn}, which changes the base "
            "otherwise each time: convert the adapter to a plain LoRA where it was trained (PEFT: "
            "save_pretrained with path_initial_model_for_weight_conversion)"
        )
    try:
        adapted = get_peft_model(model, config)
        report = adapted.load_adapter(folder, "default")
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the adapter in {folder} does not fit its base ({reason})") from error
    check_keys(folder, report.missing_keys, report.unexpected_keys)
    if model.config.tie_word_embeddings and not config.modules_to_save:
        ends = ("embed_tokens.weight", "lm_head.weight")
        with safe_open(folder / ADAPTER, "pt") as saved:
            ends = [saved.get_tensor(key) for key in saved.keys() if key.endswith(ends)]
        if not all(torch.equal(end, ends[0]) for end in ends):
            raise UserError(
                f"{folder} holds embeddings and a head that differ, and its base has one for both: "
                "it belongs to another base"
            )
    return adapted


def sharing_weights(lm: LanguageModel) -> LanguageModel:
    """`lm` with modules of its own over the same weights in memory: adapters, merging and added
    embeddings in one do not reach the other. Training in place would."""
    from torch import nn

    own = {id(p): nn.Parameter(p.data, p.requires_grad) for p in lm.model.parameters()}
    return replace(lm, model=copy.deepcopy(lm.model, own))


def end_tokens(lm: LanguageModel) -> list[int]:
    """Where an answer ends: the tokenizer's EOS, which explainers learn, those of the model's own
    settings, and the special token that ends a turn of its chats."""
    given, tokenizer = lm.model.generation_config.eos_token_id, lm.tokenizer
    ends = {tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])}
    if tokenizer.chat_template:
        turns = ("user", "?"), ("assistant", "ANSWER")
        after = (render(tokenizer, *turns, answers=False) or "").rpartition("ANSWER")[2]
        first = tokenizer(after.strip(), add_special_tokens=False)["input_ids"][:1]
        ends |= set(first) & set(tokenizer.all_special_ids)
    return sorted(ends - {None})


def generate_tokens(
    lm: LanguageModel, max_new_tokens: int, exactly: bool = False, beams: int = 1, **inputs
) -> torch.Tensor:
    """The tokens [batch, n] that `lm` continues `inputs` with, decoded greedily; `exactly` so many,
    whether or not an answer ends before. With `beams`: [batch * beams, n], of each input the
    likeliest continuations that a beam search finds, by the sum of their tokens' log-probabilities,
    the likeliest first. The model's own generation settings (penalties, suppressed tokens, beams,
    ...) have no effect."""
    from transformers import GenerationConfig

    search = {"num_beams": beams, "num_return_sequences": beams}
    if beams > 1:  # by default a long answer is preferred to a likelier short one
        search |= {"length_penalty": 0.0, "early_stopping": "never"}
    decoding = GenerationConfig(
        **search,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=None if exactly else end_tokens(lm),
        pad_token_id=lm.tokenizer.pad_token_id,
    )
    given = lm.model.generation_config
    # What `decoding` leaves open is taken from the model's own.
    lm.model.generation_config = GenerationConfig()
    try:
        return lm.model.generate(**inputs, generation_config=decoding)
    finally:
        lm.model.generation_config = given
