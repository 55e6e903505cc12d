"""Fit the thresholds of the embedding judge to the hand-rated pairs of
introspect_utils/data/judge_pairs.json.

    python scripts/fit_judge.py     # prints the constant THRESHOLDS of
introspect_utils/scores/judge.py, and its error

The pairs are the five of A.2 and others in the words of descriptions; none is a row of a test set.
They were rated by hand, once, before any cosine was computed, by one rule read off A.2's examples:
5 the same tokens in other words, 4 one a part of the other, 3 they overlap or often go together, 2
of one kind but apart (dogs and cats, farm animals), 1 nothing in common.
"""

import numpy as np

from introspect_utils.scores.judge import load_judge, rated_pairs, ratings


def fit(cosines: np.ndarray, rated: np.ndarray) -> list[float]:
    """The four cuts with the least sum of |rating - rated|; `cosines` [n], `rated` [n] in 1..5.

    That sum is the sum over the cuts of the pairs on the wrong side of each, so every cut is found
    on its own: halfway between two neighbouring cosines, and of equally good ones the middle one.
    """
    ordered = np.sort(cosines)
    cuts = (ordered[1:] + ordered[:-1]) / 2
    thresholds = []
    for rating in (2, 3, 4, 5):
        errors = ((cosines >= cuts[:, None]) != (rated >= rating)).sum(1)
        best = cuts[errors == errors.min()]
        thresholds.append(float(best[len(best) // 2]))
    return thresholds


def main() -> None:
    """Fit to all pairs; then, for the error, to all pairs but one, for each in turn."""
    pairs, rated = rated_pairs()
    cosines = load_judge("embedding", device="cpu").cosines(pairs)
    thresholds = [round(threshold, 3) for threshold in fit(cosines, rated)]
    print(f"THRESHOLDS = {tuple(thresholds)}  # from {len(pairs)} pairs")
    others = [np.arange(len(pairs)) != i for i in range(len(pairs))]
    left_out = np.array(
        [ratings(cosines[~rest], fit(cosines[rest], rated[rest]))[0] for rest in others]
    )
    constant = np.array([np.median(rated[rest]) for rest in others])
    for name, rating in (
        ("fitted", ratings(cosines, thresholds)),
        ("leave-one-out", left_out),
        ("constant", constant),
    ):
        error = np.abs(rating - rated)
        shares = f"exact {np.mean(error == 0):.2f}, within one {np.mean(error <= 1):.2f}"
        print(f"{name:14} mean absolute error {error.mean():.2f}, {shares}")


if __name__ == "__main__":
    main()
