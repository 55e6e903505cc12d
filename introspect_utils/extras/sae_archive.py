"""The authors' archives: SAE features with descriptions and exemplars, and the two sets of vectors
from other distributions.

Known, from REFERENCE.md and a public fork of the authors' code (exemplar files also from
Transluce's earlier releases):
- `features/layer_{L}.pkl`: a tensor [d_target, n] of decoder columns; feature i is column i.
- `explanations/{split}_explanations.pkl`: a list of ((layer, feature), {chosen_label, all_labels,
  all_label_scores}), the scores by label. `explanations/{split}_layer_feature_idxs.pkl`: pairs
  (layer, feature); the position of a feature among the pairs of its layer is its row in the
  exemplar files of that layer.
- `{corpus}/layer{L}/{max|min}_seq_acts.npy`, `_seq_ids.npy` [rows, k, S]: activations and token
  ids, padded on the left; `_dataset_ids.npy` [rows, k], `_acts.npy` [rows, m]: the highest
  activations alone. {corpus} is train, valid or test (a part of the text, not of the features) or
  one of these with `random_` before it; the authors score on train. The files named min hold the
  lowest activations, which eq. 2 has no use for.
- the archives of full activations and of activation differences: `{split}_indices.json`, pairs
  [layer, i]; `{split}_vectors.pt` [n, d_target], vector i is row i; exemplar files as above, a row
  for each pair among those of its layer.

Assumed: labels without a score are possible; sequences may hold a BOS; there may be no `random_`
folder; activations may be those of the SAE or <h, v>, whichever `activation_type` of
`exemplar_config.json` says. Where a vector comes from is not published.

Memory: one layer's features at a time (about twice their size while they are converted), the
explanations of one split, and of the exemplar files, which are memory-mapped, only the rows asked
for.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.extras.archives import (
    DESCRIPTIONS,
    Window,
    make_exemplars,
    read_descriptions,
    text_tokens,
    window,
    write_descriptions,
)
from introspect_utils.extras.unpickle import read_pickle, read_tensor_file
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import replaced

# Of DESCRIPTIONS, and `row`: of the layer's exemplar files, which have `n_rows`; null where there
# are none of the feature.
ROWS = DESCRIPTIONS.append(pa.field("row", pa.int64())).append(pa.field("n_rows", pa.int64()))


def convert(archive: Path, folder: Path, d_target: int) -> None:
    """Convert the pickles of the unpacked archive into `folder`; what is there already is not
    converted again.

    Writes `features/layer_{L}.safetensors` ("vectors" [n, d_target], in the archive's dtype) and
    `descriptions/{split}.parquet` (`ROWS`). Raises `UserError` when a file is missing, damaged, of
    another shape, or names what no array needs.
    """
    features = sorted((archive / "features").glob("layer_*.pkl"))
    explanations = sorted((archive / "explanations").glob("*_explanations.pkl"))
    if not features or not explanations:
        raise UserError(
            f"{archive} lacks features/layer_*.pkl or explanations/*_explanations.pkl: unpack the "
            "whole archive"
        )
    for path in features:
        target = folder / "features" / f"{path.stem}.safetensors"
        if not target.is_file():
            _convert_features(path, target, d_target)
    for path in explanations:
        target = folder / "descriptions" / f"{path.stem.removesuffix('_explanations')}.parquet"
        if not target.is_file():
            write_descriptions(target, _described(path), ROWS)


def _convert_features(path: Path, target: Path, d_target: int) -> None:
    found = read_pickle(path)
    columns = (
        torch.from_numpy(found)
        if isinstance(found, np.ndarray) and found.dtype.kind == "f"
        else found
    )
    if not _is_matrix(columns) or len(columns) != d_target:
        raise UserError(
            f"{path} is {_what(columns)} where decoder columns [{d_target}, n] are expected: of "
            "another target?"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target) as temporary:
        save_file({"vectors": columns.detach().T.contiguous()}, temporary)


def _is_matrix(found: object) -> bool:
    return isinstance(found, Tensor) and found.ndim == 2 and found.is_floating_point()


def _what(found: object) -> str:
    return (
        f"{found.dtype} {list(found.shape)}"
        if isinstance(found, Tensor | np.ndarray)
        else f"a {type(found).__name__}"
    )


def _described(path: Path) -> Iterator[dict]:
    """The rows of one split; of a feature that is there twice, the first."""
    explanations = read_pickle(path)
    pairs_path = path.with_name(f"{path.stem.removesuffix('_explanations')}_layer_feature_idxs.pkl")
    pairs = _pairs(pairs_path, read_pickle(pairs_path))
    layers = [layer for layer, _ in pairs]
    seen = set()
    rows, n_rows = dict(zip(pairs, exemplar_rows(layers), strict=True)), Counter(layers)
    try:
        for (layer, number), label in explanations:
            feature = (int(layer), int(number))
            if feature in seen:
                continue
            seen.add(feature)
            scores = label["all_label_scores"]
            labels, chosen = list(label["all_labels"]), label["chosen_label"]
            if not all(isinstance(text, str) for text in [chosen, *labels]) or isinstance(
                label["all_labels"], str
            ):
                raise TypeError(f"labels of {feature} that are no texts")
            yield {
                "layer": feature[0],
                "feature": feature[1],
                "description": chosen,
                "score": _score(scores, chosen),
                "labels": labels,
                "scores": [_score(scores, text) for text in labels],
                "row": rows.get(feature),
                "n_rows": n_rows[feature[0]],
            }
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no list of ((layer, feature), labels): {type(error).__name__} {error}"
        ) from error


def _score(scores: dict, label: str) -> float | None:
    return None if scores.get(label) is None else float(scores[label])


def _pairs(path: Path, pairs: Iterable) -> list[tuple[int, int]]:
    try:
        return [(int(layer), int(number)) for layer, number in pairs]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is no list of (layer, number): {error}") from error


def exemplar_rows(layers: Iterable[int]) -> list[int]:
    """Rows in the exemplar files of vectors that come from these layers, in the archive's order:
    each layer counts from 0."""
    seen: dict[int, int] = defaultdict(int)
    rows = []
    for layer in layers:
        rows.append(seen[layer])
        seen[layer] += 1
    return rows


def descriptions(folder: Path, split: str, layer: int | None = None) -> list[dict]:
    """`ROWS` of a split, or of one layer in it, in the archive's order. Raises `UserError` when
    they are not converted."""
    return read_descriptions(folder / "descriptions" / f"{split}.parquet", layer)


def directions(folder: Path, split: str, layer: int) -> Directions:
    """The features of `descriptions(folder, split, layer)`, in the same order; the layer's file is
    memory-mapped.

    Raises `UserError` when the layer is not converted or has fewer features than the descriptions
    name.
    """
    features = [row["feature"] for row in descriptions(folder, split, layer)]
    path = folder / "features" / f"layer_{layer}.safetensors"
    if not path.is_file():
        raise UserError(f"{path} is missing: convert the archive, or choose a layer that it has")
    with safe_open(path, "pt") as saved:
        return _directions(
            path, saved.get_tensor("vectors"), "sae", split, [layer] * len(features), features
        )


def vectors(archive: Path, data: str, split: str = "test") -> Directions:
    """The vectors of one of the two other archives, unpacked; `data` is "act" or "dact", which one
    it is.

    The k-th of them has the row `exemplar_rows(directions.layers)[k]` in the exemplar files of its
    layer. Raises `UserError` when a file is missing, damaged or of another shape.
    """
    path = archive / f"{split}_indices.json"
    pairs = _pairs(path, _read_json(path))
    layers, numbers = [layer for layer, _ in pairs], [number for _, number in pairs]
    vectors_path = archive / f"{split}_vectors.pt"
    found = read_tensor_file(vectors_path)
    if not _is_matrix(found):
        raise UserError(
            f"{vectors_path} is {_what(found)} where vectors [n, d_target] are expected: is this "
            "the archive?"
        )
    return _directions(vectors_path, found, data, split, layers, numbers)


def _directions(
    path: Path, found: Tensor, data: str, split: str, layers: Sequence[int], numbers: Sequence[int]
) -> Directions:
    """The vectors of these numbers, among those `found` [n, d_target] in `path`."""
    strange = [number for number in numbers if not 0 <= number < len(found)]
    if strange:
        raise UserError(
            f"{path} has {len(found)} vectors, number {strange[0]} is asked for: of another "
            "release than the numbers?"
        )
    names = tuple(f"{data}/{layer}/{number}" for layer, number in zip(layers, numbers, strict=True))
    n = len(names)
    return Directions(
        names, (data,) * n, (split,) * n, tuple(layers), found[list(numbers)].float(), ("",) * n
    )


def exemplar_config(archive: Path) -> dict:
    """How the authors made the exemplars: `hf_model_id`, `seq_len`, `k`, `activation_type`, data
    sets, ..."""
    return _read_json(archive / "exemplar_config.json")


def exemplars(
    archive: Path,
    layer: int,
    rows: Sequence[int],
    n_rows: int,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    n_top: int,
    n_random: int,
    corpus: str = "train",
) -> tuple[list[int], Exemplars]:
    """Exemplars of the vectors with these rows: which of `rows` (positions in it) have enough
    sequences, and theirs.

    `rows`, `n_rows`: of `descriptions` (null is no row), or of `exemplar_rows`; n_rows is how many
    rows the layer must have: the archive holds exemplars of one split only, and rows of another
    would be other features'. `tokenizer` is the target's. Of each sequence the `length` tokens
    around its highest activation are taken, BOS and padding left out; the `n_random` others are the
    first of `random_{corpus}`, which is not read for 0. What `mean` and `peak` are: see
    `make_exemplars`.

    Raises `UserError` when a file is missing, damaged or of another shape, or no vector has enough
    sequences.
    """
    text = text_tokens(tokenizer)

    def windows(folder: Path) -> list[list[Window]]:
        activations, ids = _map(folder / "max_seq_acts.npy"), _map(folder / "max_seq_ids.npy")
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
        found = [
            [window(ids[row, i], activations[row, i], text, length) for i in range(ids.shape[1])]
            for row in rows
        ]
        return [[part for part in parts if part is not None] for parts in found]

    others = (
        windows(archive / f"random_{corpus}" / f"layer{layer}") if n_random else [[] for _ in rows]
    )
    return make_exemplars(windows(archive / corpus / f"layer{layer}"), others, n_top, n_random)


def _map(path: Path) -> np.ndarray:
    """A .npy file, memory-mapped; one of Python objects, which would be a pickle, is refused."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing: the archive has no exemplars of this layer in this part of its "
            "text"
        )
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is damaged, or no array of numbers ({error}): unpack the archive again"
        ) from error


def _read_json(path: Path) -> dict | list:
    if not path.is_file():
        raise UserError(f"{path} is missing: unpack the authors' whole archive there")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): unpack the archive again") from error
