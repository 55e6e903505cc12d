"""Text cut into contexts of one length, on which residual streams are read."""

from collections.abc import Sequence

import torch

from introspect_utils.data.splits import normalised
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.tokens import token_spans
from introspect_utils.settings.errors import UserError


def contexts(lm: LanguageModel, texts: Sequence[str], length: int, n: int) -> torch.Tensor:
    """The first `n` different windows of exactly `length` tokens, [n, length] int64. No window
    spans two texts, none holds a BOS, and none says what an earlier one says (`normalised`): a text
    that a description is written from must not score it. Raises `UserError` when there are
    fewer."""
    windows: dict[str, list[int]] = {}
    for text in texts:
        if len(windows) >= n:
            break
        ids, spans = token_spans(lm.tokenizer, text)
        for start in range(0, len(ids) - length + 1, length):
            end = start + length
            said = normalised(text[spans[start][0] : spans[end - 1][1]])
            windows.setdefault(said, ids[start:end])
    if len(windows) < n:
        raise UserError(
            f"{len(texts)} texts have {len(windows)} different windows of {length} tokens, and {n} "
            "are needed: ask for fewer or shorter ones, or take another source of text"
        )
    return torch.tensor(list(windows.values())[:n], dtype=torch.int64)
