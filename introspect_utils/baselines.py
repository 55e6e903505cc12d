"""What can be predicted without a vector and without a model: the floor under Table 2."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

UNSEEN = object()


def lookup(keys: Sequence[Hashable], outcomes: Sequence[tuple[bool, str]], test_keys: Sequence[Hashable]) -> list[tuple[bool, str]]:
    """For each test key the most frequent has-changed of the training rows with that key, and the most frequent content with it.

    An unseen key gets the most frequent outcome of all training rows; equal counts go to what came first.
    """
    by_key = defaultdict(list)
    for key, outcome in zip(keys, outcomes, strict=True):
        by_key[key].append(outcome)
    commonest = {key: _commonest(of_key) for key, of_key in by_key.items()} | {UNSEEN: _commonest(outcomes)}
    return [commonest.get(key, commonest[UNSEEN]) for key in test_keys]


def majority(outcomes: Sequence[tuple[bool, str]], n_test: int) -> list[tuple[bool, str]]:
    """The most frequent has-changed, and the most frequent content with it, for every test row."""
    return lookup([()] * len(outcomes), outcomes, [()] * n_test)


def _commonest(outcomes: Sequence[tuple[bool, str]]) -> tuple[bool, str]:
    changed = Counter(changed for changed, _ in outcomes).most_common(1)[0][0]
    return changed, Counter(content for c, content in outcomes if c == changed).most_common(1)[0][0]
