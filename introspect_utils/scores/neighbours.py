"""The nearest-neighbour baselines: the description of the most similar training direction (3.3)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from introspect_utils.features.directions import Directions
from introspect_utils.models.products import linear
from introspect_utils.settings.errors import UserError

Similarity = Literal["cosine", "dot"]
TWIN = 0.5  # cosine above which a feature of another layer is a near-twin
AT_ONCE = 2048  # training vectors: their products with a thousand queries stay in a CPU's cache


@torch.no_grad()
def nearest(
    train: Tensor, queries: Tensor, similarity: Similarity = "cosine"
) -> tuple[Tensor, Tensor]:
    """(index, similarity), both [m], of the most similar of `train` [n, d] to `queries` [m, d].

    Of equal ones the first is taken; the cosine with a zero vector is 0. Raises `UserError` where
    there is nothing to take, or a vector is not finite.
    """
    if not len(train):
        raise UserError("nearest neighbours: there is no training direction to take")
    train, queries = train.float(), queries.float()
    best = queries.new_full((len(queries),), -torch.inf)
    index = torch.zeros_like(best, dtype=torch.long)
    for start in range(0, len(train), AT_ONCE):
        # The last part is as long as the others: a short one would be multiplied in another order,
        # and of two equal vectors the later could seem nearer.
        start = max(0, min(start, len(train) - AT_ONCE))
        part = train[start : start + AT_ONCE]
        products = linear(queries, part)  # [m, AT_ONCE]
        if similarity == "cosine":
            products /= part.norm(dim=-1).clamp(min=1e-12)
        highest = products.amax(1)
        if not highest.isfinite().all():
            raise UserError("nearest neighbours: a vector is not finite: run notebook 01 again")
        rows = (highest > best).nonzero()[:, 0]
        best[rows], index[rows] = highest[rows], start + products[rows].argmax(1)
    if similarity == "cosine":
        best /= queries.norm(dim=-1).clamp(min=1e-12)
    return index, best


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


def twins(train: Directions, test: Directions) -> list[bool]:
    """Whether each test direction has a near-twin (cosine above TWIN) among the training directions
    of another layer."""
    found = torch.zeros(len(test), dtype=torch.bool)
    for layer in set(test.layers):
        others = [i for i, of_train in enumerate(train.layers) if of_train != layer]
        if others:
            rows = test.where(layer=layer)
            found[rows] = nearest(train.vectors[others], test.vectors[rows])[1] > TWIN
    return found.tolist()
