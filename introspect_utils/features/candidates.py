"""Candidate descriptions of directions, written offline from their exemplars: plain phrases like
Neuronpedia's, best first.

Behind each phrase stands a rule: a predicate over the tokens of the corpus. Rules are proposed from
the most active tokens and scored on all exemplars by eq. 2 with the predicate (0 or 1) for the
simulated activation. That ranks them beforehand; the trained simulator has the last word.
"""

import re
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from tqdm import tqdm

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.features.lexicon import UNREADABLE, inflections, mark_name
from introspect_utils.features.words import AFFIXES, NONE, Words

# of the way from the mean to the peak: rules are proposed from the tokens of the top exemplars
# above that
ACTIVE = 0.5
PARTS = 8  # best rules that are put together, in twos, to others
SETS = 6  # best words that are put together to sets of two and three
MAX_WORDS = 12  # of a description
SAME = 0.95  # overlap of the tokens of two rules from which on they say the same
OF_KIND = 2  # candidates of one kind at most
WORST = 0.5  # of what the best one is worth: what is worth less is no candidate
# What a kind of rule loses on the scoring half of the exemplars beyond what the simplest lose: the
# more rules of a kind there are to choose from, the easier one fits by chance. Measured on SmolLM2
# with four top and two random exemplars in either half.
COST = {
    "class": 0.0,
    "mark": 0.0,
    "shape": 0.0,
    "part": 0.0,
    "place": 0.0,
    "word": 0.0,
    "forms": 0.02,
    "piece": 0.02,
    "category": 0.02,
    "capitalised": 0.04,
    "neighbour class": 0.05,
    "both": 0.05,
    "union": 0.05,
    "affix": 0.06,
    "phrase": 0.06,
    "set of 2": 0.1,
    "neighbour": 0.14,
    "set of 3": 0.17,
}
JOINED = {
    "class",
    "mark",
    "part",
    "category",
    "word",
    "forms",
    "piece",
}  # rules that a union may join
NARROWED = {"class", "shape", "part", "category"}  # rules that a neighbour may narrow


@dataclass(frozen=True)
class Candidate:
    """A candidate description E; `score` is that of the rule behind it: the mean correlation over
    the describing exemplars."""

    text: str
    score: float


class _Rules:
    """Rules for one direction: their texts and kinds, how many words they hold of, where they hold
    [R, k, T], their scores.

    `worth` [R] ranks them: the mean of the score (every exemplar counts the same) and of the
    correlation over all tokens of the exemplars at once (the peaks count most), less the cost of
    the kind.
    """

    def __init__(self, view: "_View"):
        self.view = view
        self.texts: list[str] = []
        self.kinds: list[str] = []
        self.breadths: list[int] = []
        self.holds = np.zeros((0, *view.z.shape), dtype=bool)
        self.scores, self.worth = np.zeros(0), np.zeros(0)

    def add(self, rules: list[tuple[str, str, int, np.ndarray]]) -> None:
        """Add (text, kind, breadth, holds [k, T]) and score them.

        A rule about words may hold on all tokens of a word, on its last or on its first only: the
        best of these is kept.
        """
        if not rules:
            return
        texts, kinds, breadths, holds = zip(*rules, strict=True)
        readings = np.stack(holds) & self.view.readings[:, None]  # [3, R, k, T]
        scores = np.stack([_scores(reading, self.view.z) for reading in readings])
        best, rows = scores.round(6).argmax(0), np.arange(len(rules))  # of equals the first
        holds, scores = readings[best, rows], scores[best, rows]
        peaks = _scores(holds.reshape(len(rows), 1, -1), self.view.pooled)
        worth = (scores + peaks) / 2 - [COST[kind] for kind in kinds]
        self.texts += texts
        self.kinds += kinds
        self.breadths += breadths
        self.holds = np.concatenate([self.holds, holds])
        self.scores, self.worth = (
            np.append(self.scores, scores),
            np.append(self.worth, worth.round(6)),
        )

    def ranking(self, kinds: Container[str] = COST) -> list[int]:
        """The numbers of the rules of some kinds, best first; of equals the one that holds of fewer
        words (the longer affix)."""
        rows = [row for row, kind in enumerate(self.kinds) if kind in kinds]
        return sorted(rows, key=lambda row: (-self.worth[row], self.breadths[row]))

    def choose(self, n: int) -> list[Candidate]:
        """The best n that differ: in their text, in where they hold, and not all of one kind."""
        chosen: list[int] = []
        for row in self.ranking():
            of_kind = sum(self.kinds[row] == self.kinds[other] for other in chosen)
            worse = chosen and self.worth[row] < WORST * self.worth[chosen[0]]
            if of_kind == OF_KIND or worse or len(self.texts[row].split()) > MAX_WORDS:
                continue
            if not any(
                self.texts[row] == self.texts[other] or _overlap(*self.holds[[row, other]]) > SAME
                for other in chosen
            ):
                chosen.append(row)
        return [Candidate(self.texts[row], float(self.scores[row])) for row in chosen[:n]]


class _View:
    """The exemplars of one direction as the rules see them: every array [k, T].

    `z`: activations, standardised within each exemplar; `pooled` [1, k * T]: over all of them;
    `active`: the tokens that rules are proposed from; `readings` [3, k, T]: all tokens, the last
    ones of a word, the first ones; the others as in `Words`.
    """

    def __init__(
        self,
        words: Words,
        sequences: np.ndarray,
        activations: np.ndarray,
        n_top: int,
        mean: float,
        peak: float,
    ):
        self.words, self.sequences = words, sequences
        self.z, self.pooled = _standardised(activations), _standardised(activations.reshape(1, -1))
        top = activations[:n_top]
        self.active = np.zeros(self.z.shape, dtype=bool)
        self.active[:n_top] = (top - mean >= ACTIVE * (peak - mean)) | (
            top == top.max(1, keepdims=True)
        )
        self.word, self.before, self.after = (
            words.word[sequences],
            words.before[sequences],
            words.after[sequences],
        )
        self.first, self.last = words.first[sequences], words.last[sequences]
        self.lower = words.lower[self.word]
        self.readings = np.stack([np.ones_like(self.last), self.last, self.first])

    def values(self, array: np.ndarray, at_least: int, of: np.ndarray | None = None) -> list[int]:
        """The values of `array` [k, T] at active tokens that go with at least so many different
        words (or values of `of`)."""
        values, others = array[self.active], (self.lower if of is None else of)[self.active]
        pairs = {
            (value, other)
            for value, other in zip(values.tolist(), others.tolist(), strict=True)
            if value != NONE
        }
        return [value for value, n in Counter(value for value, _ in pairs).items() if n >= at_least]

    def classes(self, member: np.ndarray, at_least: int, of: np.ndarray) -> np.ndarray:
        """The columns of `member` [k, T, C] that hold at active tokens with at least so many
        different values of `of`."""
        _, inverse = np.unique(of[self.active], return_inverse=True)
        different = np.eye(inverse.max() + 1, dtype=np.float32)[inverse]  # [active, values]
        return np.flatnonzero(
            ((member[self.active].T.astype(np.float32) @ different) > 0).sum(1) >= at_least
        )


def candidates(words: Words, exemplars: Exemplars, n: int) -> list[list[Candidate]]:
    """Up to `n` candidate descriptions of every direction, best first, with different texts.

    `exemplars` are those that a description is written from (`Exemplars.describing`), of the corpus
    that `words` is of.
    """
    sequences, activations = (
        exemplars.sequences.cpu().numpy(),
        exemplars.activations.float().cpu().numpy(),
    )
    of_each = zip(
        sequences, activations, exemplars.mean.tolist(), exemplars.peak.tolist(), strict=True
    )
    views = (_View(words, of_v, a, exemplars.n_top, mean, peak) for of_v, a, mean, peak in of_each)
    return [
        _rules(view).choose(n)
        for view in tqdm(views, "descriptions", len(sequences), mininterval=10, unit="direction")
    ]


def _rules(view: _View) -> _Rules:
    rules = _Rules(view)
    rules.add(
        [*_word_rules(view), *_class_rules(view), *_affix_rules(view), *_neighbour_rules(view)]
    )
    rules.add([*_sets(rules), *_unions(rules), *_narrowed(rules)])
    return rules


def _standardised(activations: np.ndarray) -> np.ndarray:
    """[k, T] with mean 0 and norm 1 in every row; a constant row is 0."""
    centred = activations - activations.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    constant = norm <= 1e-6 * np.abs(activations).max(1, keepdims=True)
    return np.where(constant, 0, centred / np.where(constant, 1, norm))


def _scores(holds: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Eq. 2 for predicates [R, k, T]: the mean over exemplars of their correlation with `z` [k, T];
    0 where one is constant."""
    p = holds.astype(np.float32)
    n = p.sum(2)
    spread = n - n**2 / z.shape[1]
    product = np.einsum("rkt,kt->rk", p, z.astype(np.float32))
    return np.where(spread > 0, product / np.sqrt(np.where(spread > 0, spread, 1)), 0).mean(1)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The share of tokens where both hold of those where one does."""
    return (a & b).sum() / max(1, (a | b).sum())


def _quoted(words: Words, lower: int) -> str:
    """A word as a phrase quotes it; a punctuation mark by its name."""
    shown = words.shown[lower]
    return (
        mark_name(shown) if words.is_mark[lower] else f'"{shown}"' if "'" in shown else f"'{shown}'"
    )


def _named(words: Words, lower: int) -> str:
    """A word as what a direction stands for."""
    if words.is_mark[lower]:
        return mark_name(words.shown[lower])
    what = (
        "number"
        if words.is_digits[lower]
        else "ending"
        if words.text[lower].startswith("'")
        else "word"
    )
    return f"the {what} {_quoted(words, lower)}"


def _word_rules(view: _View) -> Iterator[tuple]:
    """The same word, however written; its inflected forms; a capitalised form; a piece of split
    words; a digit."""
    words, lower = view.words, view.lower
    for value in view.values(lower, 1):
        if UNREADABLE not in words.text[value]:
            yield _named(words, value), "word", 1, lower == value
    lemmas = words.lemma[view.word]
    for value in view.values(lemmas, 2):
        if not words.text[value].isalpha():
            continue
        what = "verb" if "verbs" in inflections(words.text[value]) else "word"
        yield f"forms of the {what} '{words.text[value]}'", "forms", 2, lemmas == value
    for value in view.values(view.word, 1):
        text = words.text[value]
        if (
            words.is_capital[value]
            and text[1:].islower()
            and words.shown[int(words.lower[value])] != text
        ):
            yield f"the capitalised word '{text}'", "capitalised", 1, view.word == value
    piece, split = words.piece[view.sequences], ~(view.first & view.last)
    for value in view.values(np.where(split, piece, NONE), 1, of=view.word):
        text = words.text[value]
        what = "digit" if text.isdigit() else "word fragment"
        if text.strip() and UNREADABLE not in text:
            yield f"the {what} '{text}'", "piece", 1, split & (piece == value)


def _class_rules(view: _View) -> Iterator[tuple]:
    """Classes of words (function words, WordNet categories, parts of speech, shapes, marks), and
    places in the text."""
    words = view.words
    member = words.member[view.word]
    for c in view.classes(member, 2, view.lower):
        yield words.class_names[c], words.class_kinds[c], int(words.breadth[c]), member[..., c]
    flags = words.flags[view.sequences]
    for f, name in enumerate(words.flag_names):
        if words.flag_kinds[f] == "place" or len(set(view.word[view.active & flags[..., f]])) > 1:
            yield name, words.flag_kinds[f], 0, flags[..., f]


def _affix_rules(view: _View) -> Iterator[tuple]:
    words = view.words
    for table, text in (
        (words.prefix, "words beginning with '{}-'"),
        (words.suffix, "words ending in '-{}'"),
    ):
        for column, n in enumerate(AFFIXES):
            affix = table[view.word, column]
            for value in view.values(affix, 4 if n == 1 else 3):
                yield text.format(words.text[value]), "affix", -n, affix == value


def _neighbour_rules(view: _View) -> Iterator[tuple]:
    """The word before or after, or its class; and a word behind or before a certain other one."""
    words = view.words
    for side, neighbours in (("after", view.before), ("before", view.after)):
        lower = words.lower[neighbours]
        for value in view.values(lower, 2):
            yield f"words that come {side} {_quoted(words, value)}", "neighbour", 0, lower == value
        member = words.member[neighbours]
        for c in set(view.classes(member, 2, view.lower)) & set(view.classes(member, 2, lower)):
            yield (
                f"words that come {side} {words.class_names[c]}",
                "neighbour class",
                int(words.breadth[c]),
                member[..., c],
            )
        pairs = Counter(
            zip(view.lower[view.active].tolist(), lower[view.active].tolist(), strict=True)
        )
        for (own, other), times in pairs.items():
            if times >= 2 and other != NONE:
                holds = (view.lower == own) & (lower == other)
                yield f"{_named(words, own)} {side} {_quoted(words, other)}", "phrase", 0, holds


def _sets(rules: _Rules) -> Iterator[tuple]:
    """Two or three of the best words. (Different words that are active once each are not what a
    direction stands for.)"""
    best = [row for row in rules.ranking({"word"}) if rules.texts[row].startswith("the word ")][
        :SETS
    ]
    for size in (2, 3):
        for rows in combinations(best, size):
            quoted = sorted(rules.texts[row].removeprefix("the word ") for row in rows)
            holds = rules.holds[list(rows)].any(0)
            if (holds & rules.view.active).sum() > size:
                yield (
                    f"the words {', '.join(quoted[:-1])} and {quoted[-1]}",
                    f"set of {size}",
                    size,
                    holds,
                )


def _unions(rules: _Rules) -> Iterator[tuple]:
    """Two of the best rules about words, each with active tokens of its own."""
    for a, b in combinations(rules.ranking(JOINED)[:PARTS], 2):
        in_a, in_b = rules.holds[[a, b]]
        texts = sorted(
            (rules.texts[a], rules.texts[b]), key=lambda text: (text.startswith("the "), text)
        )
        if texts[0] in texts[1] or all(
            text.startswith("the word ") for text in texts
        ):  # said by one; a set
            continue
        if (
            min((rules.view.active & in_a & ~in_b).sum(), (rules.view.active & in_b & ~in_a).sum())
            > 1
        ):
            text = " and ".join(texts).replace(" and the digit ", " and ")
            yield (
                re.sub(r"^the digit ('\d' and '\d')$", r"the digits \1", text),
                "union",
                0,
                in_a | in_b,
            )


def _narrowed(rules: _Rules) -> Iterator[tuple]:
    """A class of words behind or before certain others: "verbs that come after 'to'"."""
    neighbours = rules.ranking({"neighbour", "neighbour class"})[:PARTS]
    for row in rules.ranking(NARROWED)[:PARTS]:
        for neighbour in neighbours:
            text = f"{rules.texts[row]} {rules.texts[neighbour].removeprefix('words ')}"
            yield text, "both", 0, rules.holds[row] & rules.holds[neighbour]
