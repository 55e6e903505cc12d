"""Scores with their standard errors (section 5.1's three metrics), the paired t-test, and the
paper's rule for bold.

One rule for every standard error, of s training seeds scored on the same n rows: stderr =
    sqrt(variance over rows of the row's mean over seeds / n  +  variance over seeds of the seed's
    mean / s) The first term is the choice of test rows, the second (0 for one seed) the choice of
    training seed. Noise of one row in one seed enters both, so the error is a little large, never
    small. For macro-F1, which is no mean over rows, the first term is a bootstrap.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, ttest_rel

UNPARSEABLE = -1  # the code of an answer that says neither "changed" nor "unchanged"
SIGNIFICANCE = 0.05
DRAWS = 2000  # bootstrap resamples: the error of a standard error is then about 1.6%


def codes(predicted_changed) -> np.ndarray:
    """True / False / missing -> 1 / 0 / -1 (UNPARSEABLE), int8 [n]."""
    return pd.array(predicted_changed, dtype="boolean").to_numpy(dtype="int8", na_value=UNPARSEABLE)


def seed_stderr(seed_means: np.ndarray) -> float:
    """Standard error of the mean of `seed_means` [s]; 0 for one seed, whose spread is unknown."""
    return float(seed_means.std(ddof=1) / np.sqrt(len(seed_means))) if len(seed_means) > 1 else 0.0


def mean_score(scores: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of per-row `scores` [s, n] (0/1, correlations, or differences of two
    such)."""
    rows = scores.mean(axis=0)
    row_stderr = rows.std(ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else 0.0
    return float(rows.mean()), float(np.hypot(row_stderr, seed_stderr(scores.mean(axis=1))))


def pooled_score(scores: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard error of a score from those that s seeds report, where the rows' own scores
    are not kept.

    The first term of the rule is taken as if the seeds agreed about every row: too large where they
    do not, never too small.
    """
    values, errors = np.array(scores, dtype=float).T
    return float(values.mean()), float(np.hypot(np.sqrt((errors**2).mean()), seed_stderr(values)))


def wilson(hits: int, n: int) -> tuple[float, float, float]:
    """(share, low, high): Wilson's 95% interval of a share, which stays within 0 and 1 for few
    rows."""
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return hits / n, float(interval.low), float(interval.high)


def _f1(counts: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Macro-F1 [b, s] of b data sets in which pattern k, truth [k] with predictions [s, k], occurs
    `counts` [b, k] times.

    F1 of a class = 2 hits / (rows of the class + rows predicted as it), 0 where both are 0, as in
    scikit-learn. An unparseable prediction is in neither count of predictions while its row stays
    in its class: wrong for that class, and never dropped.
    """
    scores = []
    for label in (0, 1):
        size = (counts @ (truth == label))[:, None] + counts @ (predicted == label).T
        hits = counts @ ((truth == label) & (predicted == label)).T
        scores.append(np.divide(2 * hits, size, out=np.zeros(size.shape), where=size > 0))
    return (scores[0] + scores[1]) / 2


def _f1_and_bootstrap(
    truth: np.ndarray, predicted: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Macro-F1 of each of `predicted` [m, n] against `truth` [n]: observed [m], and in DRAWS
    resamples of the rows [DRAWS, m].

    F1 depends on a row only through its (truth, predictions), so resampling rows is one multinomial
    draw over the few patterns.
    """
    patterns, counts = np.unique(np.vstack([truth, predicted]), axis=1, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=DRAWS)
    return _f1(counts[None], patterns[0], patterns[1:])[0], _f1(draws, patterns[0], patterns[1:])


def macro_f1(is_different, predicted_changed) -> float:
    """Has-changed macro-F1 over the classes changed and unchanged; a missing prediction (None) is
    wrong for its true class."""
    truth, predicted = codes(is_different), codes(predicted_changed)
    return float(_f1(np.ones((1, len(truth)), dtype=int), truth, predicted[None])[0, 0])


def f1_score(truth: np.ndarray, predicted: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Macro-F1 (mean over training seeds) and its standard error; `truth` [n] and `predicted` [s,
    n] as `codes`."""
    observed, draws = _f1_and_bootstrap(truth, predicted, seed)
    return float(observed.mean()), float(
        np.hypot(draws.mean(axis=1).std(ddof=1), seed_stderr(observed))
    )


def f1_difference(
    truth: np.ndarray, a: np.ndarray, b: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """Macro-F1 of `a` minus that of `b` on the same rows, seed by seed, and its standard error;
    [n], twice [s, n], as `codes`."""
    observed, draws = _f1_and_bootstrap(truth, np.vstack([a, b]), seed)
    s = len(a)
    difference, spread = observed[:s] - observed[s:], draws[:, :s] - draws[:, s:]
    return float(difference.mean()), float(
        np.hypot(spread.mean(axis=1).std(ddof=1), seed_stderr(difference))
    )


def paired_p(a: np.ndarray, b: np.ndarray) -> float:
    """p of the paired t-test between per-row scores [n] of two explainers on the same rows (means
    over seeds where several).

    Macro-F1 is no mean over rows: for it, compare the per-row has-changed correctness (right or
    wrong, unparseable = wrong).
    """
    if np.array_equal(a, b):
        return 1.0  # no difference at all; the t statistic would be 0/0
    if np.ptp(a - b) == 0:
        return 0.0  # the same difference in every row; the t statistic is infinite
    return float(ttest_rel(a, b).pvalue)


def p_vs_best(values: Mapping, rows: Mapping) -> dict:
    """For each explainer the p of `paired_p` against the one of the highest value; 1 for that one
    itself.

    `values`: explainer -> its score in the table; `rows`: explainer -> per-row scores [n], the same
    rows for all.
    """
    best = max(values, key=values.get)
    return {key: paired_p(rows[key], rows[best]) for key in values}


def bold(p: float | None) -> bool:
    """The paper's bold: not significantly different from the best entry (paired t-test, p >=
    0.05)."""
    return p is not None and p >= SIGNIFICANCE
