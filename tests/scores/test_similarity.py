"""How similar an explainer's residual stream is to its target's (B.2)."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from introspect_utils.data.facts import load_facts
from introspect_utils.explainer import make as explainers
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.contexts import contexts as cut
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import read_residuals
from introspect_utils.scores.similarity import pattern_similarity, stream_similarity
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile

LAYERS = (1, 2)


@pytest.fixture(scope="module")
def target():
    return load_model("tiny-llama")


@pytest.fixture(scope="module")
def contexts(target):
    return cut(target, [fact.prompt for fact in load_facts("packaged")], 8, 120)


@pytest.fixture
def make(tmp_path, monkeypatch, target):
    monkeypatch.setattr(paths, "ROOT", tmp_path)

    def made(name, condition="full"):
        layers = [(layer,) for layer in LAYERS]
        return explainers.make_explainer(
            load_profile("smoke"),
            "features",
            name,
            condition,
            "tiny-llama",
            target.width,
            layers,
            0,
        )

    return made


def test_the_target_is_all_similar_a_rotated_one_only_in_its_geometry(make, target, contexts):
    own, turned, half = (
        stream_similarity(target, make(name), contexts, LAYERS)
        for name in ("self", "rotated", "rotated@0.5")
    )
    assert own["dot_product"].min() > 0.9999 and own["cka"] == pytest.approx([1, 1], abs=1e-5)
    assert abs(turned["dot_product"].mean()) < 0.3 and turned["cka"] == pytest.approx(
        [1, 1], abs=1e-4
    )
    assert turned["dot_product"].mean() < half["dot_product"].mean() < 0.95
    assert len(own["dot_product"]) == len(LAYERS) * contexts.numel()


def test_another_model_is_seen_through_its_projection(make, target, contexts):
    drawn, fitted = (
        stream_similarity(target, make("tiny-gemma3", condition), contexts, LAYERS)
        for condition in ("full", "pretrained-projection")
    )
    assert fitted["dot_product"].mean() > drawn["dot_product"].mean() + 0.1
    torch.testing.assert_close(drawn["cka"], fitted["cka"])
    assert (drawn["cka"] < 0.999).all()


def test_patterns_are_pearson_correlations_on_the_exemplars(make, target, contexts):
    vectors = torch.randn(4, target.width, generator=torch.Generator().manual_seed(0))
    directions = Directions(
        tuple("abcd"), ("sae",) * 4, ("test",) * 4, (1, 2, 1, 2), vectors, ("",) * 4
    )
    [(_, h)] = read_residuals(target, contexts[:12], LAYERS, 12)
    activations = torch.stack(
        [h[layer][3 * i : 3 * i + 3] @ vectors[i] for i, layer in enumerate(directions.layers)]
    )
    nothing = torch.zeros(4)  # what no similarity asks for
    exemplars = Exemplars(
        contexts[:12], torch.arange(12).view(4, 3), activations, nothing, nothing, n_top=3
    )
    assert pattern_similarity(target, make("self"), directions, exemplars) == pytest.approx(
        [1] * 4, abs=1e-4
    )
    half = make("rotated@0.5")
    found = pattern_similarity(target, half, directions, exemplars)
    [(_, ours)], [(_, theirs)] = (
        list(read_residuals(lm, contexts[:12], LAYERS, 12)) for lm in (target, half.lm)
    )
    expected = []
    for i in (0, 2, 1, 3):  # by layer
        a, b = (h[directions.layers[i]][3 * i : 3 * i + 3] @ vectors[i] for h in (ours, theirs))
        expected.append(
            np.mean([pearsonr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])
        )
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
