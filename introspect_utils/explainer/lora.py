"""What of a model is trained: LoRA, all weights, or none of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from introspect_utils.explainer.question_model import QuestionModel
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training


def make_trainable(explainer: QuestionModel, settings: Training, seed: int) -> None:
    """Adapters, or copies of all weights, in float32 (as released: bfloat16) whatever the model is
    in. Of a frozen explainer the map alone is trained."""
    if explainer.frozen:
        return
    if settings.tuning == "lora":
        add_lora(explainer, settings, seed)
    else:
        explainer.model.requires_grad_(True)
    for weight in trainable(explainer.model).values():
        weight.data = weight.data.to(getattr(torch, settings.weights), copy=True)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def add_lora(explainer: nn.Module, settings: Training, seed: int) -> None:
    """LoRA on every linear layer of the decoder, whatever it is called, and not on the head. The
    projection (or a simulator's head) stays outside, so it is trained in full.

    Raises `UserError` for a decoder with weights that this does not reach (experts, say).
    """
    config = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    decoder, name = explainer.lm.model.get_decoder(), explainer.lm.name
    torch.manual_seed(seed)
    explainer.model = get_peft_model(explainer.lm.model, config)
    adapted = [part for part in decoder.modules() if isinstance(part, LoraLayer)]
    embeddings = [part for part in decoder.modules() if isinstance(part, nn.Embedding)]
    reached = {id(weight) for part in adapted + embeddings for weight in part.parameters()}
    left = [key for key, w in decoder.named_parameters() if w.dim() > 1 and id(w) not in reached]
    if left or not adapted:
        raise UserError(
            f"LoRA does not reach all weights of {name} ({len(left)}: {', '.join(left[:3])}): set "
            "training.tuning: full, or take another model"
        )
    print(f"LoRA on {len(adapted)} linear layers of {name}", flush=True)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within the context a LoRA model in float32 has its adapters folded into copies of the
    weights: one product, not three. In bfloat16 most of an adapter would be rounded away."""
    if not hasattr(model, "merge_adapter") or model.dtype != torch.float32:
        yield
        return
    frozen = {name: w.data for name, w in model.named_parameters() if "base_layer" in name}
    try:
        model.merge_adapter(safe_merge=True)
        yield
    finally:
        model.unmerge_adapter()
        for name, data in frozen.items():  # unmerging by subtraction leaves a rounding error
            model.get_parameter(name).data = data
