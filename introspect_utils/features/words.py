"""What the rules of descriptions.py see of the tokens of a corpus: the words they belong to, and
what is known of each word.

Tokens are decoded to pieces of text and put together to words, so any tokenizer will do. A word is
a run of letters or of digits; a punctuation mark, a line break and the 's of a contraction are
words of their own.
"""

import re
from collections.abc import Iterable

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.lexicon import UNREADABLE, lemma, word_classes

NONE = (
    0  # the number of "no word": what stands before the first word of a window and behind its last
)
AFFIXES = (1, 2, 3, 4)  # letters
CONTRACTED = (
    "s",
    "t",
    "re",
    "ve",
    "ll",
    "d",
    "m",
)  # what stands behind the apostrophe of a contraction
LIST_SPAN = 5  # tokens between two commas of a list


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> list[str]:
    """The text of every token as it stands inside a text, its leading space included."""
    [*_, anchor] = tokenizer.encode(
        "a", add_special_tokens=False
    )  # some decoders drop the leading space of what comes first
    alone = tokenizer.decode([anchor])
    together = [tokenizer.decode([anchor, i], clean_up_tokenization_spaces=False) for i in ids]
    return [text.removeprefix(alone) for text in together]


class Words:
    """The words of a corpus. All arrays are indexed as its tokens [N, T]; words are numbered, NONE
    is no word.

    `word`: the word a token belongs to, as written; `before`, `after`: its neighbours; `first`,
    `last`: whether the token is the word's first and last; `piece`: its own text's number; `flags`
    [N, T, F] of `flag_names`: what depends on the place. For each word: `text`; `lower` and `lemma`
    (numbers); `prefix`, `suffix` [V, len(AFFIXES)] (numbers, NONE if too short); `member` [V, C] of
    `class_names`: its classes, which have `breadth` [C] words each; `is_mark`, `is_digits`,
    `is_capital`; `shown`: from the number of a lower-case word to the word as a phrase writes it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: Tensor):
        ids, inverse = np.unique(tokens.cpu().numpy(), return_inverse=True)
        pieces = pieces_of(tokenizer, ids.tolist())
        self.text, self._number = [""], {"": NONE}
        inverse = inverse.reshape(tokens.shape)
        self._segment(pieces, inverse)
        self.piece = np.array([self.number(core(piece)) for piece in pieces])[inverse]
        self._describe_words()
        self._describe_places()

    def number(self, text: str) -> int:
        """The number of a word, a new one for a new word."""
        return self._number.setdefault(text, len(self._number))

    def _segment(self, pieces: list[str], inverse: np.ndarray) -> None:
        spaced = np.array([piece[:1].isspace() for piece in pieces])[inverse]
        kind = np.array([_kind(piece) for piece in pieces], dtype="U7")[inverse]
        begins = np.array([_is_mark(piece[:1]) for piece in pieces])[inverse]
        # A space on its own, as some tokenizers put it before a number, belongs to what follows.
        blank = np.array([piece.isspace() and "\n" not in piece for piece in pieces])[inverse]
        self.blank, blank[:, -1] = blank.copy(), False
        kind = np.where(blank, np.roll(kind, -1, axis=1), kind)
        # Some tokenizers cut the 's of a contraction in two.
        ending = np.array([piece in CONTRACTED for piece in pieces])[inverse]
        kind[np.array([piece in ("'", "’") for piece in pieces])[inverse] & shifted(ending, 1)] = (
            "letters"
        )
        self.first = begins | (kind == "mark")
        self.first[:, 1:] |= kind[:, 1:] != kind[:, :-1]
        self.first[:, 1:] &= ~blank[:, :-1]
        self.first[:, 0] = True
        self.last = np.roll(self.first, -1, axis=1)
        self.last[:, -1] = True
        starts, ends = np.flatnonzero(self.first), np.flatnonzero(self.last)
        flat = inverse.reshape(-1)
        alone = np.array(
            [self.number(core(piece)) for piece in pieces]
        )  # number of each token that is a whole word
        occurrence = alone[flat[starts]]
        for i in np.flatnonzero(starts != ends):
            occurrence[i] = self.number(
                core("".join(pieces[token] for token in flat[starts[i] : ends[i] + 1]))
            )
        of_token = (np.cumsum(self.first) - 1).reshape(
            inverse.shape
        )  # which occurrence a token belongs to
        padded = np.concatenate([[NONE], occurrence, [NONE]])
        self.word = occurrence[of_token]
        self.before = np.where(of_token > of_token[:, :1], padded[of_token], NONE)
        self._second_before = np.where(of_token > of_token[:, :1] + 1, padded[of_token - 1], NONE)
        self._spaced = spaced.reshape(-1)[starts][of_token]
        self.after = np.where(of_token < of_token[:, -1:], padded[of_token + 2], NONE)

    def _describe_words(self) -> None:
        for word in list(self._number):
            self.number(word.lower())
            self.number(lemma(word.lower()))
        words = list(self._number)
        lowers = [word.lower() for word in words]
        self.lower = np.array([self.number(lower) for lower in lowers])
        self.lemma = np.array([self.number(lemma(lower)) for lower in lowers])
        letters = [lower if lower.isalpha() else "" for lower in lowers]
        self.prefix = np.array(
            [[self.number(w[:n]) if len(w) > n + 1 else NONE for n in AFFIXES] for w in letters]
        )
        self.suffix = np.array(
            [[self.number(w[-n:]) if len(w) > n + 1 else NONE for n in AFFIXES] for w in letters]
        )
        self.text = list(self._number)
        self.is_mark = np.array([_is_mark(word) for word in words])
        self.is_digits = np.array([word.isdigit() for word in words])
        self.is_capital = np.array([word[:1].isupper() for word in words])
        numbers, counts = np.unique(self.word[self.first], return_counts=True)
        in_order = numbers[np.argsort(counts, kind="stable")].tolist()
        # A word is shown in lower case if it ever is in the corpus, otherwise in its commonest
        # form.
        self.shown = {int(self.lower[number]): words[number] for number in in_order}
        self.shown |= {number: words[number] for number in in_order if self.lower[number] == number}
        self.class_names, self.class_kinds, self.member = word_classes(words)
        self.breadth = self.member.sum(0)

    def _has(self, characters: str) -> np.ndarray:
        """Which words [V] are punctuation marks with one of these characters."""
        marks = [
            mark and bool(set(characters) & set(text))
            for mark, text in zip(self.is_mark, self.text, strict=False)
        ]
        return np.array(marks)

    def _begins_sentence(self) -> np.ndarray:
        """The tokens [N, T] of words that begin a sentence: with a capital or a digit, after a
        stop.

        A quotation mark or a bracket may stand between. In "3.5" and "U.S" the full stop touches
        what follows and is none.
        """
        stop, before = self._has(".?!\n"), self.before
        stopped = stop[before] | self.is_mark[before] & stop[self._second_before]
        apart = self._spaced | (self.is_mark & ~self._has("."))[before] | self._has("\n")[before]
        return stopped & apart & (self.is_capital | self.is_digits)[self.word]

    def _describe_places(self) -> None:
        place = np.broadcast_to(np.arange(self.word.shape[1]), self.word.shape)
        length = self.word.shape[1]
        mark, digits, capital = (
            self.is_mark[self.word],
            self.is_digits[self.word],
            self.is_capital[self.word],
        )
        comma, bracket, quote = (
            self._has(",")[self.word],
            self._has("([")[self.word],
            self._has('"')[self.word],
        )
        opened, closed, quotes = (
            np.cumsum(marks & self.first, 1)
            for marks in (bracket, self._has(")]")[self.word], quote)
        )
        sentence = self._begins_sentence()
        near = np.logical_or.reduce(
            [shifted(comma, by) for by in range(-LIST_SPAN, LIST_SPAN + 1) if by]
        )
        inside = mark & ~self._spaced & ~shifted(self._spaced, 1) & (self.after != NONE)
        in_number = inside & self.is_digits[self.before] & self.is_digits[self.after]
        conjunction = np.isin(
            self.lower[self.after], [self.number(word) for word in ("and", "or", "but")]
        )
        split = ~(self.first & self.last) & ~digits
        flags = {
            "the first word of a sentence": sentence,
            "the last word of a sentence": ~mark & self._has(".?!\n")[self.after],
            "proper names": capital
            & ~sentence
            & (self.before != NONE)
            & (self.lower[self.word] != self.number("i")),
            "commas between items of a list": comma & near,
            "commas before 'and', 'or' or 'but'": comma & conjunction,
            "hyphens inside words": self._has("-")[self.word] & inside,
            "marks inside numbers": in_number,
            "spaces before numbers": self.blank & digits,
            "full stops at the end of a sentence": self._has(".")[self.word] & ~inside,
            "text in brackets": (opened > closed) & ~bracket,
            "text in quotation marks": (quotes % 2 == 1) & ~quote,
            "the beginning of the text": place == 0,
            "words early in the text": place < length // 4,
            "words late in the text": place >= length - length // 4,
            "fragments of longer words": split,
            "beginnings of longer words": split & self.first,
            "endings of longer words": split & self.last,
        }
        self.flag_names, self.flags = list(flags), np.stack(list(flags.values()), -1)
        of_name = {
            "proper": "part",
            "commas": "mark",
            "hyphens": "mark",
            "marks": "mark",
            "full": "mark",
            "spaces": "mark",
        }
        self.flag_kinds = [of_name.get(name.split()[0], "place") for name in flags]


def shifted(array: np.ndarray, by: int) -> np.ndarray:
    """What stands `by` tokens further on (back, if negative) in [N, T]; nothing stands outside the
    window."""
    out, length = np.zeros_like(array), array.shape[1]
    by = max(-length, min(length, by))
    out[:, max(0, -by) : length - max(0, by)] = array[:, max(0, by) : length - max(0, -by)]
    return out


def _is_mark(word: str) -> bool:
    return bool(word) and not any(
        character.isalnum() or character == UNREADABLE for character in word
    )


def core(piece: str) -> str:
    """The word in a piece of text: without spaces, and without the marks around letters or
    digits."""
    if _is_mark(piece):
        return piece.strip(" ") or piece[:1]
    word = piece.strip()
    if re.fullmatch(rf"['’]({'|'.join(CONTRACTED)})", word.lower()):
        return word.replace("’", "'")
    return re.sub(rf"^[^\w{UNREADABLE}]+|[^\w{UNREADABLE}]+$", "", word)


def _kind(piece: str) -> str:
    word = core(piece)
    return "mark" if _is_mark(word) else "digits" if word[:1].isdigit() else "letters"
