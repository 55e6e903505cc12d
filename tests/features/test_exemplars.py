import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from introspect_utils.features import exemplars
from introspect_utils.features.exemplars import Exemplars, find_exemplars
from introspect_utils.settings.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of two directions and two sequences of five tokens."""
    monkeypatch.setattr(exemplars, "DIRECTIONS", 2)
    monkeypatch.setattr(exemplars, "TOKENS", 11)


def corpus(n_sequences, length=5, width=4, n=7, seed=0, low=-2, high=3):
    """Whole numbers, so that products are exact and many of them equal: (residuals in bfloat16,
    tokens, vectors)."""
    draw = torch.Generator().manual_seed(seed)
    h = torch.randint(low, high, (n_sequences, length, width), generator=draw).bfloat16()
    return (
        h,
        torch.arange(n_sequences * length).view(n_sequences, length),
        torch.randint(-2, 3, (n, width), generator=draw).float(),
    )


# --- oracle: everything at once, in float64


@settings(max_examples=30)
@given(st.integers(3, 30), st.integers(1, 6), st.integers(1, 9), st.integers(0, 999))
def test_equals_brute_force_with_ties_by_sequence_number(n_sequences, length, n, seed):
    n_top = min(n_sequences, 1 + seed % 7)
    h, tokens, vectors = corpus(n_sequences, length, n=n, seed=seed)
    a = torch.einsum("std,nd->nst", h.double(), vectors.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exemplars, "DIRECTIONS", 1 + seed % 3)
        patch.setattr(exemplars, "TOKENS", length * (1 + seed % 4))
        found = find_exemplars(h, tokens, vectors, n_top, n_sequences - n_top, seed)
    for i in range(n):
        best = sorted(range(n_sequences), key=lambda s: (-a[i, s].max().item(), s))[:n_top]
        assert found.sequences[i, :n_top].tolist() == best
        assert sorted(found.sequences[i].tolist()) == list(
            range(n_sequences)
        )  # the others are all the others
        assert torch.equal(found.activations[i].double(), a[i, found.sequences[i]])
    torch.testing.assert_close(found.peak.double(), a.flatten(1).amax(1))
    torch.testing.assert_close(found.mean.double(), a.flatten(1).mean(1), rtol=1e-5, atol=1e-5)
    assert (
        found.activations.dtype == torch.float32
        and found.sequences.dtype == torch.int64
        and found.tokens is tokens
    )


def test_the_size_of_blocks_changes_nothing(small_blocks, monkeypatch):
    h, tokens, vectors = corpus(23)
    found = find_exemplars(h, tokens, vectors, 4, 3, seed=1)
    monkeypatch.setattr(exemplars, "TOKENS", 10_000)
    monkeypatch.setattr(exemplars, "DIRECTIONS", 100)
    again = find_exemplars(h, tokens, vectors, 4, 3, seed=1)
    assert torch.equal(found.sequences, again.sequences) and torch.equal(
        found.activations, again.activations
    )


def test_the_mean_is_right_when_it_is_far_from_zero(small_blocks):
    draw = torch.Generator().manual_seed(0)
    h = 3000 + torch.randn(200, 5, 4, generator=draw)
    vectors = torch.randn(3, 4, generator=draw)
    a = torch.einsum("std,nd->nst", h.double(), vectors.double()).flatten(1)
    found = find_exemplars(h, torch.zeros(200, 5).long(), vectors, 2, 2, seed=0)
    torch.testing.assert_close(found.mean.double(), a.mean(1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("part", ["activations", "mean", "peak"])
@pytest.mark.parametrize("wrong", [torch.nan, -torch.inf])
def test_what_is_not_finite_in_a_file_is_an_error(tmp_path, part, wrong):
    h, tokens, vectors = corpus(12)
    found = find_exemplars(h, tokens, vectors, 4, 3, seed=0)
    with torch.inference_mode():
        getattr(found, part)[2] = wrong
    found.save(tmp_path / "exemplars.safetensors")
    with pytest.raises(UserError, match="direction 2 has an activation that is not finite"):
        Exemplars.load(tmp_path / "exemplars.safetensors")
    with pytest.raises(UserError, match="direction 1 has an activation that is not finite"):
        found.take([0, 2])


@pytest.mark.parametrize("where", ["residual", "vector"])
def test_what_is_not_finite_is_an_error(where):
    h, tokens, vectors = corpus(12)
    (h[7, 2] if where == "residual" else vectors[4])[1] = torch.nan
    with pytest.raises(UserError, match="direction . has an activation that is not finite"):
        find_exemplars(h, tokens, vectors, 3, 2, seed=0)


# --- the random others


def test_random_others_are_different_and_equally_likely():
    n, n_sequences = 6000, 9
    top = torch.tensor([[7, 0, 3]]).expand(n, -1)
    others = exemplars._random_others(top, n_sequences, 4, seed=0)
    assert others.shape == (n, 4) and not torch.isin(others, top[0]).any()
    assert (others.sort(1).values.diff() > 0).all()
    left = [1, 2, 4, 5, 6, 8]
    for place in range(4):  # in every place every one of the six left is drawn as often
        counts = others[:, place].bincount(minlength=n_sequences)[left]
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_random_others_depend_on_the_seed_and_on_nothing_else():
    h, tokens, vectors = corpus(40)
    first, same, other = (find_exemplars(h, tokens, vectors, 2, 5, seed) for seed in (0, 0, 1))
    assert torch.equal(first.sequences, same.sequences)
    assert torch.equal(first.sequences[:, :2], other.sequences[:, :2])
    assert not torch.equal(first.sequences[:, 2:], other.sequences[:, 2:])


def test_too_few_sequences_is_an_error():
    with pytest.raises(UserError, match="6 sequences are too few for 4 top and 3 random"):
        find_exemplars(*corpus(6), 4, 3, seed=0)


# --- halves


@pytest.mark.parametrize(("n_top", "n_random"), [(6, 4), (5, 3), (1, 1), (2, 0)])
def test_describing_and_scoring_share_no_sequence(n_top, n_random):
    every = find_exemplars(*corpus(30), n_top, n_random, seed=0)
    describing, scoring = every.describing(), every.scoring()
    assert torch.equal(describing.sequences[:, : describing.n_top], every.sequences[:, :n_top:2])
    assert torch.equal(scoring.sequences[:, : scoring.n_top], every.sequences[:, 1:n_top:2])
    both = torch.cat([describing.sequences, scoring.sequences], 1)
    assert torch.equal(both.sort(1).values, every.sequences.sort(1).values)
    random = [describing.sequences[:, describing.n_top :], scoring.sequences[:, scoring.n_top :]]
    assert torch.equal(torch.cat(random, 1), every.sequences[:, n_top:])
    assert abs(random[0].shape[1] - random[1].shape[1]) <= 1
    for half in (
        describing,
        scoring,
    ):  # activations go with their sequences; the moments are still the corpus's
        for i in range(len(half)):
            for sequence, a in zip(half.sequences[i], half.activations[i], strict=True):
                assert torch.equal(a, every.activations[i][every.sequences[i] == sequence][0])
        assert half.tokens is every.tokens and torch.equal(half.peak, every.peak)


# --- bins


def handmade(activations, mean, peak):
    """Exemplars with these activations [n, k, T]."""
    n, k, length = activations.shape
    moments = torch.tensor(mean), torch.tensor(peak)
    return Exemplars(
        torch.zeros(9, length).long(), torch.arange(k).expand(n, -1), activations, *moments, n_top=1
    )


def test_bins_by_hand():
    a = torch.tensor(
        [
            [[-5.0, 1.0, 2.0, 1.09, 1.11, 6.0, 9.9, 11.0, 12.0]],
            [[-3.0, -2.0, -1.0, -2.5, -2.6, 0, 0, 0, 0]],
        ]
    )
    bins = handmade(a, mean=[1.0, -3.0], peak=[11.0, -1.0]).binned()
    assert bins.dtype == torch.int64
    assert bins.tolist() == [[[0, 0, 1, 0, 0, 5, 9, 10, 10]], [[0, 5, 10, 2, 2, 10, 10, 10, 10]]]


def test_a_constant_direction_is_in_bin_zero():
    assert not handmade(torch.full((1, 2, 3), 4.0), mean=[4.0], peak=[4.0]).binned().any()


# --- rows and files


def same(a, b):
    return all(
        torch.equal(x, y) if torch.is_tensor(x) else x == y
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def test_take_concat_and_file(tmp_path):
    h, tokens, vectors = corpus(20)
    every = find_exemplars(h, tokens, vectors, 3, 2, seed=0)
    assert same(
        Exemplars.concat([every.take([0, 1, 2]), every.take([3]), every.take(range(4, 7))]), every
    )
    assert every.take([5, 0]).sequences.tolist() == [
        every.sequences[5].tolist(),
        every.sequences[0].tolist(),
    ]
    assert every.take([5, 0]).peak.tolist() == [every.peak[5].item(), every.peak[0].item()]
    half = every.scoring()  # columns that are not contiguous
    half.save(tmp_path / "new" / "half.safetensors")
    assert same(Exemplars.load(tmp_path / "new" / "half.safetensors"), half)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["half.safetensors"]


def test_exemplars_of_two_corpora_cannot_be_put_together():
    h, tokens, vectors = corpus(20)
    one, other = (find_exemplars(h, tokens + more, vectors, 3, 2, seed=0) for more in (0, 1))
    with pytest.raises(ValueError, match="different corpora"):
        Exemplars.concat([one, other])


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="none.safetensors is missing: notebooks/01"):
        Exemplars.load(tmp_path / "none.safetensors")
