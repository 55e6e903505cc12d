"""Texts as token ids. A text from outside is plain: a special token that it spells out
(`<|im_start|>`, `<bos>`) is read as the characters it is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "\U000f0000"  # a private character, put into a spelled special token to break it
Span = tuple[int, int]  # characters, from and to


@lru_cache(maxsize=16)
def _control(tokenizer: PreTrainedTokenizerBase, n: int) -> tuple[re.Pattern, re.Pattern]:
    """Patterns of the special tokens' spellings among `n` tokens: of all of them, and of those that
    the tokenizer reads as special even when it is told not to."""
    spellings = {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or re.fullmatch(r"<\|.*\|>", token.content)
    }
    texts = sorted(spellings, key=len, reverse=True)
    encoded = tokenizer([f"a{text}a" for text in texts], **_settings(False)) if texts else {}
    read = zip(texts, encoded.get("input_ids", []), strict=True)
    stubborn = [text for text, ids in read if spellings[text] in ids]
    return tuple(re.compile("|".join(map(re.escape, some)) or "(?!)") for some in (texts, stubborn))


def _settings(special: bool) -> dict:
    return {"add_special_tokens": False, "split_special_tokens": not special}


def forget(tokenizer: PreTrainedTokenizerBase) -> None:
    """To be called when tokens of `tokenizer` have become special."""
    _control.cache_clear()


def _broken(pattern: re.Pattern, text: str) -> str:
    return pattern.sub(lambda match: match[0][0] + MARK + match[0][1:], text)


def defused(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` to be put into a prompt whose special tokens are meant: its own are broken by `MARK`,
    which `token_ids` takes out again."""
    return _broken(_control(tokenizer, len(tokenizer))[0], text)


def batch_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = False
) -> list[list[int]]:
    """Token ids of each text, without BOS; with `special`, special tokens in them are meant."""
    return [ids for ids, _ in _encoded(tokenizer, texts, special, spans=False)]


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False) -> list[int]:
    """`batch_ids` of one text."""
    return batch_ids(tokenizer, [text], special)[0]


def token_spans(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[Span]]:
    """(ids, characters of each) of a plain text, without BOS. Parts of one character share its
    span."""
    return _encoded(tokenizer, [text], special=False, spans=True)[0]


def _encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool, spans: bool
) -> list[tuple[list[int], list[Span]]]:
    if not texts:
        return []
    stubborn = _control(tokenizer, len(tokenizer))[1]
    pieces = [(text if special else _broken(stubborn, text)).split(MARK) for text in texts]
    flat = tokenizer(
        [piece for of_text in pieces for piece in of_text],
        **_settings(special),
        return_offsets_mapping=spans,
    )
    of_piece = zip(flat["input_ids"], flat["offset_mapping"] if spans else flat["input_ids"])
    found = []
    for of_text in pieces:
        ids, places, start = [], [], 0
        for piece in of_text:
            some, offsets = next(of_piece)
            ids += some
            places += [(start + a, start + b) for a, b in offsets] if spans else ()
            start += len(piece)
        found.append((ids, places))
    return found
