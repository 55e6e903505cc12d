import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from sklearn.metrics import f1_score as sklearn_f1
from statsmodels.api import OLS
from statsmodels.stats.proportion import proportion_confint

from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError


def macro_f1(is_different, predicted_changed):
    """Has-changed macro-F1 of one explainer."""
    truth, said = metrics.codes(is_different), metrics.codes(predicted_changed)
    return metrics.f1_rows(truth, said[None]).mean()


ANSWERS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([True, False, None])), min_size=1, max_size=60
)


@settings(max_examples=50, deadline=None)
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
    assert macro_f1(truth, predicted) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(ANSWERS)
def test_an_unparseable_answer_scores_below_a_right_one(rows):
    truth, predicted = [t for t, _ in rows], [p for _, p in rows]
    right = [t if p is None else p for t, p in rows]
    lost, kept = macro_f1(truth, predicted), macro_f1(truth, right)
    assert lost < kept if None in predicted else lost == kept


def test_all_unparseable_scores_zero():
    assert macro_f1([True, False, True], [None, np.nan, None]) == 0


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


def clustered_scores(generator, groups=30, size=8, spread=1.0):
    """Scores [1, groups * size] that agree within clusters, and the clusters."""
    clusters = np.repeat(np.arange(groups), size)
    return (generator.normal(0, spread, groups)[clusters] + generator.normal(size=len(clusters)))[
        None
    ], clusters


def test_error_of_clustered_rows_is_that_of_statsmodels():
    scores, clusters = clustered_scores(np.random.default_rng(0))
    shuffled = np.random.default_rng(1).permutation(len(clusters))
    scores, clusters = scores[:, shuffled], clusters[shuffled]
    fit = OLS(scores[0], np.ones(len(clusters))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True
    )
    found = metrics.estimate(scores, clusters)
    assert (found.value, found.stderr) == pytest.approx((fit.params[0], fit.bse[0]))
    assert found.p == pytest.approx(fit.pvalues[0])
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert found.stderr > 1.9 * metrics.estimate(scores).stderr


def test_interval_of_clustered_rows_covers():
    generator, hits = np.random.default_rng(0), 0
    for _ in range(400):
        found = metrics.estimate(*clustered_scores(generator, groups=12))
        hits += found.low < 0 < found.high
    assert 0.92 < hits / 400 < 0.98


@pytest.mark.parametrize(("of_rows", "of_seeds"), [(1.0, 0.0), (1.0, 0.15), (0.2, 0.5)])
def test_interval_over_rows_and_seeds_covers(of_rows, of_seeds):
    """Rows, three seeds and their noise all drawn anew: t quantiles, for 1.96 is far too narrow."""
    generator, hits, normal = np.random.default_rng(0), 0, 0
    for _ in range(600):
        rows, seeds = generator.normal(size=(1, 60)), generator.normal(size=(3, 1))
        noise = 0.3 * generator.normal(size=(3, 60))
        found = metrics.estimate(of_rows * rows + of_seeds * seeds + noise)
        hits += found.low < 0 < found.high
        normal += abs(found.value) < 1.96 * found.stderr
    assert 0.92 < hits / 600 <= 1
    if of_seeds > of_rows:
        assert normal / 600 < 0.9


def test_one_seed_and_independent_rows_are_the_paired_t_test():
    a, b = np.random.default_rng(0).integers(0, 2, (2, 100)).astype(float)
    found, test = metrics.estimate((a - b)[None]), ttest_rel(a, b)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))


def test_error_grows_with_the_spread_of_seeds():
    same = np.tile(np.random.default_rng(0).integers(0, 2, 300).astype(float), (3, 1))
    assert metrics.estimate(same).stderr == pytest.approx(metrics.estimate(same[:1]).stderr)
    apart = metrics.estimate(np.stack([np.zeros(300), np.ones(300)]))
    assert (apart.value, apart.stderr) == pytest.approx((0.5, 0.5))  # sd .707 / sqrt(2)
    assert apart.high == pytest.approx(0.5 + 12.7062 * 0.5)  # t of one degree of freedom


def test_what_does_not_exist_is_none_and_not_a_number_is_an_error():
    one = metrics.estimate(np.ones((2, 5)), np.zeros(5))
    assert one == (1, None, None, None, None)
    assert metrics.estimate(np.zeros((1, 5))).p == 1 and metrics.estimate(np.ones((1, 5))).p == 0
    for wrong in (np.nan, np.inf):
        with pytest.raises(UserError, match="not a number"):
            metrics.estimate(np.array([[0.5, wrong]]))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, None])
def test_no_statistic_is_made_of_what_is_no_number(wrong):
    with pytest.raises(UserError, match="a score is not a number"):
        metrics.rank_correlation([1, 2, 3, 4], [0.1, wrong, 0.3, 0.2])
    with pytest.raises(UserError, match="a score is not a number"):
        metrics.rank_correlation([wrong, 2, 3, 4], [0.1, 0.2, 0.3, 0.2])
    with pytest.raises(UserError, match="a score is not a number"):
        metrics.holm([0.01, wrong, 0.03])
    for cells in ([(wrong, 0.1), (0.5, 0.1)], [(0.4, 0.1), (0.5, wrong)]):
        with pytest.raises(UserError, match="a score is not a number"):
            metrics.pooled(cells, 10)


def test_there_is_no_share_of_nothing():
    for below in ([0.0, 0.0], [1.0, -1.0], [-1.0, 0.0]):
        with pytest.raises(UserError, match="is not above 0 does not exist"):
            metrics.ratio(np.array([[1.0, 2.0]]), np.array([below]))
    with pytest.raises(UserError, match="a score is not a number"):
        metrics.ratio(np.array([[1.0, np.nan]]), np.array([[1.0, 1.0]]))


def test_rows_of_f1_have_its_value_and_its_bootstrap_error():
    truth, predicted = random_answers(400, 1)
    clusters = np.arange(400) // 4
    raw = np.array([None if p < 0 else bool(p) for p in predicted[0]])
    rows = metrics.f1_rows(truth, predicted)
    assert rows.mean() == pytest.approx(macro_f1(truth, raw))
    generator, scores = np.random.default_rng(1), []
    for _ in range(1000):
        drawn = np.concatenate(
            [np.arange(4 * g, 4 * g + 4) for g in generator.integers(0, 100, 100)]
        )
        scores.append(macro_f1(truth[drawn], raw[drawn]))
    assert metrics.estimate(rows, clusters).stderr == pytest.approx(np.std(scores), rel=0.1)


def test_difference_of_f1_is_paired():
    truth, a = random_answers(500, 2)
    b = np.where(np.arange(500) < 50, 1 - truth, a)  # spoil one row in ten
    first, second = metrics.f1_rows(truth, a), metrics.f1_rows(truth, b)
    apart = np.hypot(metrics.estimate(first).stderr, metrics.estimate(second).stderr)
    assert 0 < metrics.estimate(first - second).stderr < apart


def test_sum_of_means_of_different_rows_has_their_joint_error():
    generator = np.random.default_rng(0)
    a, b = generator.normal(1, 1, (1, 80)), generator.normal(2, 3, (1, 200))
    found = metrics.estimate(metrics.summed([a, b]))
    apart = [metrics.estimate(part) for part in (a, b)]
    assert found.value == pytest.approx(a.mean() + b.mean())
    assert found.stderr == pytest.approx(np.hypot(*(e.stderr for e in apart)), rel=0.01)


def test_ratio_has_its_bootstrap_error():
    generator = np.random.default_rng(0)
    b = generator.normal(2, 0.5, (1, 300))
    a = 0.7 * b + generator.normal(0, 0.3, (1, 300))
    found = metrics.estimate(metrics.ratio(a, b))
    assert found.value == pytest.approx(a.mean() / b.mean())
    draws = generator.integers(0, 300, (2000, 300))
    resampled = a[0][draws].mean(axis=1) / b[0][draws].mean(axis=1)
    assert found.stderr == pytest.approx(resampled.std(), rel=0.1)


def test_pooled_error_is_never_below_that_of_the_rows_scores():
    generator = np.random.default_rng(0)
    for noise in (0.0, 1.0):  # seeds that agree about every row, and seeds that do not
        scores = generator.normal(size=(1, 80)) + noise * generator.normal(size=(3, 80))
        reported = [(e.value, e.stderr) for e in (metrics.estimate(s[None]) for s in scores)]
        pooled, own = metrics.pooled(reported, 80), metrics.estimate(scores)
        assert pooled.value == pytest.approx(own.value)
        same = pooled.stderr == pytest.approx(own.stderr)
        assert same if noise == 0 else pooled.stderr > own.stderr


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_largest_step_down_product(p):
    found, order = metrics.holm(p), np.argsort(p, kind="stable")
    steps = [min(1.0, (len(p) - rank) * p[i]) for rank, i in enumerate(order)]
    assert [found[i] for i in order] == pytest.approx(
        np.maximum.accumulate([0.0, *steps])[1:].tolist()
    )


def test_rank_correlation_is_exact_and_has_no_nan():
    assert metrics.rank_correlation([0, 1, 2, 3, 4], [1, 2, 3, 4, 5]) == pytest.approx((1, 2 / 120))
    assert metrics.rank_correlation([0, 1, 2], [0.5, 0.5, 0.5]) is None
    assert metrics.rank_correlation([1, 1 + 1e-9, 1 - 1e-9], [1, 2, 3]) is None


def test_bold_is_what_has_a_p_and_is_not_worse():
    assert metrics.bold(1.0) and metrics.bold(0.05)
    assert not metrics.bold(0.049) and not metrics.bold(None)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_statsmodels(hits_of):
    hits, n = hits_of
    share, low, high = metrics.wilson(hits, n)
    assert (share, low, high) == pytest.approx(
        (hits / n, *proportion_confint(hits, n, method="wilson")), abs=1e-9
    )
    assert 0 <= low <= share <= high <= 1
