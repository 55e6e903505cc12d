"""The nearest-neighbour baselines: the description of the most similar training direction (3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from introspect_utils.features.directions import Directions

Similarity = Literal["cosine", "dot"]
QUERIES = 128  # at once: 0.5 GB of products with a million training vectors


@torch.no_grad()
def nearest(
    train: Tensor, queries: Tensor, similarity: Similarity = "cosine", allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(index, similarity), both [m], of the most similar of `train` [n, d] to `queries` [m, d].

    `allowed` [n] bool: which may be taken. Of equal ones the first is taken; the cosine with a zero
    vector is 0. Raises `UserError` where nothing may be taken, or a vector is not finite.
    """
    if not len(train) or (allowed is not None and not allowed.any()):
        raise UserError("nearest neighbours: there is no training direction to take")
    train, queries = train.float(), queries.float()
    lengths, asked = train.norm(dim=-1), queries.norm(dim=-1)
    for name, norms in (("training", lengths), ("test", asked)):
        for number in (~norms.isfinite()).nonzero().flatten().tolist():
            raise UserError(f"{name} direction {number} is not finite: run notebook 01 again")
    if similarity == "dot":
        lengths, asked = torch.ones_like(lengths), torch.ones_like(asked)
    index, value = [], []
    for block in queries.split(QUERIES):
        products = block @ train.T / lengths.clamp(min=1e-12)
        if allowed is not None:
            products[:, ~allowed] = -torch.inf
        index.append(products.argmax(1))
        value.append(products.gather(1, index[-1][:, None])[:, 0])
    return torch.cat(index), torch.cat(value) / asked.clamp(min=1e-12)


def nearest_descriptions(
    train: Directions,
    descriptions: Sequence[str],
    test: Directions,
    within_layer: bool,
    similarity: Similarity = "cosine",
) -> list[str]:
    """E_NN-layer (`within_layer`) or E_NN-all: the description of the nearest training direction.

    The paper writes an inner product, which the authors' code takes raw ("dot"). Raises `UserError`
    for a layer without training directions.
    """
    if within_layer and (missing := set(test.layers) - set(train.layers)):
        raise UserError(f"NN-layer: no training direction is of layers {sorted(missing)}")
    said = [""] * len(test)
    for layer in set(test.layers) if within_layer else [None]:
        known, asked = train.where(layer=layer), test.where(layer=layer)
        index, _ = nearest(train.vectors[known], test.vectors[asked], similarity)
        for row, i in zip(asked, index.tolist(), strict=True):
            said[row] = descriptions[known[i]]
    return said
