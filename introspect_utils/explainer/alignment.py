"""The residual streams of two models on the same text, and the projection fitted to them (3.1):

    Pi_l = argmin ||h_E(l, t) - Pi h_M(l, t)||^2 over text              (a pre-trained projection)

h_E(l, t) is read where the explainer has read the same text as the target at t: both tokens end at
the same character. The paper pairs layers of equal number; where the depths differ, layers of equal
relative depth are paired here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual_store import read_residuals
from introspect_utils.models.tokens import token_spans
from introspect_utils.settings.errors import UserError

BATCH = 32  # contexts
CONSTANT = 1e-12  # share of the second moments below which a variance is float error
RIDGE = 1e-3  # times the mean variance of h_M: below it, what a direction says of h_E is noise


class Pairs(NamedTuple):
    """Tokens at which both models have read the same text, each [n]: the context's number, the
    target's token in it and the explainer's."""

    rows: Tensor
    target: Tensor
    explainer: Tensor


def same_depth(layer: int, target: LanguageModel, explainer: LanguageModel) -> int:
    """The explainer's layer at the relative depth of the target's."""
    return max(0, round((layer + 1) * explainer.n_layers / target.n_layers) - 1)


def shared_ends(
    target: LanguageModel, explainer: LanguageModel, contexts: Tensor
) -> tuple[Tensor, Pairs]:
    """`contexts` [N, T] of the target as the explainer's tokens, padded on the right [N, T'], and
    the tokens of both that end at the same character.

    A context that does not come back from its text as the same tokens has no pairs. Raises
    `UserError` where there are none at all.
    """
    pairs, of_explainer = [], []
    for row, text in enumerate(target.tokenizer.batch_decode(contexts)):
        ids, ends = _ends(target, text)
        other_ids, other_ends = _ends(explainer, text)
        of_explainer.append(other_ids)
        if ids == contexts[row].tolist():
            pairs += [(row, i, other_ends[end]) for end, i in ends.items() if end in other_ends]
    if not pairs:
        raise UserError(
            f"no token of {target.name} ends where one of {explainer.name} does: their tokenizers "
            "cannot be aligned"
        )
    pad, longest = explainer.tokenizer.pad_token_id, max(map(len, of_explainer))
    padded = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in of_explainer])
    return padded, Pairs(*torch.tensor(pairs).T)


def _ends(lm: LanguageModel, text: str) -> tuple[list[int], dict[int, int]]:
    """(ids, {end of a token in characters: its number}); of tokens that end together the last."""
    ids, spans = token_spans(lm.tokenizer, text)
    return ids, {end: i for i, (_, end) in enumerate(spans)}


def explainer_residuals(
    target: LanguageModel, explainer: LanguageModel, contexts: Tensor, layers: Sequence[int]
) -> Iterator[tuple[Pairs, dict[int, Tensor]]]:
    """Batch after batch of the target's `contexts` [N, T]: the tokens that both models share, and
    {l: h_E [n, d_E]} float32 at these, l the target's layer."""
    depth = {layer: same_depth(layer, target, explainer) for layer in layers}
    for start in range(0, len(contexts), BATCH):
        ids, pairs = shared_ends(target, explainer, contexts[start : start + BATCH])
        [(_, h)] = read_residuals(explainer, ids, list(dict.fromkeys(depth.values())), len(ids))
        theirs = {layer: h[depth[layer]][pairs.rows, pairs.explainer].float() for layer in layers}
        yield pairs._replace(rows=pairs.rows + start), theirs


def paired_residuals(
    target: LanguageModel, explainer: LanguageModel, contexts: Tensor, layers: Sequence[int]
) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Batch after batch: {l: (h_M [n, d_M], h_E [n, d_E])} float32 at each shared token."""
    of_target = read_residuals(target, contexts, layers, BATCH)
    of_explainer = explainer_residuals(target, explainer, contexts, layers)
    for (batch, ours), (pairs, theirs) in zip(of_target, of_explainer, strict=True):
        at = (pairs.rows - batch.start, pairs.target)
        yield {layer: (ours[layer][at].float(), theirs[layer]) for layer in layers}


class Moments:
    """First and second moments of pairs (x [n, d_x], y [n, d_y]) that come in blocks."""

    def __init__(self, d_x: int, d_y: int) -> None:
        self.n, self.x, self.y = 0, torch.zeros(d_x).double(), torch.zeros(d_y).double()
        shapes = ((d_x, d_x), (d_y, d_x), (d_y, d_y))
        self.xx, self.yx, self.yy = (torch.zeros(*shape).double() for shape in shapes)

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double().cpu(), y.double().cpu()
        self.n += len(x)
        self.x, self.y = self.x + x.sum(0), self.y + y.sum(0)
        self.xx, self.yx, self.yy = self.xx + x.T @ x, self.yx + y.T @ x, self.yy + y.T @ y

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """(X'X [d_x, d_x], Y'X [d_y, d_x], Y'Y [d_y, d_y]) of the pairs less their means. Raises
        `UserError` where a side is constant or not finite."""
        products = ((self.xx, self.x, self.x), (self.yx, self.y, self.x), (self.yy, self.y, self.y))
        xx, yx, yy = (product - torch.outer(a, b) / self.n for product, a, b in products)
        for raw, centred in ((self.xx, xx), (self.yy, yy)):
            if not centred.trace() > CONSTANT * raw.trace():  # nor is NaN above it
                raise UserError(
                    "a residual stream is the same at all tokens, or not finite: nothing can be "
                    "compared with it; give more text, or set dtype: float32"
                )
        return xx, yx, yy

    def least_squares(self, ridge: float = RIDGE) -> tuple[Tensor, float]:
        """(Pi [d_y, d_x] float32, its explained variance of y): argmin ||y - m_y - Pi (x - m_x)||^2
        + penalty ||Pi||^2."""
        xx, yx, yy = self.centred()
        penalty = ridge * xx.diagonal().mean() * torch.eye(len(xx), dtype=xx.dtype)
        pi = torch.linalg.solve(xx + penalty, yx.T).T
        left = yy.trace() - 2 * (pi * yx).sum() + ((pi @ xx) * pi).sum()
        return pi.float(), float(1 - left / yy.trace())

    def cka(self) -> float:
        """Linear centred kernel alignment (Kornblith et al. 2019), 0 to 1: the same in every
        orthogonal basis."""
        xx, yx, yy = self.centred()
        return float(yx.norm() ** 2 / (xx.norm() * yy.norm()))


def fit_projections(
    target: LanguageModel,
    explainer: LanguageModel,
    contexts: Tensor,
    blocks: Sequence[tuple[int, ...]],
) -> tuple[Tensor, list[float]]:
    """(Pi [n blocks, d_E, d_M], explained variance of each), one for each block of layers."""
    moments = {block: Moments(target.width, explainer.width) for block in blocks}
    layers = sorted({layer for block in moments for layer in block})
    for pairs in paired_residuals(target, explainer, contexts, layers):
        for block, of_block in moments.items():
            for layer in block:
                of_block.add(*pairs[layer])
    solved = [moments[block].least_squares() for block in blocks]
    return torch.stack([pi for pi, _ in solved]), [share for _, share in solved]
