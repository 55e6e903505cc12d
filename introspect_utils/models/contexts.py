"""Text cut into contexts of one length, on which residual streams are read."""

from collections.abc import Sequence

import torch

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.tokens import batch_ids
from introspect_utils.settings.errors import UserError

AT_ONCE = 256  # texts tokenised together


def contexts(lm: LanguageModel, texts: Sequence[str], length: int, n: int) -> torch.Tensor:
    """The first `n` windows of exactly `length` tokens, [n, length] int64. No window spans two
    texts, none holds a BOS.

    Raises `UserError` when there are fewer.
    """
    windows: list[list[int]] = []
    for start in range(0, len(texts), AT_ONCE):
        if len(windows) >= n:
            break
        for ids in batch_ids(lm.tokenizer, texts[start : start + AT_ONCE]):
            windows += [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    if len(windows) < n:
        there = (
            f"{len(texts)} texts have {len(windows)} windows of {length} tokens, and {n} are needed"
        )
        raise UserError(f"{there}: ask for fewer or shorter ones, or take another source of text")
    return torch.tensor(windows[:n], dtype=torch.int64)
