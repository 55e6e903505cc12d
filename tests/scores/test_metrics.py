import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from sklearn.metrics import f1_score as sklearn_f1
from statsmodels.stats.proportion import proportion_confint

from introspect_utils.scores import metrics

ANSWERS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([True, False, None])), min_size=1, max_size=60
)


@settings(max_examples=200, deadline=None)
@given(ANSWERS)
def test_macro_f1_is_that_of_scikit_learn_with_a_third_prediction_label(rows):
    truth, predicted = [t for t, _ in rows], [p for _, p in rows]
    names = {True: "changed", False: "unchanged", None: "unparseable"}
    expected = sklearn_f1(
        [names[t] for t in truth],
        [names[p] for p in predicted],
        labels=["changed", "unchanged"],
        average="macro",
        zero_division=0,
    )
    assert metrics.macro_f1(truth, predicted) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(ANSWERS)
def test_an_unparseable_answer_scores_below_a_right_one(rows):
    truth, predicted = [t for t, _ in rows], [p for _, p in rows]
    right = [t if p is None else p for t, p in rows]
    lost, kept = metrics.macro_f1(truth, predicted), metrics.macro_f1(truth, right)
    assert lost < kept if None in predicted else lost == kept


def test_all_unparseable_scores_zero():
    assert metrics.macro_f1([True, False, True], [None, np.nan, None]) == 0


def test_codes_reads_lists_and_missing_values():
    assert metrics.codes([True, False, None, np.nan]).tolist() == [1, 0, -1, -1]


def random_answers(n, seeds, seed=0):
    """Truth [n] and predictions [seeds, n] as codes: about 70% right, 5% unparseable."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, n)
    wrong = generator.random((seeds, n)) < 0.25
    predicted = np.where(
        generator.random((seeds, n)) < 0.05, metrics.UNPARSEABLE, np.where(wrong, 1 - truth, truth)
    )
    return truth, predicted


def test_bootstrap_error_is_that_of_resampling_rows_one_by_one():
    truth, predicted = random_answers(400, 1)
    raw = np.array([None if p < 0 else bool(p) for p in predicted[0]])
    generator, scores = np.random.default_rng(1), []
    for _ in range(1000):
        rows = generator.integers(0, 400, 400)
        scores.append(metrics.macro_f1(truth[rows], raw[rows]))
    value, stderr = metrics.f1_score(truth, predicted)
    assert value == pytest.approx(metrics.macro_f1(truth, raw))
    assert stderr == pytest.approx(np.std(scores), rel=0.1)


def test_bootstrap_is_seeded():
    truth, predicted = random_answers(100, 2)
    assert metrics.f1_score(truth, predicted) == metrics.f1_score(truth, predicted)


def test_error_over_rows_is_that_of_a_mean():
    scores = np.random.default_rng(0).integers(0, 2, (1, 250)).astype(float)
    value, stderr = metrics.mean_score(scores)
    assert value == scores.mean()
    assert stderr == pytest.approx(scores.std(ddof=1) / np.sqrt(250))


def test_error_grows_with_the_spread_of_seeds():
    same = np.tile(np.random.default_rng(0).integers(0, 2, 300).astype(float), (3, 1))
    assert metrics.mean_score(same)[1] == pytest.approx(
        metrics.mean_score(same[:1])[1]
    )  # seeds that agree add nothing
    apart = np.stack([np.zeros(300), np.ones(300)])
    assert metrics.mean_score(apart) == pytest.approx(
        (0.5, 0.5)
    )  # rows agree: only the seeds' spread, sd .707 / sqrt(2)


def test_error_covers_rows_and_seeds_drawn_anew():
    """Rows, seeds and their noise all drawn anew: the stated error is that of the mean, or a little
    more."""
    generator = np.random.default_rng(0)
    means, variances = [], []
    for _ in range(500):
        scores = (
            3 * generator.normal(size=(1, 50))
            + 0.5 * generator.normal(size=(4, 1))
            + generator.normal(size=(4, 50))
        )
        value, stderr = metrics.mean_score(scores)
        means.append(value)
        variances.append(stderr**2)
    assert 0.85 < np.sqrt(np.mean(variances)) / np.std(means) < 1.2


def test_pooled_error_is_never_below_that_of_the_rows_scores():
    assert metrics.pooled_score([(0.4, 0.03)]) == pytest.approx((0.4, 0.03))
    generator = np.random.default_rng(0)
    for noise in (0.0, 1.0):  # seeds that agree about every row, and seeds that do not
        scores = generator.normal(size=(1, 80)) + noise * generator.normal(size=(3, 80))
        pooled = metrics.pooled_score([metrics.mean_score(seed[None]) for seed in scores])
        value, stderr = metrics.mean_score(scores)
        assert pooled[0] == pytest.approx(value)
        assert pooled[1] == pytest.approx(stderr) if noise == 0 else pooled[1] > stderr


def test_difference_of_f1_is_paired():
    truth, a = random_answers(500, 2)
    assert metrics.f1_difference(truth, a, a) == (0, 0)
    b = np.where(np.arange(500) < 50, 1 - truth, a)  # spoil one row in ten
    value, stderr = metrics.f1_difference(truth, a, b)
    assert value == pytest.approx(metrics.f1_score(truth, a)[0] - metrics.f1_score(truth, b)[0])
    unpaired = np.hypot(metrics.f1_score(truth, a)[1], metrics.f1_score(truth, b)[1])
    assert 0 < stderr < unpaired


def test_paired_p_is_scipys_and_has_no_nan():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 2, (2, 100)).astype(float)
    assert metrics.paired_p(a, b) == ttest_rel(a, b).pvalue
    assert metrics.paired_p(a, a) == 1
    assert metrics.paired_p(np.ones(9), np.zeros(9)) == 0


def test_bold_marks_all_that_are_not_worse_than_the_best():
    generator = np.random.default_rng(0)
    best = (generator.random(1000) < 0.8).astype(float)
    near, far = best.copy(), best.copy()
    near[:3], far[:300] = 0, 0
    rows = {"best": best, "near": near, "far": far}
    p = metrics.p_vs_best({key: value.mean() for key, value in rows.items()}, rows)
    assert p["best"] == 1
    assert [key for key in rows if metrics.bold(p[key])] == ["best", "near"]
    assert not metrics.bold(p["far"]) and not metrics.bold(None)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_statsmodels(hits_of):
    hits, n = hits_of
    share, low, high = metrics.wilson(hits, n)
    assert (share, low, high) == pytest.approx(
        (hits / n, *proportion_confint(hits, n, method="wilson")), abs=1e-9
    )
    assert 0 <= low <= share <= high <= 1
