"""Training on a CPU with products in bfloat16: the numbers of autocast, without its overhead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.helpers import disable_input_dtype_casting
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def lean_autocast(module: nn.Module) -> Iterator[None]:
    """Within the context the weights below adapters are in bfloat16 (autocast would round them anew
    at every step), adapters take their inputs as they come, and attention is two plain products,
    which on a CPU are faster than its fused kernel. Afterwards everything is as it was."""
    named = module.named_parameters()
    below = [w for name, w in named if "base_layer" in name and not w.requires_grad]
    kept = [(weight, weight.data) for weight in below]
    models = [part for part in module.modules() if isinstance(part, PreTrainedModel)][:1]
    attention = [(model, model.config._attn_implementation) for model in models]
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
        for model, implementation in attention:
            model.set_attn_implementation(implementation)
