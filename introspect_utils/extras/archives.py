"""What the readers of published features share: rows of descriptions, and sequences made into
`Exemplars`."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import replaced

BLOCK = 1 << 16  # rows held at once while a table is written

DESCRIPTIONS = pa.schema(
    {
        "layer": pa.int64(),
        "feature": pa.int64(),  # its number in the layer's dictionary
        "description": pa.string(),  # the chosen label
        "score": pa.float64(),  # of the chosen label; null where none is published
        "labels": pa.list_(pa.string()),  # all of them
        "scores": pa.list_(pa.float64()),  # of all of them, in the same order
    }
)

Window = tuple[np.ndarray, np.ndarray]  # token ids [T] int64, activations [T] float32


def write_descriptions(path: Path, rows: Iterable[dict], schema: pa.Schema = DESCRIPTIONS) -> None:
    """Write rows as Parquet, in blocks, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remaining = iter(rows)
    with (
        replaced(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        while block := list(itertools.islice(remaining, BLOCK)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def read_descriptions(path: Path, layer: int | None = None) -> list[dict]:
    """The rows of `write_descriptions`, all or one layer's, in order. Raises `UserError` when the
    file is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} is missing: convert the published features first")
    try:
        return pq.read_table(
            path, filters=None if layer is None else [("layer", "=", layer)]
        ).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and convert the published features again"
        ) from error


def text_tokens(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Which ids are text, bool [vocabulary]: all but BOS, padding and the like."""
    text = np.ones(len(tokenizer), bool)
    added = [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]
    text[[*added, *tokenizer.all_special_ids]] = False
    return text


def window(
    ids: np.ndarray, activations: np.ndarray, text: np.ndarray, length: int
) -> Window | None:
    """The `length` tokens around the highest activation of a sequence, all of them text, or None if
    there are not so many.

    `ids`, `activations` [S]; `text`: of `text_tokens`. An id outside the vocabulary is no text (the
    authors pad with an id that they added), nor is a token without a finite activation.
    """
    usable = (ids >= 0) & (ids < len(text)) & np.isfinite(activations)
    usable[usable] = text[ids[usable]]
    if not usable.any():
        return None
    peak = int(np.where(usable, activations, -np.inf).argmax())
    others = np.flatnonzero(~usable)
    start = int(others[others < peak].max(initial=-1)) + 1
    end = int(others[others > peak].min(initial=len(ids)))
    if end - start < length:
        return None
    first = min(max(peak - length // 2, start), end - length)
    return ids[first : first + length].astype(np.int64), activations[first : first + length].astype(
        np.float32
    )


def make_exemplars(
    tops: Sequence[Sequence[Window]], others: Sequence[Sequence[Window]], n_top: int, n_random: int
) -> tuple[list[int], Exemplars]:
    """Exemplars of directions from their highest sequences and from others; a text is used once for
    a direction.

    A direction with fewer than n_top and n_random of them, or that is positive nowhere, is left
    out: the list says which are kept. The publications give no statistics of the corpus. `mean` is
    0, as in the authors' code, which bins a / peak (and an SAE feature is 0 nearly everywhere);
    `peak` is the highest activation here.

    Raises `UserError` when no direction is left.
    """
    kept, chosen = [], []
    for number, (top, other) in enumerate(zip(tops, others, strict=True)):
        best = _different(sorted(top, key=lambda part: -part[1].max()), set())[:n_top]
        rest = _different(other, {ids.tobytes() for ids, _ in best})[:n_random]
        if len(best) == n_top and len(rest) == n_random and best[0][1].max() > 0:
            kept.append(number)
            chosen.append([*best, *rest])
    if not kept:
        raise UserError(
            f"none of {len(tops)} directions has {n_top} top and {n_random} other sequences: ask "
            "for fewer, or shorter ones"
        )
    tokens = torch.from_numpy(np.stack([ids for parts in chosen for ids, _ in parts]))
    activations = torch.from_numpy(np.stack([[values for _, values in parts] for parts in chosen]))
    peak = activations[:, :n_top].amax((1, 2))
    sequences = torch.arange(len(tokens)).view(len(kept), n_top + n_random)
    return kept, Exemplars(tokens, sequences, activations, torch.zeros_like(peak), peak, n_top)


def joined(parts: Sequence[Exemplars]) -> Exemplars:
    """The directions of all parts, in order, where each part has sequences of its own."""
    tokens = torch.cat([part.tokens for part in parts])
    ends = itertools.accumulate(len(part.tokens) for part in parts)
    moved = [part.sequences + end - len(part.tokens) for part, end in zip(parts, ends, strict=True)]
    return Exemplars.concat(
        [replace(part, tokens=tokens, sequences=s) for part, s in zip(parts, moved, strict=True)]
    )


def _different(parts: Iterable[Window], seen: set[bytes]) -> list[Window]:
    """The parts in order, without those whose tokens are in `seen` or were there before."""
    found = {}
    for part in parts:
        if part[0].tobytes() not in seen:
            found.setdefault(part[0].tobytes(), part)
    return list(found.values())
