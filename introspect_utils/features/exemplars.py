"""Exemplars of a direction v: the sequences of a corpus where a_v(x, l, t) = <h(l, t), v> (eq. 2)
is highest, and random others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import opened, replaced

DIRECTIONS, TOKENS = 1024, 4096  # of a block of activations: 16 MB, a CPU's cache
OF_DIRECTION = ("sequences", "activations", "mean", "peak")


@dataclass(frozen=True, eq=False)
class Exemplars:
    """k exemplars of each of n directions, the first `n_top` the highest. Raises `UserError` for an
    activation that is not finite.

    `tokens` [N, T]: the corpus. `sequences` [n, k] int64: numbers of its sequences, the top ones
    best first (equal ones by number), then random others. `activations` [n, k, T] float32: a_v.
    `mean`, `peak` [n]: of a_v over the whole corpus.
    """

    tokens: Tensor
    sequences: Tensor
    activations: Tensor
    mean: Tensor
    peak: Tensor
    n_top: int

    def __post_init__(self) -> None:
        parts = (self.activations.flatten(1), self.mean[:, None], self.peak[:, None])
        broken = ~torch.stack([part.isfinite().all(1) for part in parts]).all(0)
        if broken.any():
            raise UserError(
                f"direction {broken.nonzero()[0].item()} has an activation that is not finite: it "
                "or the residual stream of its layer is damaged; make them again"
            )

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, rows: Sequence[int]) -> Exemplars:
        """The exemplars of some directions, in this order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return replace(self, **{name: getattr(self, name)[index] for name in OF_DIRECTION})

    def describing(self) -> Exemplars:
        """The half that a description is written from: even ranks, first half of the others."""
        return self._half(0)

    def scoring(self) -> Exemplars:
        """The half that a description is scored on: odd ranks, second half of the others."""
        return self._half(1)

    def _half(self, part: int) -> Exemplars:
        k = self.sequences.shape[1]
        middle = (self.n_top + k) // 2
        top = list(range(part, self.n_top, 2))
        columns = [*top, *(range(middle, k) if part else range(self.n_top, middle))]
        sequences, activations = self.sequences[:, columns], self.activations[:, columns]
        return replace(self, sequences=sequences, activations=activations, n_top=len(top))

    def binned(self) -> Tensor:
        """Activations as the simulator is taught them, [n, k, T] int64: 0 at the corpus mean or
        below, 10 at its peak; a constant direction is 0 throughout."""
        mean, peak = self.mean[:, None, None], self.peak[:, None, None]
        share = ((self.activations - mean) / (peak - mean)).nan_to_num(0, 0, 0).clip(0, 1)
        return (10 * share).round().long()

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name).contiguous() for name in ("tokens", *OF_DIRECTION)}
        with replaced(path) as temporary:
            save_file(tensors, temporary, {"n_top": str(self.n_top)})

    @staticmethod
    def load(path: Path) -> Exemplars:
        """Read what `save` wrote. Raises `UserError` when there is no such file, or it is
        damaged."""
        with opened(path, "notebooks/01_data_features.ipynb") as saved:
            tensors = {name: saved.get_tensor(name) for name in ("tokens", *OF_DIRECTION)}
            return Exemplars(**tensors, n_top=int(saved.metadata()["n_top"]))

    @staticmethod
    def concat(parts: Sequence[Exemplars]) -> Exemplars:
        """The directions of all parts, which must be from one corpus and alike, in order."""
        first = parts[0]
        if not all(p.n_top == first.n_top and torch.equal(p.tokens, first.tokens) for p in parts):
            raise ValueError("exemplars from different corpora, or with another n_top")
        joined = {name: torch.cat([getattr(p, name) for p in parts]) for name in OF_DIRECTION}
        return replace(first, **joined)


@torch.inference_mode()
def find_exemplars(
    residuals: Tensor,
    tokens: Tensor,
    vectors: Tensor,
    n_top: int,
    n_random: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Exemplars:
    """The `n_top` sequences with the highest a_v at any token and `n_random` others, for every
    direction.

    `residuals` [N, T, d]: one layer's, of the corpus `tokens` [N, T], in any dtype and possibly a
    memory map; `vectors` [n, d]. All of the residuals are read on `device` at once. Raises
    `UserError` when the corpus has fewer than n_top + n_random sequences, or an activation is not
    finite.
    """
    n_sequences, length, _ = residuals.shape
    if n_sequences < n_top + n_random:
        raise UserError(
            f"{n_sequences} sequences are too few for {n_top} top and {n_random} random exemplars: "
            "enlarge the corpus, or ask for fewer"
        )
    residuals, vectors, n = residuals.to(device), vectors.to(device).float(), len(vectors)
    best = torch.full((n, n_top), -torch.inf, device=device)
    top = torch.zeros(n, n_top, dtype=torch.int64, device=device)
    mean = torch.zeros(n, dtype=torch.float64, device=device)
    step = max(1, TOKENS // length)
    for start in tqdm(range(0, n_sequences, step), "exemplars", unit="block", mininterval=10):
        h = residuals[start : start + step].float().flatten(0, 1)  # [tokens, d]
        for first in range(0, n, DIRECTIONS):
            rows = slice(first, first + DIRECTIONS)
            a = vectors[rows] @ h.T  # [directions, tokens]
            _merge_top(best[rows], top[rows], a.unflatten(1, (-1, length)).amax(2), start)
            mean[rows] += a.mean(1).double() * (len(h) / (n_sequences * length))
    sequences = torch.cat([top, _random_others(top, n_sequences, n_random, seed)], 1)
    # a_v of each direction in its own sequences: one at a time stays in a CPU's cache
    of_each = (residuals[of_v].float() for of_v in sequences)  # each [k, T, d]
    activations = torch.stack([h @ v for h, v in zip(of_each, vectors, strict=True)])
    values = (sequences, activations, mean.float(), best[:, 0])
    return Exemplars(tokens, *(value.to(tokens.device) for value in values), n_top)


def _merge_top(best: Tensor, top: Tensor, peaks: Tensor, start: int) -> None:
    """Update the running `best` and `top` [n, n_top] in place with `peaks` [n, m] of the sequences
    from `start` on. The sort is stable: of equal sequences the first stay."""
    numbers = torch.arange(start, start + peaks.shape[1], device=top.device).expand(len(top), -1)
    values, order = torch.cat([best, peaks], 1).sort(dim=1, descending=True, stable=True)
    best.copy_(values[:, : best.shape[1]])
    top.copy_(torch.cat([top, numbers], 1).gather(1, order[:, : top.shape[1]]))


def _random_others(top: Tensor, n_sequences: int, n_random: int, seed: int) -> Tensor:
    """[n, n_random] different sequences beside `top` [n, n_top], all equally likely."""
    draw, taken = torch.Generator().manual_seed(seed), top
    for _ in range(n_random):
        # a number among those left; passing over the taken ones makes it a sequence's number
        left = n_sequences - taken.shape[1]
        number = torch.randint(left, (len(top), 1), generator=draw).to(top.device)
        for other in taken.sort(1).values.split(1, 1):
            number += number >= other
        taken = torch.cat([taken, number], 1)
    return taken[:, top.shape[1] :]
