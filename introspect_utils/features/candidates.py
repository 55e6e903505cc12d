"""Candidate descriptions of directions, written offline from their exemplars: plain phrases like
Neuronpedia's.

Behind each phrase stands a rule, a predicate over the tokens of the corpus. Rules are proposed from
the most active tokens and scored by eq. 2 with the predicate (0 or 1) in place of the simulated
activation. The trained simulator then chooses among the best.
"""

import re
from collections import Counter
from collections.abc import Container, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.features.lexicon import COST, UNREADABLE, inflections, mark_name
from introspect_utils.features.words import AFFIXES, NONE, Words

ACTIVE = 0.5  # active tokens of top exemplars are above this share of the way from mean to peak
PARTS = 8  # best rules that are joined in twos
SETS = 6  # best words that are joined to sets of two and three
MAX_WORDS = 12  # of a description
SAME = 0.95  # overlap of the tokens of two rules from which on they say the same
OF_KIND = 2  # candidates of one kind at most
WORST = 0.5  # share of the best rule's worth below which a rule is no candidate
JOINED = {"class", "mark", "part", "category", "word", "forms", "piece"}  # may be in a union
NARROWED = {"class", "shape", "part", "category"}  # may be narrowed by a neighbour
Rule = tuple[str, str, int, np.ndarray]  # text, kind, number of words it is about, holds [k, T]


class Candidate(NamedTuple):
    """A candidate description E with the score of its rule: the mean correlation over exemplars."""

    text: str
    score: float


class _Rules:
    """What the rules for one direction see of its exemplars, and the rules proposed so far.

    Arrays [k, T]: `z`, the activations standardised within each exemplar; `active`, the tokens that
    rules are proposed from; the words and their places as in `Words`. `pooled` [1, k * T]: the
    activations standardised over all exemplars. `readings` [3, k, T]: all tokens, the last ones of
    a word, the first ones.
    For each rule: `texts`, `kinds`, `breadths`, `holds` [R, k, T], `scores` [R] and `worth` [R],
    which ranks them: the mean of the score (each exemplar counts the same) and of the correlation
    over all tokens at once (the peaks count most), less the cost of the kind.
    """

    def __init__(self, words: Words, exemplars: Exemplars, row: int):
        self.words, self.sequences = words, exemplars.sequences[row].cpu().numpy()
        activations = exemplars.activations[row].float().cpu().numpy()
        mean, peak = exemplars.mean[row].item(), exemplars.peak[row].item()
        self.z, self.pooled = _standardised(activations), _standardised(activations.reshape(1, -1))
        top = activations[: exemplars.n_top]
        highest = top == top.max(1, keepdims=True)
        self.active = np.zeros(self.z.shape, dtype=bool)
        self.active[: len(top)] = (top - mean >= ACTIVE * (peak - mean)) | highest
        at = self.sequences
        self.word, self.before, self.after = words.word[at], words.before[at], words.after[at]
        self.first, self.last = words.first[at], words.last[at]
        self.lower = words.lower[self.word]
        self.readings = np.stack([np.ones_like(self.last), self.last, self.first])
        self.texts, self.kinds, self.breadths = [], [], []
        self.holds = np.zeros((0, *self.z.shape), dtype=bool)
        self.scores, self.worth = np.zeros(0), np.zeros(0)
        self._add([*_words(self), *_classes(self), *_affixes(self), *_neighbours(self)])
        self._add([*_sets(self), *_unions(self), *_narrowed(self)])

    def _add(self, rules: list[Rule]) -> None:
        """Score rules and keep them, each in the best of its readings: a direction may be active on
        all tokens of a word, or on its last or first only."""
        if not rules:
            return
        texts, kinds, breadths, holds = zip(*rules, strict=True)
        readings = np.stack(holds) & self.readings[:, None]  # [3, R, k, T]
        scores = np.stack([_scores(reading, self.z) for reading in readings])
        best, rows = scores.round(6).argmax(0), np.arange(len(rules))  # of equal ones the first
        holds, scores = readings[best, rows], scores[best, rows]
        peaks = _scores(holds.reshape(len(rows), 1, -1), self.pooled)
        worth = ((scores + peaks) / 2 - [COST[kind] for kind in kinds]).round(6)
        self.texts += texts
        self.kinds += kinds
        self.breadths += breadths
        self.holds = np.concatenate([self.holds, holds])
        self.scores, self.worth = np.append(self.scores, scores), np.append(self.worth, worth)

    def ranking(self, kinds: Container[str] = COST) -> list[int]:
        """The rules of some kinds, best first; of equal ones the one about fewer words."""
        rows = [row for row, kind in enumerate(self.kinds) if kind in kinds]
        return sorted(rows, key=lambda row: (-self.worth[row], self.breadths[row]))

    def best(self, n: int) -> list[Candidate]:
        """The best n that differ in their text and in where they hold, few of one kind."""
        chosen: list[int] = []
        for row in self.ranking():
            of_kind = sum(self.kinds[row] == self.kinds[other] for other in chosen)
            worse = chosen and self.worth[row] < WORST * self.worth[chosen[0]]
            if of_kind == OF_KIND or worse or len(self.texts[row].split()) > MAX_WORDS:
                continue
            holds, others = self.holds[row], self.holds[chosen]
            overlap = (holds & others).sum((1, 2)) / (holds | others).sum((1, 2)).clip(1)
            texts = [self.texts[other] for other in chosen]
            if self.texts[row] not in texts and not (overlap > SAME).any():
                chosen.append(row)
        return [Candidate(self.texts[row], float(self.scores[row])) for row in chosen[:n]]

    def values(self, array: np.ndarray, at_least: int, of: np.ndarray | None = None) -> list[int]:
        """The values of `array` [k, T] at active tokens that go with at least so many different
        words (or values of `of`)."""
        others = self.lower if of is None else of
        pairs = zip(array[self.active].tolist(), others[self.active].tolist(), strict=True)
        counts = Counter(value for value, _ in set(pairs) if value != NONE)
        return [value for value, n in counts.items() if n >= at_least]

    def classes(self, member: np.ndarray, of: np.ndarray) -> np.ndarray:
        """The columns of `member` [k, T, C] that hold at active tokens with at least two
        different values of `of`."""
        _, inverse = np.unique(of[self.active], return_inverse=True)
        values = np.eye(inverse.max() + 1, dtype=np.float32)[inverse]  # [active, values], one-hot
        counts = ((member[self.active].T.astype(np.float32) @ values) > 0).sum(1)
        return np.flatnonzero(counts >= 2)

    def quoted(self, lower: int) -> str:
        """A word as a phrase quotes it; a punctuation mark by its name."""
        shown = self.words.shown[lower]
        if self.words.is_mark[lower]:
            return mark_name(shown)
        return f'"{shown}"' if "'" in shown else f"'{shown}'"

    def named(self, lower: int) -> str:
        """A word as what a direction stands for: "the word 'of'", "commas"."""
        if self.words.is_mark[lower]:
            return self.quoted(lower)
        ending = "ending" if self.words.text[lower].startswith("'") else "word"
        return f"the {'number' if self.words.is_digits[lower] else ending} {self.quoted(lower)}"


def candidates(words: Words, exemplars: Exemplars, n: int) -> list[list[Candidate]]:
    """Up to `n` different candidate descriptions of every direction, best first, from the exemplars
    that a description is written from (`Exemplars.describing`), in the corpus of `words`."""
    rows = tqdm(range(len(exemplars)), "descriptions", mininterval=10, unit="direction")
    return [_Rules(words, exemplars, row).best(n) for row in rows]


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


def _words(rules: _Rules) -> Iterator[Rule]:
    """A word, however written; its inflected forms; a capitalised form; a piece of split words."""
    words, lower = rules.words, rules.lower
    for value in rules.values(lower, 1):
        if UNREADABLE not in words.text[value]:
            yield rules.named(value), "word", 1, lower == value
    lemmas = words.lemma[rules.word]
    for value in rules.values(lemmas, 2):
        text = words.text[value]
        if text.isalpha():
            what = "verb" if "verbs" in inflections(text) else "word"
            yield f"forms of the {what} '{text}'", "forms", 2, lemmas == value
    for value in rules.values(rules.word, 1):
        text, shown = words.text[value], words.shown[int(words.lower[value])]
        if words.is_capital[value] and text[1:].islower() and shown != text:
            yield f"the capitalised word '{text}'", "capitalised", 1, rules.word == value
    piece, split = words.piece[rules.sequences], ~(rules.first & rules.last)
    for value in rules.values(np.where(split, piece, NONE), 1, of=rules.word):
        text = words.text[value]
        if text.strip() and UNREADABLE not in text:
            what = "digit" if text.isdigit() else "word fragment"
            yield f"the {what} '{text}'", "piece", 1, split & (piece == value)


def _classes(rules: _Rules) -> Iterator[Rule]:
    """Classes of words (function words, WordNet's, parts of speech, shapes, marks), and places."""
    words = rules.words
    member, flags = words.member[rules.word], words.flags[rules.sequences]
    for c in rules.classes(member, rules.lower):
        yield words.class_names[c], words.class_kinds[c], int(words.breadth[c]), member[..., c]
    for f, kind in enumerate(words.flag_kinds):
        holds = flags[..., f]
        if kind == "place" or len(set(rules.word[rules.active & holds])) > 1:
            yield words.flag_names[f], kind, 0, holds


def _affixes(rules: _Rules) -> Iterator[Rule]:
    words = rules.words
    prefixes = words.prefix, "words beginning with '{}-'"
    for table, text in (prefixes, (words.suffix, "words ending in '-{}'")):
        for column, n in enumerate(AFFIXES):
            affix = table[rules.word, column]
            for value in rules.values(affix, 4 if n == 1 else 3):
                yield text.format(words.text[value]), "affix", -n, affix == value


def _neighbours(rules: _Rules) -> Iterator[Rule]:
    """The word before or after, or its class; and a word behind or before a certain other one."""
    words = rules.words
    for side, neighbours in (("after", rules.before), ("before", rules.after)):
        lower, start = words.lower[neighbours], f"words that come {side} "
        for value in rules.values(lower, 2):
            yield start + rules.quoted(value), "neighbour", 0, lower == value
        member = words.member[neighbours]
        for c in set(rules.classes(member, rules.lower)) & set(rules.classes(member, lower)):
            text, breadth = start + words.class_names[c], int(words.breadth[c])
            yield text, "neighbour class", breadth, member[..., c]
        active = rules.lower[rules.active].tolist(), lower[rules.active].tolist()
        for (word, other), times in Counter(zip(*active, strict=True)).items():
            if times >= 2 and other != NONE:
                holds = (rules.lower == word) & (lower == other)
                yield f"{rules.named(word)} {side} {rules.quoted(other)}", "phrase", 0, holds


def _sets(rules: _Rules) -> Iterator[Rule]:
    """Two or three of the best words, unless each is active only once."""
    start = "the word "
    best = [row for row in rules.ranking({"word"}) if rules.texts[row].startswith(start)][:SETS]
    for size in (2, 3):
        for rows in combinations(best, size):
            quoted = sorted(rules.texts[row].removeprefix(start) for row in rows)
            holds = rules.holds[list(rows)].any(0)
            if (holds & rules.active).sum() > size:
                text = f"the words {', '.join(quoted[:-1])} and {quoted[-1]}"
                yield text, f"set of {size}", size, holds


def _unions(rules: _Rules) -> Iterator[Rule]:
    """Two of the best rules about words, each with active tokens that are not the other's."""
    for pair in combinations(rules.ranking(JOINED)[:PARTS], 2):
        a, b = rules.holds[list(pair)]
        texts = [rules.texts[row] for row in pair]
        texts.sort(key=lambda text: (text.startswith("the "), text))
        words = all(text.startswith("the word ") for text in texts)  # a set says this
        alone = [(rules.active & holds).sum() for holds in (a & ~b, b & ~a)]
        if not words and texts[0] not in texts[1] and min(alone) > 1:
            text = " and ".join(texts).replace(" and the digit ", " and ")
            text = re.sub(r"^the digit ('\d' and '\d')$", r"the digits \1", text)
            yield text, "union", 0, a | b


def _narrowed(rules: _Rules) -> Iterator[Rule]:
    """A class of words behind or before certain others: "verbs that come after 'to'"."""
    neighbours = rules.ranking({"neighbour", "neighbour class"})[:PARTS]
    for row in rules.ranking(NARROWED)[:PARTS]:
        for neighbour in neighbours:
            text = f"{rules.texts[row]} {rules.texts[neighbour].removeprefix('words ')}"
            yield text, "both", 0, rules.holds[row] & rules.holds[neighbour]
