"""The authors' archives: SAE features with descriptions and exemplars, and the two sets of vectors
from other distributions.

Known, from REFERENCE.md and a public fork of the authors' code (exemplar files also from
Transluce's earlier releases):
- `features/layer_{L}.pkl`: a tensor [d_target, n] of decoder columns; feature i is column i.
- `explanations/{split}_explanations.pkl`: a list of ((layer, feature), {chosen_label, all_labels,
  all_label_scores}), the scores by label. `explanations/{split}_layer_feature_idxs.pkl`: pairs
  (layer, feature); the position of a feature among the pairs of its layer is its row in the
  exemplar files of that layer.
- `{corpus}/layer{L}/max_seq_acts.npy`, `max_seq_ids.npy` [rows, k, S]: activations and token ids,
  padded on the left. {corpus} is train, valid or test (a part of the text, not of the features) or
  one of these with `random_` before it; the authors score on train. The files named min hold the
  lowest activations, which eq. 2 has no use for.
- the archives of full activations and of activation differences: `{split}_indices.json`, pairs
  [layer, i]; `{split}_vectors.pt` [n, d_target], vector i is row i; exemplar files as above, a row
  for each pair among those of its layer.

Assumed: labels without a score are possible; sequences may hold a BOS; there may be no `random_`
folder; activations may be those of the SAE or <h, v>. Where a vector comes from is not published.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.extras.unpickle import read
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.settings.errors import UserError

Window = tuple[np.ndarray, np.ndarray]  # token ids [T] int64, activations [T] float32


def descriptions(archive: Path, split: str) -> pd.DataFrame:
    """The SAE features of a split that are described, in the archive's order, each once (the first
    description): `feature` (its name), `split`, `layer`, `number` in the layer's dictionary,
    `description` (the chosen label) and its `score`; `row` in the layer's exemplar files, which
    have `n_rows`. NaN stands for no score and no row.

    Raises `UserError` when a file is missing, damaged or of another form.
    """
    path = archive / "explanations" / f"{split}_explanations.pkl"
    pairs = _pairs(path.with_name(f"{split}_layer_feature_idxs.pkl"))
    pairs["row"] = pairs.groupby("layer").cumcount()
    rows = []
    try:
        for (layer, number), label in read(path):
            chosen = label["chosen_label"]
            score = label["all_label_scores"].get(chosen)
            if not isinstance(chosen, str):
                raise TypeError(f"{chosen!r:.80} is no label")
            score = np.nan if score is None else float(score)
            rows.append((int(layer), int(number), chosen, score))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no list of ((layer, feature), labels): {type(error).__name__} {error}"
        ) from error
    if not rows:
        raise UserError(f"{path} describes no feature: unpack the archive again")
    feature = ["layer", "number"]
    found = pd.DataFrame(rows, columns=[*feature, "description", "score"]).drop_duplicates(feature)
    found = found.merge(pairs.drop_duplicates(feature), how="left", on=feature)
    found["n_rows"] = found["layer"].map(pairs["layer"].value_counts()).fillna(0).astype(int)
    names = [f"sae/{row.layer}/{row.number}" for row in found.itertuples()]
    return found.assign(feature=names, split=split)


def _pairs(path: Path) -> pd.DataFrame:
    """The pairs (`layer`, `number`) of a file."""
    try:
        pairs = [(int(layer), int(number)) for layer, number in read(path)]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is no list of (layer, number): {error}") from error
    return pd.DataFrame(pairs, columns=["layer", "number"], dtype="int64")


def sae_directions(
    archive: Path, layer: int, d_target: int, pairs: dict[str, pd.DataFrame]
) -> dict[str, Directions]:
    """The decoder columns of the features of a layer in `pairs`, by split. Raises `UserError` when
    the file is missing, damaged, of another shape, or has fewer features."""
    path = archive / "features" / f"layer_{layer}.pkl"
    vectors = _matrix(path, f"decoder columns [{d_target}, n]", d_target).T
    return {split: _directions(path, vectors, "sae", split, of) for split, of in pairs.items()}


def other_vectors(archive: Path, data: str) -> Directions:
    """The vectors of one of the two other archives; `data` is "act" or "dact", which one it is.

    The k-th of a layer has the row k in the exemplar files of that layer. Raises `UserError` when a
    file is missing, damaged or of another shape.
    """
    pairs, path = _pairs(archive / "test_indices.json"), archive / "test_vectors.pt"
    return _directions(path, _matrix(path, "vectors [n, d_target]"), data, "test", pairs)


def _matrix(path: Path, expected: str, height: int | None = None) -> Tensor:
    """The matrix of numbers in a file, of so many rows."""
    found = read(path)
    if isinstance(found, np.ndarray) and found.dtype.kind == "f":
        found = torch.from_numpy(found)
    is_matrix = isinstance(found, Tensor) and found.ndim == 2 and found.is_floating_point()
    if not is_matrix or height not in (None, len(found)):
        raise UserError(
            f"{path} is {_what(found)} where {expected} are expected: of another archive or target?"
        )
    return found.detach()


def _directions(
    path: Path, vectors: Tensor, data: str, split: str, pairs: pd.DataFrame
) -> Directions:
    """The vectors of these `layer`s and `number`s, among those [n, d_target] that `path` holds."""
    layers, numbers = pairs["layer"].tolist(), pairs["number"].tolist()
    strange = [number for number in numbers if not 0 <= number < len(vectors)]
    if strange:
        raise UserError(
            f"{path} has {len(vectors)} vectors, number {strange[0]} is asked for: of another "
            "release than the numbers?"
        )
    names = tuple(f"{data}/{layer}/{i}" for layer, i in zip(layers, numbers, strict=True))
    n, chosen = len(pairs), vectors[numbers].float()
    return Directions(names, (data,) * n, (split,) * n, tuple(layers), chosen, ("",) * n)


def _what(found: object) -> str:
    if isinstance(found, Tensor | np.ndarray):
        return f"{found.dtype} {list(found.shape)}"
    return f"a {type(found).__name__}"


def sequences(
    archive: Path,
    layer: int,
    rows: Sequence[int],
    n_rows: int,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    n_top: int,
    n_random: int,
) -> dict[int, list[Window]]:
    """Those of `rows` of a layer's exemplar files that have enough sequences, by their position in
    `rows`: `n_top` sequences, the highest first, then `n_random` others.

    `n_rows` is how many rows the layer must have: the archive holds exemplars of one split only,
    and rows of another would be other features'. `tokenizer` is the target's. Of each sequence the
    `length` tokens around its highest activation are taken, BOS and padding left out; the others
    are the first of `random_train`, which is not read for 0. A text is used once for a direction; a
    direction that is positive nowhere is left out.

    Raises `UserError` when a file is missing, damaged or of another shape, or no row is left.
    """
    asked = (f"layer{layer}", rows, n_rows, text_tokens(tokenizer), length)
    tops = _windows(archive / "train", *asked)
    others = _windows(archive / "random_train", *asked) if n_random else [[]] * len(rows)
    kept = {}
    for position, (top, other) in enumerate(zip(tops, others, strict=True)):
        best = different(sorted(top, key=lambda part: -part[1].max()))[:n_top]
        chosen = different([*best, *other])[: n_top + n_random]
        if len(best) == n_top and len(chosen) == n_top + n_random and best[0][1].max() > 0:
            kept[position] = chosen
    if not kept:
        raise UserError(
            f"{archive}: none of {len(rows)} directions of layer {layer} has {n_top} top and "
            f"{n_random} other sequences of {length} tokens: ask for fewer, or shorter ones"
        )
    return kept


def _windows(
    corpus: Path, layer: str, rows: Sequence[int], n_rows: int, text: np.ndarray, length: int
) -> list[list[Window]]:
    """Of each row its sequences that are long enough."""
    folder = corpus / layer
    activations, ids = read(folder / "max_seq_acts.npy"), read(folder / "max_seq_ids.npy")
    if activations.ndim != 3 or activations.shape != ids.shape or ids.dtype.kind not in "iu":
        raise UserError(
            f"{folder}: activations {_what(activations)}, ids {_what(ids)} do not go together: "
            "unpack it again"
        )
    if len(ids) != n_rows:
        raise UserError(
            f"{folder} has {len(ids)} rows where {n_rows} are expected: these are exemplars of "
            "other vectors"
        )
    found = []
    for row in rows:
        parts = zip(ids[row], activations[row], strict=True)
        windows = [window(*part, text, length) for part in parts]
        found.append([part for part in windows if part is not None])
    return found


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
    chosen = slice(first, first + length)
    return ids[chosen].astype(np.int64), activations[chosen].astype(np.float32)


def different(windows: Iterable[Window]) -> list[Window]:
    """The first of each text, in order."""
    first = {}
    for part in windows:
        first.setdefault(part[0].tobytes(), part)
    return list(first.values())


def make_exemplars(chosen: Sequence[Sequence[Window]], n_top: int) -> Exemplars:
    """Exemplars of directions from the `sequences` of each.

    The publications give no statistics of the corpus. `mean` is 0, as in the authors' code, which
    bins a / peak (and an SAE feature is 0 nearly everywhere); `peak` is the highest activation
    here.
    """
    tokens = torch.from_numpy(np.stack([ids for parts in chosen for ids, _ in parts]))
    activations = torch.from_numpy(np.stack([[values for _, values in parts] for parts in chosen]))
    peak = activations[:, :n_top].amax((1, 2))
    numbers = torch.arange(len(tokens)).view(len(chosen), -1)
    return Exemplars(tokens, numbers, activations, torch.zeros_like(peak), peak, n_top)
