"""The explainer of a run, by the name and the condition that a profile gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from introspect_utils.data.text import corpus_texts
from introspect_utils.explainer.alignment import fit_projections
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.published import is_published, load_published, prompt_form
from introspect_utils.explainer.variants import orthogonal, rotate, sibling
from introspect_utils.models.contexts import contexts
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import VARIANTS, variant
from introspect_utils.settings.profile import Profile

# condition -> ExplainerSettings.projection
PROJECTIONS = {
    "random-projection": "always",
    "identity-projection": "identity",  # starts as the identity
    "pretrained-projection": "always",  # starts at the least squares of section 3.1
    "capped-projection": "always",  # stays at random, plus a trained product of LoRA's rank
    "frozen": "frozen",  # only an affine map is trained, in front of a frozen model
    "frozen-scale": "frozen-scale",  # only a scale and a bias
}


def explainer_model(profile: Profile, name: str, target: str, seed: int) -> LanguageModel:
    """The model under an explainer of `target`: self, sibling, rotated (a share of the way:
    rotated@0.5), or any by its name."""
    kind, share = variant(name)
    if is_published(name):
        return load_published(name, profile.device, profile.dtype)
    of_target = kind in VARIANTS
    lm = load_model(target if of_target else name, profile.device, profile.dtype, seed)
    if kind == "sibling":
        lm = sibling(profile, lm, share)
    elif kind == "rotated":
        lm = rotate(lm, orthogonal(lm.width, share, profile.variants.rotation_seed))
    return replace(lm, name=f"{target} {name}") if of_target and kind != "self" else lm


def make_explainer(
    profile: Profile,
    task: str,
    name: str,
    condition: str,
    target: str,
    d_target: int,
    layers: Sequence[tuple[int, ...]],
    seed: int,
) -> Explainer:
    """An explainer of `target` before its training, for vectors of `layers` (or blocks of layers;
    empty for tasks without vectors). A condition of `PROJECTIONS` says how Pi_l starts and what is
    trained; otherwise one is drawn at random where the widths differ."""
    settings, lm = profile.explainer_for(task), explainer_model(profile, name, target, seed)
    if condition in PROJECTIONS:
        rank = profile.training_for(task).lora_r if condition == "capped-projection" else 0
        settings = replace(settings, projection=PROJECTIONS[condition], projection_rank=rank)
    raw = settings.vector_scale == "raw" and not settings.vector_center
    if is_published(name) and layers and not (raw and lm.width == d_target):
        given = f"width {lm.width}, the target {d_target}"
        raise UserError(
            f"{name} reads raw vectors, has {given}: set vector_scale: raw, vector_center: false, "
            "or its own target"
        )
    settings = replace(settings, prompt=prompt_form(name) or settings.prompt)
    explainer = Explainer(lm, settings, d_target, layers, seed)
    if condition == "pretrained-projection":
        target_lm = load_model(target, profile.device, profile.dtype, seed)
        aligned = aligned_contexts(profile, target_lm)
        fitted, shares = fit_projections(target_lm, explainer.lm, aligned, explainer.layers)
        print("explained variance of the fitted projections:", *(f"{r2:.2f}" for r2 in shares))
        with torch.no_grad():
            explainer.projection.weight.copy_(fitted)
    return explainer


def aligned_contexts(profile: Profile, target: LanguageModel) -> torch.Tensor:
    """The contexts [N, T] on which the residual streams of target and explainer are compared."""
    settings = profile.variants
    texts = corpus_texts(settings.text, settings.aligned_contexts)
    return contexts(target, texts, settings.context, settings.aligned_contexts)
