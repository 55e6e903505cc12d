"""What the rules of `candidates` see of a corpus: its words, and what is known of each of them.

Tokens are decoded and put together to words, so any tokenizer will do. A word is a run of letters
or of digits; a punctuation mark, a line break and the 's of a contraction are words of their own.
"""

import re
from collections.abc import Iterable

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.lexicon import UNREADABLE, lemma, word_classes
from introspect_utils.models.tokens import texts_of

NONE = 0  # the number of "no word": before the first word of a window and behind its last
AFFIXES = (1, 2, 3, 4)  # letters
CONTRACTED = ("s", "t", "re", "ve", "ll", "d", "m")  # stand behind an apostrophe
LIST_SPAN = 5  # tokens between two commas of a list


class Words:
    """The words of a corpus of tokens [N, T], numbered; `NONE` is no word.

    Of each token, [N, T]: `word`, the word it belongs to as written; `before`, `after`: its
    neighbours; `first`, `last`: whether it is the first or last of its word; `piece`: the number of
    its own text; `flags` [N, T, F] of `flag_names`: its place in the text.
    Of each word, [V]: `text`; `lower`, `lemma`: numbers; `prefix`, `suffix` [V, len(AFFIXES)]:
    numbers, NONE if too short; `member` [V, C] of `class_names`: its classes, which have `breadth`
    [C] words; `is_mark`, `is_digits`, `is_capital`. `shown`: number of a lower-case word -> how a
    phrase writes it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: Tensor):
        ids, inverse = np.unique(tokens.cpu().numpy(), return_inverse=True)
        pieces, inverse = texts_of(tokenizer, ids[:, None].tolist()), inverse.reshape(tokens.shape)
        self._number = {"": NONE}
        self._segment(pieces, inverse)
        self._describe_words()
        self._describe_places()

    def number(self, text: str) -> int:
        """The number of a word, a new one for a new word."""
        return self._number.setdefault(text, len(self._number))

    def _segment(self, pieces: list[str], inverse: np.ndarray) -> None:
        def of_tokens(values: Iterable) -> np.ndarray:
            """[N, T] of a value for each piece."""
            return np.array(list(values))[inverse]

        kind = of_tokens(_kind(piece) for piece in pieces).astype("U7")
        # a space on its own, as some tokenizers put it before a number, belongs to what follows
        self.blank = of_tokens(piece.isspace() and "\n" not in piece for piece in pieces)
        blank = self.blank.copy()
        blank[:, -1] = False
        kind = np.where(blank, np.roll(kind, -1, axis=1), kind)
        # some tokenizers cut the 's of a contraction in two
        apostrophe = of_tokens(piece in ("'", "’") for piece in pieces)
        ending = of_tokens(piece in CONTRACTED for piece in pieces)
        kind[apostrophe & shifted(ending, 1)] = "letters"
        self.first = of_tokens(_is_mark(piece[:1]) for piece in pieces) | (kind == "mark")
        self.first[:, 1:] |= kind[:, 1:] != kind[:, :-1]
        self.first[:, 1:] &= ~blank[:, :-1]
        self.first[:, 0] = True
        self.last = np.roll(self.first, -1, axis=1)
        self.last[:, -1] = True
        self.piece = of_tokens(self.number(core(piece)) for piece in pieces)
        starts, ends = np.flatnonzero(self.first), np.flatnonzero(self.last)
        flat, occurrence = inverse.reshape(-1), self.piece.reshape(-1)[starts]  # of words
        for i in np.flatnonzero(starts != ends):
            of_word = flat[starts[i] : ends[i] + 1]
            occurrence[i] = self.number(core("".join(pieces[token] for token in of_word)))
        of_token = (np.cumsum(self.first) - 1).reshape(inverse.shape)  # its occurrence
        padded = np.concatenate([[NONE], occurrence, [NONE]])
        self.word = occurrence[of_token]
        self.before = np.where(of_token > of_token[:, :1], padded[of_token], NONE)
        self.after = np.where(of_token < of_token[:, -1:], padded[of_token + 2], NONE)
        self._second_before = np.where(of_token > of_token[:, :1] + 1, padded[of_token - 1], NONE)
        spaced = of_tokens(piece[:1].isspace() for piece in pieces)
        self._spaced = spaced.reshape(-1)[starts][of_token]

    def _describe_words(self) -> None:
        for word in list(self._number):
            self.number(word.lower())
            self.number(lemma(word.lower()))
        words = list(self._number)
        lowers = [word.lower() for word in words]
        self.lower = np.array([self.number(lower) for lower in lowers])
        self.lemma = np.array([self.number(lemma(lower)) for lower in lowers])

        def affix(word: str, part: str) -> int:
            """The number of a part of a word, NONE if it is nearly all of it."""
            long = word.isalpha() and len(word) > len(part) + 1
            return self.number(part) if long else NONE

        self.prefix = np.array([[affix(word, word[:n]) for n in AFFIXES] for word in lowers])
        self.suffix = np.array([[affix(word, word[-n:]) for n in AFFIXES] for word in lowers])
        self.text = list(self._number)
        self.is_mark = np.array([_is_mark(word) for word in words])
        self.is_digits = np.array([word.isdigit() for word in words])
        self.is_capital = np.array([word[:1].isupper() for word in words])
        numbers, counts = np.unique(self.word[self.first], return_counts=True)
        by_count = numbers[np.argsort(counts, kind="stable")].tolist()
        # a word is shown in lower case if it ever is in the corpus, else in its commonest form
        self.shown = {int(self.lower[number]): words[number] for number in by_count}
        self.shown |= {number: words[number] for number in by_count if self.lower[number] == number}
        self.class_names, self.class_kinds, self.member = word_classes(words)
        self.breadth = self.member.sum(0)

    def _has(self, characters: str) -> np.ndarray:
        """Which words [V] are punctuation marks with one of these characters."""
        texts = zip(self.is_mark, self.text, strict=False)
        return np.array([mark and not set(characters).isdisjoint(text) for mark, text in texts])

    def _begins_sentence(self) -> np.ndarray:
        """The tokens [N, T] of words with a capital or a digit behind a stop. A quotation mark or a
        bracket may stand between; the full stop in "3.5" and "U.S" is none."""
        stop, before = self._has(".?!\n"), self.before
        stopped = stop[before] | self.is_mark[before] & stop[self._second_before]
        apart = self._spaced | (self.is_mark & ~self._has("."))[before] | self._has("\n")[before]
        return stopped & apart & (self.is_capital | self.is_digits)[self.word]

    def _describe_places(self) -> None:
        length = self.word.shape[1]
        place = np.broadcast_to(np.arange(length), self.word.shape)
        mark, digits = self.is_mark[self.word], self.is_digits[self.word]
        comma, opening, closing, quote = (self._has(x)[self.word] for x in (",", "([", ")]", '"'))
        starts = [signs & self.first for signs in (opening, closing, quote)]
        opened, closed, quotes = np.cumsum(starts, axis=2)
        sentence, split = self._begins_sentence(), ~(self.first & self.last) & ~digits
        beside = [by for by in range(-LIST_SPAN, LIST_SPAN + 1) if by]
        near_comma = np.any([shifted(comma, by) for by in beside], 0)
        inside = mark & ~self._spaced & ~shifted(self._spaced, 1) & (self.after != NONE)
        in_number = inside & self.is_digits[self.before] & self.is_digits[self.after]
        conjunctions = [self.number(word) for word in ("and", "or", "but")]
        is_i = self.lower[self.word] == self.number("i")
        proper = self.is_capital[self.word] & ~sentence & (self.before != NONE) & ~is_i
        before_conjunction = np.isin(self.lower[self.after], conjunctions)
        flags = {
            "the first word of a sentence": ("place", sentence),
            "the last word of a sentence": ("place", ~mark & self._has(".?!\n")[self.after]),
            "proper names": ("part", proper),
            "commas between items of a list": ("mark", comma & near_comma),
            "commas before 'and', 'or' or 'but'": ("mark", comma & before_conjunction),
            "hyphens inside words": ("mark", self._has("-")[self.word] & inside),
            "marks inside numbers": ("mark", in_number),
            "spaces before numbers": ("mark", self.blank & digits),
            "full stops at the end of a sentence": ("mark", self._has(".")[self.word] & ~inside),
            "text in brackets": ("place", (opened > closed) & ~opening),
            "text in quotation marks": ("place", (quotes % 2 == 1) & ~quote),
            "the beginning of the text": ("place", place == 0),
            "words early in the text": ("place", place < length // 4),
            "words late in the text": ("place", place >= length - length // 4),
            "fragments of longer words": ("place", split),
            "beginnings of longer words": ("place", split & self.first),
            "endings of longer words": ("place", split & self.last),
        }
        self.flag_names, self.flag_kinds = list(flags), [kind for kind, _ in flags.values()]
        self.flags = np.stack([holds for _, holds in flags.values()], -1)


def shifted(array: np.ndarray, by: int) -> np.ndarray:
    """What stands `by` tokens further on in [N, T] (back, if negative), 0 outside the window."""
    padded = np.pad(array, ((0, 0), (abs(by), abs(by))))
    return padded[:, abs(by) + by :][:, : array.shape[1]]


def _is_mark(word: str) -> bool:
    return bool(word) and not any(sign.isalnum() or sign == UNREADABLE for sign in word)


def core(piece: str) -> str:
    """The word in a piece of text, without spaces and the marks around letters or digits."""
    if _is_mark(piece):
        return piece.strip(" ") or piece[:1]
    word = piece.strip()
    if re.fullmatch(rf"['’]({'|'.join(CONTRACTED)})", word.lower()):
        return word.replace("’", "'")
    return re.sub(rf"^[^\w{UNREADABLE}]+|[^\w{UNREADABLE}]+$", "", word)


def _kind(piece: str) -> str:
    word = core(piece)
    return "mark" if _is_mark(word) else "digits" if word[:1].isdigit() else "letters"
