"""What can be predicted without a vector and without a model: the floor under Tables 2 and 3."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import pandas as pd

Outcome = tuple[bool, str]  # has-changed, content


def lookup(
    keys: Sequence[Hashable], outcomes: Sequence[Outcome], test_keys: Sequence[Hashable]
) -> list[Outcome]:
    """For each test key the most frequent has-changed of the training rows with that key, and the
    most frequent content with it.

    An unseen key gets those of all training rows; of equally frequent ones the first is taken.
    """
    by_key = defaultdict(list)
    for key, outcome in zip(keys, outcomes, strict=True):
        by_key[key].append(outcome)
    commonest, of_all = {k: _commonest(part) for k, part in by_key.items()}, _commonest(outcomes)
    return [commonest.get(key, of_all) for key in test_keys]


def majority(outcomes: Sequence[Outcome], n_test: int) -> list[Outcome]:
    """The most frequent has-changed, and content with it, for every test row."""
    return lookup([()] * len(outcomes), outcomes, [()] * n_test)


def _commonest(outcomes: Sequence[Outcome]) -> Outcome:
    changed = Counter(changed for changed, _ in outcomes).most_common(1)[0][0]
    return changed, Counter(content for c, content in outcomes if c == changed).most_common(1)[0][0]


def no_effect(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of the same test rows by one who knows what the target says to the input as it
    is, and always says that nothing changes: right wherever nothing does."""
    right = ~predictions["is_different"].astype(bool)
    scored = dict.fromkeys(("exact_match", "content_match", "has_changed"), right)
    return predictions.assign(explainer="no-effect", predicted_changed=False, **scored)


def letter_answers(
    train: Sequence[Outcome], train_features: list[dict], test_features: list[dict], own: list[str]
) -> dict[str, list[Outcome]]:
    """The baselines of Table 3: name -> (changed?, letter without the hint) for each test row.

    `train` holds the outcomes of the training rows; features are {"hint": letter, ...}. Three name
    a letter and take it that the target follows every hint: `hint-letter` (never a change),
    `majority-letter`, and `oracle`, which is told the target's `own` unhinted answers.
    """
    letters = Counter(letter for _, letter in train)
    unchanged = Counter(letter for changed, letter in train if not changed) or letters
    hints = [features["hint"] for features in test_features]
    majority = [letters.most_common(1)[0][0]] * len(hints)
    named = {"hint-letter": hints, "majority-letter": majority, "oracle": own}
    said = {
        name: [(answer != hint, answer) for answer, hint in zip(answers, hints, strict=True)]
        for name, answers in named.items()
    }
    said["unchanged"] = [(False, unchanged.most_common(1)[0][0])] * len(hints)
    return said | {"logistic": logistic(train_features, train, test_features)}


def logistic(
    train_features: list[dict], train: Sequence[Outcome], test_features: list[dict]
) -> list[Outcome]:
    """Two logistic regressions, of has-changed and content, on surface features (one-hot texts,
    numbers up to 1)."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    def predicted(labels: Sequence) -> list:
        if len(set(labels)) == 1:  # nothing to tell apart
            return [labels[0]] * len(test_features)
        features, model = DictVectorizer(sparse=False), LogisticRegression(max_iter=1000)
        fitted = make_pipeline(features, MaxAbsScaler(), model).fit(train_features, labels)
        return fitted.predict(test_features).tolist()

    return list(zip(*map(predicted, zip(*train, strict=True)), strict=True))
