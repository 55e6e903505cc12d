"""Text cut into contexts of one length, on which residual streams are read."""

from collections.abc import Sequence

import torch

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.tokens import token_ids
from introspect_utils.settings.errors import UserError


def contexts(lm: LanguageModel, texts: Sequence[str], length: int, n: int) -> torch.Tensor:
    """The first `n` windows of exactly `length` tokens, [n, length] int64. No window spans two
    texts, none holds a BOS. Raises `UserError` when there are fewer."""
    windows: list[list[int]] = []
    for text in texts:
        if len(windows) >= n:
            break
        ids = token_ids(lm.tokenizer, text)
        windows += [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    if len(windows) < n:
        raise UserError(
            f"{len(texts)} texts have {len(windows)} windows of {length} tokens, and {n} are "
            "needed: ask for fewer or shorter ones, or take another source of text"
        )
    return torch.tensor(windows[:n], dtype=torch.int64)
