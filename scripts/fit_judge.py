"""Fit the thresholds of the embedding judge to the hand-rated pairs of data/judge_pairs.json.

    python scripts/fit_judge.py     # prints THRESHOLDS of introspect_utils/scores/judge.py, and its error

The cuts are those under which each rating is given as often as by hand. So all five occur, and the
mean is that of the hand ratings (cuts of the least absolute error leave out 2, which cosines do not
tell from 3).

Of the pairs none is a row of a test set. 107 are the five of A.2 and others in the words of
descriptions; 120 are labels of training directions of the profile small, drawn at random for each
of six ranges of the cosine and shuffled. All were rated once by one reader, an AI assistant, who saw
the texts and no cosines, by one rule read off A.2's examples: 5 the same tokens in other words, 4
one a part of the other, 3 they overlap or often go together, 2 of one kind but apart (dogs and cats,
farm animals), 1 nothing in common.
"""

import json

import numpy as np

from introspect_utils.scores.judge import load_judge, ratings
from introspect_utils.settings.paths import REPO

PAIRS = REPO / "introspect_utils" / "data" / "judge_pairs.json"


def rated_pairs() -> tuple[list[tuple[str, str]], np.ndarray]:
    """The pairs (predicted, expected) and their ratings 1..5 [n]."""
    rows = json.loads(PAIRS.read_text("utf-8"))
    pairs = [(row["predicted"], row["expected"]) for row in rows]
    return pairs, np.array([row["rating"] for row in rows])


def fit(cosines: np.ndarray, rated: np.ndarray) -> list[float]:
    """The four cuts of `cosines` [n] under which each rating occurs as often as in `rated` [n]."""
    ordered, below = np.sort(cosines), [(rated < rating).sum() for rating in (2, 3, 4, 5)]
    return [float(ordered[n - 1] + ordered[n]) / 2 for n in below]


def main() -> None:
    """Fit to all pairs; then, for the error, to all pairs but one, for each in turn."""
    pairs, rated = rated_pairs()
    cosines = load_judge("embedding", device="cpu").cosines(pairs)
    thresholds = [round(threshold, 3) for threshold in fit(cosines, rated)]
    print(f"THRESHOLDS = {tuple(thresholds)}  # from {len(pairs)} pairs")
    others = [np.arange(len(pairs)) != i for i in range(len(pairs))]
    left_out = [ratings(cosines[~rest], fit(cosines[rest], rated[rest]))[0] for rest in others]
    constant = np.array([np.median(rated[rest]) for rest in others])
    for name, rating in (
        ("fitted", ratings(cosines, thresholds)),
        ("leave-one-out", np.array(left_out)),
        ("constant", constant),
    ):
        error = np.abs(rating - rated)
        shares = f"exact {np.mean(error == 0):.2f}, within one {np.mean(error <= 1):.2f}"
        print(f"{name:14} mean absolute error {error.mean():.2f}, {shares}")


if __name__ == "__main__":
    main()
