"""Training on a CPU with the products in bfloat16: the same numbers as autocast alone, without what
it would do at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def lean_autocast(module: nn.Module) -> Iterator[None]:
    """Within the context a module that is trained under autocast has the weights below its adapters
    in bfloat16 (autocast would round them anew at every step), adapters take their inputs as they
    come, and attention is two plain products, which in bfloat16 a CPU's fused kernel is slower
    than. Afterwards everything is as it was, to the bit."""
    from peft.helpers import disable_input_dtype_casting

    below = [
        weight
        for name, weight in module.named_parameters()
        if "base_layer" in name and not weight.requires_grad
    ]
    kept = [(weight, weight.data) for weight in below]
    models = [part for part in module.modules() if isinstance(part, PreTrainedModel)][:1]
    attention = [model.config._attn_implementation for model in models]
    try:
        for weight, data in kept:
            weight.data = data.to(torch.bfloat16)
        for model in models:
            model.set_attn_implementation("eager")
        with disable_input_dtype_casting(module):
            yield
    finally:
        for weight, data in kept:
            weight.data = data
        for model, implementation in zip(models, attention, strict=True):
            model.set_attn_implementation(implementation)
