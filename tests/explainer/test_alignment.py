"""Residual streams of two models on the same text, and the projection fitted to them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from introspect_utils.data.facts import load_facts
from introspect_utils.explainer import alignment, variants
from introspect_utils.explainer import make as explainers
from introspect_utils.models.contexts import contexts as cut
from introspect_utils.models.load import load_model
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile

TEXTS = [
    "The capital of France is Paris, café au lait.",
    "Water boils at 100 degrees — 🙂 and freezes at zero.",
    "One two three four five six.",
]


@pytest.fixture(scope="module")
def target():
    return load_model("tiny-llama")


@pytest.fixture(scope="module")
def contexts(target):
    return cut(target, TEXTS * 4, 6, 12)


def test_the_same_tokenizer_pairs_every_token_with_itself(target, contexts):
    ids, pairs = alignment.shared_ends(target, load_model("tiny-qwen3"), contexts[:3])
    assert ids.shape[0] == 3
    again, same = alignment.shared_ends(target, target, contexts[:3])
    assert torch.equal(same.target, same.explainer) and len(same.rows) == contexts[:3].numel()
    assert torch.equal(again, contexts[:3])


def test_paired_tokens_end_the_same_text(target, contexts):
    other = load_model("smollm2-135m-instruct")
    ids, pairs = alignment.shared_ends(target, other, contexts)
    assert len(pairs.rows) > 10
    for row, i, j in zip(
        pairs.rows.tolist(), pairs.target.tolist(), pairs.explainer.tolist(), strict=True
    ):
        ours, theirs = (
            target.tokenizer.decode(contexts[row, : i + 1]),
            other.tokenizer.decode(ids[row, : j + 1]),
        )
        assert ours == theirs


@given(
    n=st.integers(3, 40),
    d_x=st.integers(1, 6),
    d_y=st.integers(1, 6),
    cut=st.integers(1, 39),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_the_sums_in_blocks_solve_as_scikit_learns_ridge_does(n, d_x, d_y, cut, seed):
    draw = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d_x, generator=draw) + 3, torch.randn(n, d_y, generator=draw) - 1
    moments = alignment.Moments(d_x, d_y)
    moments.add(x[:cut], y[:cut])
    moments.add(x[cut:], y[cut:])
    centred = (x - x.mean(0)).double()
    penalty = 0.1 * centred.pow(2).sum(0).mean().item()
    expected = Ridge(alpha=penalty).fit(x.double().numpy(), y.double().numpy())
    pi, share = moments.least_squares(0.1)
    torch.testing.assert_close(
        pi, torch.from_numpy(expected.coef_).reshape(d_y, d_x).float(), atol=1e-4, rtol=1e-3
    )
    left = (
        (y.double() - torch.from_numpy(expected.predict(x.double().numpy())).reshape(n, d_y))
        .pow(2)
        .sum()
    )
    assert share == pytest.approx(1 - float(left / (y - y.mean(0)).double().pow(2).sum()), abs=1e-4)


def test_gradient_descent_finds_the_closed_form():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=draw)
    y = x @ torch.randn(5, 7, generator=draw) + 0.1 * torch.randn(400, 7, generator=draw)
    moments = alignment.Moments(5, 7)
    moments.add(x, y)
    pi, share = moments.least_squares(1e-6)
    learned = torch.zeros(7, 5, requires_grad=True)
    optimizer = torch.optim.Adam([learned], lr=0.05)
    xc, yc = x - x.mean(0), y - y.mean(0)
    for _ in range(600):
        optimizer.zero_grad()
        (yc - xc @ learned.T).pow(2).sum(-1).mean().backward()
        optimizer.step()
    torch.testing.assert_close(learned.detach(), pi, atol=1e-3, rtol=1e-2)
    assert 0.99 < share < 1


def test_the_projection_fitted_to_a_rotated_target_is_the_rotation(target, contexts):
    q = variants.orthogonal(target.width, 1.0, 5)
    turned = variants.rotate(load_model("tiny-llama"), q)
    many = cut(target, [fact.prompt for fact in load_facts("packaged")], 6, 300)
    fitted, shares = alignment.fit_projections(target, turned, many, [(1,), (2, 3)])
    assert all(share > 0.95 for share in shares)
    v = torch.randn(100, target.width, generator=torch.Generator().manual_seed(1))
    for pi in fitted:
        assert torch.cosine_similarity(v @ pi.T, v @ q.float().T).mean() > 0.95


def test_layers_are_paired_by_relative_depth(target):
    other = load_model("smollm2-135m-instruct")
    assert [alignment.same_depth(layer, target, target) for layer in range(4)] == [0, 1, 2, 3]
    assert (
        alignment.same_depth(3, target, other) == 29
        and alignment.same_depth(29, other, target) == 3
    )
    deep, shallow = (SimpleNamespace(n_layers=n) for n in (32, 4))
    paired = [alignment.same_depth(layer, deep, shallow) for layer in range(32)]
    assert paired[0] == 0 and paired[-1] == 3 and paired == sorted(paired)


def test_an_explainer_is_made_with_the_projection_of_its_condition(tmp_path, monkeypatch, target):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    profile = load_profile("smoke")
    layers = [(1,), (2,)]

    def make(name, condition):
        return explainers.make_explainer(
            profile, "features", name, condition, "tiny-llama", target.width, layers, 0
        )

    assert make("self", "full").projection is None
    drawn, capped = (
        make("tiny-gemma3", "full").projection,
        make("tiny-gemma3", "capped-projection").projection,
    )
    assert drawn.rank == 0 and drawn.weight.requires_grad
    assert capped.rank == profile.training.lora_r and not capped.weight.requires_grad
    fitted = make("tiny-gemma3", "pretrained-projection").projection
    assert fitted.weight.requires_grad and fitted.weight.shape == drawn.weight.shape
    assert not torch.allclose(fitted.weight, drawn.weight)
    assert make("rotated", "pretrained-projection").projection.weight.shape == (2, 32, 32)


def test_tokenizers_that_share_no_end_are_refused(target, monkeypatch):
    monkeypatch.setattr(
        alignment,
        "_ends",
        lambda lm, text: ([30, 31], {1: 0} if lm.name == "tiny-llama" else {2: 0}),
    )
    with pytest.raises(UserError, match="tiny-llama ends where one of tiny-qwen3 does"):
        alignment.shared_ends(target, replace(load_model("tiny-qwen3")), torch.tensor([[30, 31]]))


def test_cka_does_not_see_the_basis_and_is_that_of_the_gram_matrices():
    draw = torch.Generator().manual_seed(0)
    x, noise = torch.randn(200, 6, generator=draw), torch.randn(200, 6, generator=draw)
    turned = x @ variants.orthogonal(6).float().T * 3 + 5
    for y, expected in ((turned, 1.0), (x + noise, None), (noise[:, :4], None)):
        moments = alignment.Moments(6, y.shape[1])
        moments.add(x[:70], y[:70])
        moments.add(x[70:], y[70:])
        k, ell = ((a - a.mean(0)).double() @ (a - a.mean(0)).double().T for a in (x, y))
        by_hand = float((k * ell).sum() / (k.norm() * ell.norm()))
        assert moments.cka() == pytest.approx(by_hand, abs=1e-6)
        assert expected is None or moments.cka() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("wrong", ["constant", "nan", "inf"])
def test_what_is_constant_or_not_finite_is_not_compared(wrong):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 3, generator=draw), torch.randn(50, 4, generator=draw)
    if wrong == "constant":
        x[:] = torch.tensor([0.1, -7.3, 1e3])
    else:
        x[7, 1] = float(wrong)
    for pair in ((x, y), (y, x)):
        moments = alignment.Moments(*(side.shape[1] for side in pair))
        moments.add(*pair)
        for statistic in (moments.cka, moments.least_squares):
            with pytest.raises(UserError, match="the same at all tokens, or not finite"):
                statistic()
