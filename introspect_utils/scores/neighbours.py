"""The nearest-neighbour baselines: a direction gets the description of the training direction most
like it (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from introspect_utils.features.directions import Directions

QUERIES, TRAIN = (
    1024,
    2048,
)  # vectors of a block; round numbers, since rows of other lengths are slower to multiply


@torch.no_grad()
def nearest(
    train: Tensor,
    queries: Tensor,
    similarity: Literal["cosine", "dot"] = "cosine",
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The most similar training vector of each query: (index [m] int64, similarity [m] float32).

    train [n, d] and queries [m, d] are of any dtype, on one device; products are taken in float32,
    the first of equal ones wins. `allowed` [n] bool says which training vectors may be taken.
    Exact, in blocks: beside the inputs it holds some 100 MiB at d = 4096, whatever n and m. The
    cosine with a zero vector is 0. Raises `UserError` where there is nothing to take.
    """
    rows = None if allowed is None else allowed.nonzero().squeeze(-1)
    n, m = len(train) if rows is None else len(rows), len(queries)
    if n == 0:
        raise UserError(
            "nearest neighbours: there is no training direction to take; give at least one"
        )
    index = torch.zeros(m, dtype=torch.long, device=train.device)
    value = torch.full((m,), -torch.inf, device=train.device)
    for first in range(0, m, QUERIES):
        asked = _scaled(queries[first : first + QUERIES], similarity).T  # [d, QUERIES]
        for start in range(0, n, TRAIN):
            block = (
                train[start : start + TRAIN] if rows is None else train[rows[start : start + TRAIN]]
            )
            products = _scaled(block, similarity) @ asked  # [TRAIN, QUERIES]
            best = products.amax(0)
            better = (
                (best > value[first : first + QUERIES]).nonzero().squeeze(-1)
            )  # not >=: an earlier block keeps its place
            value[first + better] = best[better]
            index[first + better] = (
                products[:, better].argmax(0) + start
            )  # the few: amax alone is faster than max with indices
    return index if rows is None else rows[index], value


def _scaled(vectors: Tensor, similarity: str) -> Tensor:
    return normalize(vectors.float(), dim=-1) if similarity == "cosine" else vectors.float()


def nearest_descriptions(
    train: Directions,
    descriptions: Sequence[str],
    test: Directions,
    within_layer: bool,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> list[str]:
    """E_NN-layer (`within_layer`) or E_NN-all: for each test direction the description of the
    nearest of the training directions.

    `descriptions` are those of `train`. The paper writes an inner product and the authors' code
    takes it raw ("dot"), so that the norms of the decoder's columns weigh in; "cosine" leaves them
    out. Raises `UserError` for a layer that is not in `train`.
    """
    if not within_layer:
        index = nearest(train.vectors, test.vectors, similarity)[0]
        return [descriptions[i] for i in index.tolist()]
    if missing := set(test.layers) - set(train.layers):
        raise UserError(
            f"NN-layer: no training direction is of layers {sorted(missing)}; leave their test "
            "directions out"
        )
    device, found = train.vectors.device, [""] * len(test)
    for layer in set(test.layers):
        asked = [i for i, of_test in enumerate(test.layers) if of_test == layer]
        allowed = torch.tensor([of_train == layer for of_train in train.layers], device=device)
        index = nearest(train.vectors, test.vectors[asked], similarity, allowed)[0]
        for row, i in zip(asked, index.tolist(), strict=True):
            found[row] = descriptions[i]
    return found
