"""How similar the residual streams of an explainer and its target are before training (B.2).

    dot product    E_{x,l,t} <h_E(l, t)(x), h_M(l, t)(x)>, of unit vectors
    SAE pattern    E_{l,v} E_{x|v} corr_t(<h_E(l, t)(x), v>, <h_M(l, t)(x), v>)
    CKA            linear centred kernel alignment: the same in every basis

Where the explainer has a projection, h_M and v are seen through it, as the explainer gets them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from introspect_utils.explainer.alignment import Moments, explainer_residuals, paired_residuals
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.scores.simulator_scores import pearson


def _seen(explainer: Explainer, vectors: Tensor, layer: int) -> Tensor:
    """Vectors [n, d_M] of a layer as the explainer gets them, [n, d_E]."""
    if explainer.projection is None:
        return vectors
    index = torch.full((len(vectors),), explainer.layer_index[layer,], device=vectors.device)
    return explainer.projection(vectors, index)


@torch.no_grad()
def stream_similarity(
    target: LanguageModel, explainer: Explainer, contexts: Tensor, layers: Sequence[int]
) -> dict[str, Tensor]:
    """`dot_product`: cosines of all tokens of `contexts` [N, T], the layers one after another;
    `cka`: one number a layer."""
    cosines: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    moments = {layer: Moments(target.width, explainer.lm.width) for layer in layers}
    for pairs in paired_residuals(target, explainer.lm, contexts, layers):
        for layer, (ours, theirs) in pairs.items():
            seen = _seen(explainer, ours, layer)
            cosines[layer].append(torch.cosine_similarity(seen, theirs).cpu())
            moments[layer].add(ours, theirs)
    cka = torch.tensor([moments[layer].cka() for layer in layers])
    return {"dot_product": torch.cat([c for layer in layers for c in cosines[layer]]), "cka": cka}


@torch.no_grad()
def pattern_similarity(
    target: LanguageModel, explainer: Explainer, directions: Directions, exemplars: Exemplars
) -> Tensor:
    """corr_t of both models' activations along each direction on its top exemplars: [n], means over
    those on which neither is constant; a direction without one is left out."""
    found, k = [], exemplars.n_top
    for layer in sorted(set(directions.layers)):
        chosen = directions.where(layer=layer)
        seen = _seen(explainer, directions.vectors[chosen].to(explainer.lm.device), layer)
        of_layer = exemplars.take(chosen)
        contexts = of_layer.tokens[of_layer.sequences[:, :k]].flatten(0, 1)
        ours = of_layer.activations[:, :k].flatten(0, 1)
        correlations: list[list[float]] = [[] for _ in chosen]
        for pairs, theirs in explainer_residuals(target, explainer.lm, contexts, [layer]):
            of_direction = (pairs.rows // k).to(seen.device)
            a = ours[pairs.rows, pairs.target]
            b = (theirs[layer] * seen[of_direction]).sum(-1).cpu()
            for row in pairs.rows.unique().tolist():
                r, constant = pearson(a[pairs.rows == row], b[pairs.rows == row])
                if not constant:
                    correlations[row // k].append(float(r))
        found += [sum(of_one) / len(of_one) for of_one in correlations if of_one]
    return torch.tensor(found)
