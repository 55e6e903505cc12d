"""Scores with their standard errors, intervals and p (section 5.1's metrics, the paired test).

One model for all of them: a score is a mean over n test rows and s training seeds. Its variance is
the cluster-robust variance of the rows' means over seeds, plus the variance of the seeds' means
(none for one seed). t quantiles have Satterthwaite's degrees of freedom of that sum. What one row
of one seed adds enters both terms, so the error is a little large, never small.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from introspect_utils.settings.errors import UserError

UNPARSEABLE = -1  # the code of an answer that says neither "changed" nor "unchanged"
SIGNIFICANCE = 0.05


class Estimate(NamedTuple):
    """A mean with its standard error, its 95% interval, and the two-sided p of a mean of 0; all
    None if there is one cluster of rows, whose spread is unknown."""

    value: float
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def codes(predicted_changed) -> np.ndarray:
    """True / False / missing -> 1 / 0 / UNPARSEABLE, int8 [n]."""
    return pd.array(predicted_changed, dtype="boolean").to_numpy(dtype="int8", na_value=UNPARSEABLE)


def finite(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """`scores` as an array. Raises `UserError` for one that is not a number: no mean, rank or
    smallest p of them exists."""
    scores = np.asarray(scores)
    if not np.isfinite(scores.astype(float)).all():
        raise UserError("a score is not a number: look at the predictions it is made from")
    return scores


def estimate(scores: np.ndarray, clusters: Sequence | None = None) -> Estimate:
    """The mean of per-row `scores` [s, n]: 0/1, correlations, or differences of two such.
    `clusters` [n] says which rows are not independent; by default all are.

    Raises `UserError` for a score that is not a number.
    """
    rows, n = finite(scores).mean(axis=0), scores.shape[1]
    groups = np.arange(n) if clusters is None else pd.factorize(np.asarray(clusters))[0]
    sums = np.bincount(groups, rows - rows.mean())
    by_row = float(sums @ sums) / n**2 * len(sums) / max(1, len(sums) - 1)
    return _over_rows_and_seeds(float(rows.mean()), by_row, len(sums), scores.mean(axis=1))


def pooled(scores: Sequence[tuple[float, float]], n: int) -> Estimate:
    """The mean of a score of n rows from the (mean, standard error) that each of s seeds reports,
    where the rows' own scores are not kept: as if the seeds agreed about every row."""
    values, errors = finite(scores).astype(float).T
    return _over_rows_and_seeds(float(values.mean()), float((errors**2).mean()), n, values)


def _over_rows_and_seeds(value: float, by_row: float, groups: int, seeds: np.ndarray) -> Estimate:
    """The estimate from the variance over `groups` clusters of rows and the means of the seeds."""
    from scipy.special import stdtr, stdtrit

    if groups < 2:
        return Estimate(value)
    by_seed = float(seeds.var(ddof=1)) / len(seeds) if len(seeds) > 1 else 0.0
    stderr = float(np.sqrt(by_row + by_seed))
    if not stderr:  # the same in every row: t is 0/0 or infinite
        return Estimate(value, 0.0, value, value, float(value == 0))
    parts = by_row**2 / (groups - 1) + by_seed**2 / max(1, len(seeds) - 1)
    df = stderr**4 / parts
    half = stdtrit(df, 1 - SIGNIFICANCE / 2) * stderr  # Student's t
    p = float(2 * stdtr(df, -abs(value) / stderr))
    return Estimate(value, stderr, float(value - half), float(value + half), p)


def f1_rows(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Per-row scores [s, n] whose mean is has-changed macro-F1 and whose spread is that of macro-F1
    (its linearisation: value plus influence of each row), from codes [n] and [s, n].

    F1 of a class = 2 hits / (rows of the class + rows predicted as it), 0 if both are 0, as in
    scikit-learn. An unparseable prediction is wrong for its row's class, and never dropped.
    """
    scores = np.zeros(predicted.shape)
    for label in (0, 1):
        is_it, said = truth == label, predicted == label
        hits, size = 2 * (is_it & said), is_it.astype(int) + said
        total = np.maximum(size.sum(axis=1, keepdims=True), 1)
        f1 = hits.sum(axis=1, keepdims=True) / total
        scores += (f1 + (hits - f1 * size) * len(truth) / total) / 2
    return scores


def summed(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Per-row scores [s, n1 + n2 + ...] whose mean is the sum of the means of `parts` [s, n_i],
    which are of different rows, and whose spread is that of the sum."""
    n, total = sum(part.shape[1] for part in parts), sum(part.mean() for part in parts)
    return np.hstack([(part - part.mean()) * n / part.shape[1] for part in parts]) + total


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Per-row scores [s, n] whose mean is mean(a) / mean(b), of the same rows, and whose spread is
    that of the ratio (delta method). Raises `UserError` where mean(b) is not above 0."""
    if not finite(b).mean() > 0:
        raise UserError("a share of a mean score that is not above 0 does not exist: leave it out")
    share = finite(a).mean() / b.mean()
    return share + (a - share * b) / b.mean()


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float] | None:
    """Spearman's rho and its two-sided p by permutation (exact up to 7 pairs); None if all x or all
    y are equal. `x` is rounded to three places: float error is no rank. Raises `UserError` for a
    value that is not a number."""
    from scipy.stats import permutation_test, rankdata

    ranks = [rankdata(values) - (len(x) + 1) / 2 for values in (finite(x).round(3), finite(y))]
    if not all(part.any() for part in ranks):
        return None
    a, b = (part / np.linalg.norm(part) for part in ranks)
    how = {"permutation_type": "pairings", "vectorized": True, "rng": 0}
    test = permutation_test((a,), lambda a, axis: (a * b).sum(axis=axis), **how)
    return float(test.statistic), float(test.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of the p of several tests of one comparison. (That of statsmodels takes
    0.1 s a call: it collects garbage.)"""
    order = np.argsort(finite(p))
    adjusted = np.empty(len(p))
    steps = np.arange(len(p), 0, -1) * np.asarray(p, dtype=float)[order]
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted.tolist()


def wilson(hits: int, n: int) -> tuple[float, float, float]:
    """(share, low, high): Wilson's 95% interval of a share, which stays within 0 and 1."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return hits / n, float(interval.low), float(interval.high)


def bold(p: float | None) -> bool:
    """The paper's bold: not significantly different from the best entry. Without a p (one training
    seed) nothing is bold."""
    return p is not None and p >= SIGNIFICANCE
