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
from introspect_utils.settings.sections import PROJECTED


def explainer_model(profile: Profile, name: str, target: str, seed: int) -> LanguageModel:
    """The model under an explainer of `target`: self, sibling, rotated (a share of the way:
    rotated@0.5), or any by its name.

    Raises `UserError` for what `load_model` and `rotate` refuse.
    """
    kind, share = variant(name)
    if is_published(name):
        return load_published(name, profile.device, profile.dtype)
    if kind not in VARIANTS:
        return load_model(name, profile.device, profile.dtype, seed)
    lm = load_model(target, profile.device, profile.dtype, seed)
    if kind == "self":
        return lm
    if kind == "sibling":
        return replace(sibling(profile, lm, share), name=f"{target} {name}")
    return replace(
        rotate(lm, orthogonal(lm.width, share, profile.variants.rotation_seed)),
        name=f"{target} {name}",
    )


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
    """An explainer of `target` before its training, for vectors of `layers` (or blocks of layers);
    none where there are none.

    `pretrained-projection`: Pi_l begins at the least squares of section 3.1. `capped-projection`:
    it stays at random, plus a trained product of LoRA's rank, as in the authors' code. Otherwise
    one is drawn at random where the widths differ.
    """
    settings = profile.explainer_for(task)
    if condition in PROJECTED:
        rank = profile.training_for(task).lora_r if condition == "capped-projection" else 0
        settings = replace(settings, projection="always", projection_rank=rank)
    lm = explainer_model(profile, name, target, seed)
    if (
        is_published(name)
        and layers
        and (lm.width != d_target or settings.vector_scale != "raw" or settings.vector_center)
    ):
        given = f"width {lm.width}, the target {d_target}"
        raise UserError(
            f"{name} reads raw vectors, has {given}: set vector_scale: raw, vector_center: false, "
            "or its own target"
        )
    settings = replace(settings, prompt=prompt_form(name) or settings.prompt)
    explainer = Explainer(lm, settings, d_target, layers, seed)
    if condition == "pretrained-projection":
        target_lm = load_model(target, profile.device, profile.dtype, seed)
        fitted, shares = fit_projections(
            target_lm, explainer.lm, aligned_contexts(profile, target_lm), explainer.layers
        )
        print(
            "explained variance of the fitted projections:", *(f"{share:.2f}" for share in shares)
        )
        with torch.no_grad():
            explainer.projection.weight.copy_(fitted)
    return explainer


def aligned_contexts(profile: Profile, target: LanguageModel) -> torch.Tensor:
    """The contexts [N, T] on which residual streams of target and explainer are compared; full
    activations are of others."""
    wanted = profile.variants
    texts = corpus_texts(wanted.text, wanted.aligned_contexts)
    return contexts(target, texts, wanted.context, wanted.aligned_contexts)
