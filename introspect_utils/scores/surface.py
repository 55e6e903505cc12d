"""What can be predicted without a vector and without a model: the floor under Tables 2 and 3."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

UNSEEN = object()


def lookup(
    keys: Sequence[Hashable], outcomes: Sequence[tuple[bool, str]], test_keys: Sequence[Hashable]
) -> list[tuple[bool, str]]:
    """For each test key the most frequent has-changed of the training rows with that key, and the
    most frequent content with it.

    An unseen key gets the most frequent outcome of all training rows; equal counts go to what came
    first.
    """
    by_key = defaultdict(list)
    for key, outcome in zip(keys, outcomes, strict=True):
        by_key[key].append(outcome)
    commonest = {key: _commonest(of_key) for key, of_key in by_key.items()} | {
        UNSEEN: _commonest(outcomes)
    }
    return [commonest.get(key, commonest[UNSEEN]) for key in test_keys]


def majority(outcomes: Sequence[tuple[bool, str]], n_test: int) -> list[tuple[bool, str]]:
    """The most frequent has-changed, and the most frequent content with it, for every test row."""
    return lookup([()] * len(outcomes), outcomes, [()] * n_test)


def _commonest(outcomes: Sequence[tuple[bool, str]]) -> tuple[bool, str]:
    changed = Counter(changed for changed, _ in outcomes).most_common(1)[0][0]
    return changed, Counter(content for c, content in outcomes if c == changed).most_common(1)[0][0]


def letter_answers(
    train: Sequence[tuple[bool, str]],
    train_features: Sequence[dict],
    test_features: Sequence[dict],
    own: Sequence[str],
) -> dict[str, list[tuple[bool, str]]]:
    """The baselines of Table 3: name -> (changed?, letter without the hint) for each test row.

    `train` holds the outcomes of the training rows; features are {"hint": letter, ...}. Three of
    them name a letter and take it that the target follows every hint, so that a change is said
    where the hint is another letter: `hint-letter` (never a change), `majority-letter`, and
    `oracle`, which is told the target's `own` unhinted answers: what knowing them is worth.
    """
    letters = Counter(letter for _, letter in train)
    unchanged = Counter(letter for changed, letter in train if not changed) or letters
    hints = [features["hint"] for features in test_features]
    named = {
        "hint-letter": hints,
        "majority-letter": [letters.most_common(1)[0][0]] * len(hints),
        "oracle": own,
    }
    return {
        "unchanged": [(False, unchanged.most_common(1)[0][0])] * len(hints),
        **{
            name: [(a != h, a) for a, h in zip(answers, hints, strict=True)]
            for name, answers in named.items()
        },
        "logistic": logistic(train_features, train, test_features),
    }


def logistic(
    train_features: Sequence[dict], train: Sequence[tuple[bool, str]], test_features: Sequence[dict]
) -> list[tuple[bool, str]]:
    """Two logistic regressions, of has-changed and of the content, on surface features (text:
    one-hot, numbers: up to 1)."""
    changed, letters = (
        _fit_predict(train_features, labels, test_features) for labels in zip(*train, strict=True)
    )
    return list(zip(changed, letters, strict=True))


def _fit_predict(
    train_features: Sequence[dict], labels: Sequence, test_features: Sequence[dict]
) -> list:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    if len(set(labels)) == 1:  # nothing to tell apart
        return [labels[0]] * len(test_features)
    model = make_pipeline(
        DictVectorizer(sparse=False), MaxAbsScaler(), LogisticRegression(max_iter=1000)
    )
    return model.fit(train_features, labels).predict(test_features).tolist()
