"""Exemplars of a direction v: the sequences of a corpus where a_v(x, l, t) = <h(l, t), v> (eq. 2)
is highest, and random others.

One pass over a layer's residuals serves all of its directions, in blocks: memory does not grow with
the corpus.
"""

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

# A block of activations is at most [DIRECTIONS, TOKENS] float32: 16 MB, which stays in a CPU's
# cache.
DIRECTIONS = 1024
TOKENS = 4096


@dataclass(frozen=True, eq=False)
class Exemplars:
    """Exemplars of n directions, in the order of their `Directions`; each has k of them, the first
    `n_top` the highest.

    `tokens` [N, T]: the corpus, held once. `sequences` [n, k] int64: numbers of its sequences, the
    top ones best first (equals by number), then random others. `activations` [n, k, T] float32:
    a_v. `mean`, `sd`, `peak` [n]: of a_v over the whole corpus.
    """

    tokens: Tensor
    sequences: Tensor
    activations: Tensor
    mean: Tensor
    sd: Tensor
    peak: Tensor
    n_top: int

    def __len__(self) -> int:
        """The number of directions."""
        return len(self.sequences)

    def take(self, rows: Sequence[int]) -> Exemplars:
        """The exemplars of some directions, in this order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        names = ("sequences", "activations", "mean", "sd", "peak")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def describing(self) -> Exemplars:
        """The half that a description is written from: even ranks of the top, the first half of the
        random others."""
        return self._columns(list(range(0, self.n_top, 2)), range(self.n_top, self._middle))

    def scoring(self) -> Exemplars:
        """The half that a description is scored on: odd ranks of the top, the second half of the
        random others."""
        return self._columns(
            list(range(1, self.n_top, 2)), range(self._middle, self.sequences.shape[1])
        )

    @property
    def _middle(self) -> int:
        return (self.n_top + self.sequences.shape[1]) // 2

    def _columns(self, top: list[int], others: range) -> Exemplars:
        columns = [*top, *others]
        return replace(
            self,
            sequences=self.sequences[:, columns],
            activations=self.activations[:, columns],
            n_top=len(top),
        )

    def binned(self) -> Tensor:
        """Activations as the simulator is taught them, [n, k, T] int64: 0 at the corpus mean or
        below, 10 at its peak.

        A direction with one and the same activation everywhere is 0 throughout.
        """
        mean, peak = self.mean[:, None, None], self.peak[:, None, None]
        return (
            (10 * ((self.activations - mean) / (peak - mean)).nan_to_num(0, 0, 0).clip(0, 1))
            .round()
            .long()
        )

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: value.contiguous() for name, value in vars(self).items() if name != "n_top"
        }
        with replaced(path) as temporary:
            save_file(tensors, temporary, {"n_top": str(self.n_top)})

    @staticmethod
    def load(path: Path) -> Exemplars:
        """Read what `save` wrote. Raises `UserError` when there is no such file, or it is
        damaged."""
        with opened(path, "notebooks/01_data_features.ipynb") as saved:
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 (not a mapping)
            return Exemplars(**tensors, n_top=int(saved.metadata()["n_top"]))

    @staticmethod
    def concat(parts: Sequence[Exemplars]) -> Exemplars:
        """The directions of all parts, in order. All must be exemplars from one corpus, as many of
        each kind."""
        first = parts[0]
        if any(
            part.n_top != first.n_top or not torch.equal(part.tokens, first.tokens)
            for part in parts
        ):
            raise ValueError(
                "exemplars from different corpora, or with another n_top, cannot be put together"
            )
        names = ("sequences", "activations", "mean", "sd", "peak")
        return replace(
            first, **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        )


@torch.inference_mode()
def find_exemplars(
    residuals: Tensor, tokens: Tensor, vectors: Tensor, n_top: int, n_random: int, seed: int
) -> Exemplars:
    """The `n_top` sequences with the highest a_v at any token and `n_random` others, for every
    direction.

    `residuals` [N, T, d]: one layer's, of the corpus `tokens` [N, T], in any dtype and possibly a
    memory map; `vectors` [n, d], on the device that computes. Raises `UserError` when the corpus
    has fewer than n_top + n_random sequences.
    """
    n_sequences, length, _ = residuals.shape
    if n_sequences < n_top + n_random:
        problem = (
            f"{n_sequences} sequences are too few for {n_top} top and {n_random} random exemplars"
        )
        raise UserError(f"{problem}: enlarge the corpus, or ask for fewer")
    vectors = vectors.float()
    n, device = len(vectors), vectors.device
    best = torch.full((n, n_top), -torch.inf, device=device)
    top = torch.zeros(n, n_top, dtype=torch.int64, device=device)
    mean, squares = torch.zeros(
        2, n, dtype=torch.float64, device=device
    )  # squares: of deviations from the mean, summed
    step = max(1, TOKENS // length)
    with tqdm(
        total=n_sequences * length, desc="exemplars", unit="token", unit_scale=True, mininterval=10
    ) as progress:
        for start in range(0, n_sequences, step):
            h = residuals[start : start + step].to(device).float().flatten(0, 1)  # [tokens, d]
            for rows in torch.arange(n, device=device).split(DIRECTIONS):
                rows = slice(int(rows[0]), int(rows[-1]) + 1)
                a = vectors[rows] @ h.T  # [directions, tokens]
                _merge_top(best[rows], top[rows], a.unflatten(1, (-1, length)).amax(2), start)
                _merge_moments(mean[rows], squares[rows], start * length, a)
            progress.update(len(h))
    sequences = torch.cat([top, _random_others(top, n_sequences, n_random, seed)], 1).to(
        tokens.device
    )
    activations = _activations(residuals, vectors, sequences)
    sd = (squares / (n_sequences * length)).sqrt()
    moments = [value.to(tokens.device, torch.float32) for value in (mean, sd, best[:, 0])]
    return Exemplars(tokens, sequences, activations.to(tokens.device), *moments, n_top)


def _merge_top(best: Tensor, top: Tensor, peaks: Tensor, start: int) -> None:
    """Update the running `best` and `top` [n, n_top], in place, with `peaks` [n, m] of the
    sequences from `start` on.

    The sort is stable and what is already there stands first: of equal sequences those with lower
    numbers stay.
    """
    numbers = torch.arange(start, start + peaks.shape[1], device=top.device).expand(len(top), -1)
    values, order = torch.cat([best, peaks], 1).sort(dim=1, descending=True, stable=True)
    best.copy_(values[:, : best.shape[1]])
    top.copy_(torch.cat([top, numbers], 1).gather(1, order[:, : top.shape[1]]))


def _merge_moments(mean: Tensor, squares: Tensor, n_before: int, a: Tensor) -> None:
    """Update the running mean [n] and sum of squared deviations [n] of `n_before` values, in place,
    with a [n, m].

    (Chan, Golub and LeVeque 1979: nothing cancels, however far the mean is from zero.)
    """
    m = a.shape[1]
    block_mean = a.mean(1, keepdim=True)
    block_squares = (a - block_mean).square_().sum(1).double()
    delta = block_mean[:, 0].double() - mean
    mean += delta * m / (n_before + m)
    squares += block_squares + delta.square() * n_before * m / (n_before + m)


def _random_others(top: Tensor, n_sequences: int, n_random: int, seed: int) -> Tensor:
    """[n, n_random] different sequences beside `top` [n, n_top], all equally likely."""
    draw = torch.Generator().manual_seed(seed)
    taken = top
    for _ in range(n_random):
        # a number among those not taken yet; passing over the taken ones below it makes it a
        # sequence's number
        number = torch.randint(n_sequences - taken.shape[1], (len(top), 1), generator=draw).to(
            top.device
        )
        for other in taken.sort(1).values.split(1, 1):
            number += number >= other
        taken = torch.cat([taken, number], 1)
    return taken[:, top.shape[1] :]


def _activations(residuals: Tensor, vectors: Tensor, sequences: Tensor) -> Tensor:
    """a_v [n, k, T] float32 of each direction in its own sequences [n, k]. (A direction at a time
    stays in a CPU's cache.)"""
    own = (
        residuals[of_v.to(residuals.device)].to(vectors.device).float() for of_v in sequences
    )  # each [k, T, d]
    return torch.stack([h @ v for h, v in zip(own, vectors, strict=True)])
