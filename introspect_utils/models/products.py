"""Products in float32 on AMD's CPUs: oneDNN's in place of MKL's, which is made for Intel's and
takes twice as long (95 GFLOP/s against 226 on SmolLM2's layers, one core of an EPYC).
"""

from functools import cache

import torch
from torch import Tensor, nn


def is_intel(cpu: dict) -> bool:
    """Whether the CPU of these `torch.cpu.get_capabilities` is one of Intel's."""
    return "intel" in cpu.get("cpu_name", "").lower()


@cache
def onednn_is_faster() -> bool:
    cpu = torch.cpu.get_capabilities()
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and not is_intel(cpu) and bool(cpu.get("avx512_f"))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., n] times weight [m, n] transposed, plus bias [m]: [..., m]. By oneDNN where that is
    faster and no gradient is asked for; then only the order of the additions differs."""
    float32 = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    on_cpu = x.device.type == "cpu" and x.numel() > 0
    if float32 and on_cpu and not torch.is_grad_enabled() and onednn_is_faster():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` by the function above."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a model on the CPU take oneDNN's product where that is faster."""
    for part in model.modules() if onednn_is_faster() else ():
        if type(part) is nn.Linear and part.weight.device.type == "cpu":
            part.__class__ = Linear
