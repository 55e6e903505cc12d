"""What maps a vector of the target into the explainer's embedding space (eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """Pi_l: one matrix [d_explainer, d_target] for each of `n` layers (or blocks) of the target,
    random at first; with `identity`, the identity.

    With a `rank` above 0 it stays as drawn, plus a trained product of that rank, as in the authors'
    code, where the projection is a LoRA target. With `bias` it is affine.
    """

    def __init__(
        self,
        n: int,
        d_target: int,
        d_explainer: int,
        rank: int = 0,
        seed: int = 0,
        identity: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(n, d_explainer, d_target, generator=draw) / d_target**0.5
        if identity:
            weight = torch.eye(d_target).repeat(n, 1, 1)
        self.weight, self.rank = nn.Parameter(weight, requires_grad=not rank), rank
        self.bias = nn.Parameter(torch.zeros(n, d_explainer)) if bias else None
        if rank:
            self.A = nn.Parameter(torch.randn(n, rank, d_target, generator=draw) / d_target**0.5)
            self.B = nn.Parameter(torch.zeros(n, d_explainer, rank))

    def forward(self, v: Tensor, layer: Tensor) -> Tensor:
        """v [batch, d_target], layer [batch] -> [batch, d_explainer]."""
        projected = torch.einsum("bed,bd->be", self.weight[layer], v)
        if self.rank:
            projected = projected + torch.einsum("ber,brd,bd->be", self.B[layer], self.A[layer], v)
        return projected if self.bias is None else projected + self.bias[layer]


class Scale(nn.Module):
    """s_l v + b_l, for each of `n` layers: the smallest affine map (arXiv 2602.10352)."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n, 1)), nn.Parameter(torch.zeros(n, width))

    def forward(self, v: Tensor, layer: Tensor) -> Tensor:
        """v [batch, width], layer [batch] -> [batch, width]."""
        return self.weight[layer] * v + self.bias[layer]
