"""Texts as token ids. A text from outside is plain: a special token that it spells out
(`<|im_start|>`, `<bos>`) is read as the characters it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Added tokens that control, marked as special or not: whatever stands in brackets (<think>, [INST],
# <｜User｜>, ◁think▷), but for HTML, of which Gemma's vocabulary has a lot
CONTROL = re.compile(r"[<\[◁].+[>\]▷]")
HTML = re.compile(
    r"</?(a|b|i|u|s|p|h\d|br|hr|em|li|ol|ul|td|th|tr|div|img|pre|sub|sup|code|span|body|caption"
    r"|head|html|footer|iframe|table|tbody|tfoot|thead|title|strong|blockquote)/?>"
)
MARK = "\U000f0000"  # a private character, put into a spelled special token to break it


@lru_cache(maxsize=16)
def spellings(tokenizer: PreTrainedTokenizerBase, n: int) -> tuple[re.Pattern, re.Pattern]:
    """Patterns of the special tokens' spellings among `n` tokens: of all of them, and of those that
    the tokenizer reads as special even when it is told not to. To be cleared when tokens have
    become special."""
    special = {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or (CONTROL.fullmatch(token.content) and not HTML.fullmatch(token.content))
    }
    texts = sorted(special, key=len, reverse=True)
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    stubborn = [t for t in texts if special[t] in tokenizer(f"a{t}a", **plain)["input_ids"]]
    return tuple(re.compile("|".join(map(re.escape, some)) or "(?!)") for some in (texts, stubborn))


def _broken(pattern: re.Pattern, text: str) -> str:
    return pattern.sub(lambda match: match[0][0] + MARK + match[0][1:], text)


def defused(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` to be put into a prompt whose special tokens are meant: its own are broken by `MARK`,
    which `token_ids` takes out again."""
    return _broken(spellings(tokenizer, len(tokenizer))[0], text)


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False) -> list[int]:
    """Token ids of a text, without BOS; with `special`, special tokens in it are meant."""
    return token_spans(tokenizer, text, special)[0]


def token_spans(
    tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False
) -> tuple[list[int], list[tuple[int, int]]]:
    """(`token_ids`, the characters of each, from and to). Parts of one character share its span."""
    if not special:
        text = _broken(spellings(tokenizer, len(tokenizer))[1], text)
    settings = {"add_special_tokens": False, "split_special_tokens": not special}
    ids, spans, start = [], [], 0
    for piece in text.split(MARK):
        encoded = tokenizer(piece, **settings, return_offsets_mapping=True)
        ids += encoded["input_ids"]
        spans += [(start + a, start + b) for a, b in encoded["offset_mapping"]]
        start += len(piece)
    return ids, spans


def texts_of(
    tokenizer: PreTrainedTokenizerBase, runs: Iterable[Sequence[int]], special: bool = True
) -> list[str]:
    """The text of each run of token ids as it stands inside a text, its leading space included,
    which some decoders drop of what comes first; not `special`: without special tokens."""
    [*_, anchor] = tokenizer.encode("a", add_special_tokens=False)
    settings = {"skip_special_tokens": not special, "clean_up_tokenization_spaces": False}
    alone = tokenizer.decode([anchor], **settings)
    return [tokenizer.decode([anchor, *run], **settings).removeprefix(alone) for run in runs]
