"""Neuronpedia's exports: descriptions of SAE features, and sequences with the features'
activations.

Known, from Neuronpedia's documentation and its public export script:
`v1/{model}/{source}/{kind}/batch-N.jsonl.gz` with N = 0, 1, ... and the kinds `features`,
`activations`, `explanations` (for some sources also `explanations-{model that wrote them}`). A line
is a JSON object. An explanation: `id, modelId, layer` (the source's id)`, index` (a string)`,
authorId, description, embedding, typeName, explanationModelName, ...`, in the order of `index` as
text, so a feature's may lie in two batches. An activation: `modelId, layer, index, tokens, values,
maxValue, maxValueTokenIndex, minValue, binMin, binMax, ...`. How much a batch holds differs. A
source may lack a kind (layer 3 of LlamaScope has no explanations).

Assumed: the number before the first "-" of a source is its layer; tokens are spelled as in the
vocabulary, with a blank for its mark of one ("Ġ", "▁"), a line break for "Ċ", and, in parts of the
exports, the bytes of a token decoded. Values are the SAE's activations, after its nonlinearity and
in its own scale, which is not <h, v> of eq. 2.
"""

import gzip
import http.client
import itertools
import json
import shutil
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from introspect_utils.extras.archives import Window, make_exemplars, text_tokens, window
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import replaced

TIMEOUT = 60  # seconds without an answer
NUMBER = int | float
KINDS = {  # what a value of an export may be
    "index": lambda value: (
        isinstance(value, str)
        and value.isascii()
        and value.isdecimal()
        or type(value) is int
        and value >= 0
    ),
    "description": lambda value: value is None or isinstance(value, str),
    "tokens": lambda value: (
        isinstance(value, list) and all(isinstance(token, str) for token in value)
    ),
    "values": lambda value: (
        isinstance(value, list)
        and all(isinstance(v, NUMBER) and type(v) is not bool for v in value)
    ),
}
MARKS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})


@dataclass(frozen=True)
class Export:
    """One source of one model, e.g. `Export(folder, "llama3.1-8b", "19-llamascope-res-131k")`.

    `folder` is what holds `v1`. With a `base_url` (what stands before `/v1/` in the addresses),
    batches that are not there are downloaded into it when they are needed.
    """

    folder: Path
    model: str
    source: str
    base_url: str = ""

    @property
    def layer(self) -> int:
        number = self.source.split("-")[0]
        if not number.isdecimal():
            raise UserError(
                f"source {self.source!r} does not start with its layer, as "
                "'19-llamascope-res-131k' does"
            )
        return int(number)


@dataclass(frozen=True, eq=False)
class Activation:
    """One sequence for a feature: its tokens as Neuronpedia spells them, and `values` [S] float32,
    the feature's activations."""

    feature: int
    tokens: tuple[str, ...]
    values: np.ndarray


def batches(export: Export, kind: str) -> Iterator[Path]:
    """The files of one kind, in order, each downloaded when its turn comes if the export has a
    `base_url`.

    Raises `UserError` when there is none, one is missing between others, or a download fails.
    """
    folder = export.folder / "v1" / export.model / export.source / kind
    last = max((int(path.name[6:-9]) for path in folder.glob("batch-[0-9]*.jsonl.gz")), default=-1)
    with tqdm(desc=f"{export.source} {kind}", unit="batch", mininterval=10) as progress:
        for number in itertools.count():
            path = folder / f"batch-{number}.jsonl.gz"
            if not path.is_file() and not (export.base_url and _download(export, kind, path)):
                break
            yield path
            progress.update()
    if number == 0:
        raise UserError(
            f"{folder} has no batch-0.jsonl.gz: there are no {kind} of {export.source}, or they "
            "were not downloaded"
        )
    if number <= last:
        raise UserError(f"{folder} has no {path.name}, but later ones: download it too")


def _download(export: Export, kind: str, path: Path) -> bool:
    """Download a batch, whole or not at all; False if there is no such batch."""
    address = f"{export.base_url.rstrip('/')}/v1/{export.model}/{export.source}/{kind}/{path.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            replaced(path) as temporary,
            urllib.request.urlopen(address, timeout=TIMEOUT) as answer,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
            expected = int(answer.headers.get("Content-Length", file.tell()))
            if file.tell() != expected:
                raise OSError(f"{file.tell()} of {expected} bytes arrived")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise UserError(
            f"cannot download {address} ({error}): check `base_url`; what has arrived is kept"
        ) from error
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as error:  # no network, time-out, disk full; not an address
        raise UserError(
            f"cannot download {address} ({error}): run this again, what has arrived is kept"
        ) from error
    return True


def _rows(export: Export, path: Path, columns: tuple[str, ...]) -> Iterator[dict]:
    """The lines of a batch. Raises `UserError` when it is damaged, lacks a column, has a value of
    another kind, or belongs to another source."""
    try:
        if path.stat().st_size == 0:  # gzip takes it for an empty file
            raise EOFError("no bytes")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                missing = (
                    [name for name in columns if name not in row]
                    if isinstance(row, dict)
                    else columns
                )
                if missing:
                    raise UserError(
                        f"{path}, line {number}: no {', '.join(missing)}; this is not one of "
                        "Neuronpedia's exports"
                    )
                if (row["modelId"], row["layer"]) != (export.model, export.source):
                    raise UserError(
                        f"{path}, line {number}: is of {row['modelId']}/{row['layer']}; put it "
                        "where that belongs"
                    )
                strange = [name for name in columns if name in KINDS and not KINDS[name](row[name])]
                if strange:
                    wrong = f"{strange[0]} is {row[strange[0]]!r:.80}"
                    raise UserError(
                        f"{path}, line {number}: {wrong}; this is not one of Neuronpedia's exports"
                    )
                yield row | {"index": int(row["index"])}
    except (
        EOFError,
        OSError,
        zlib.error,
        ValueError,
        RecursionError,
    ) as error:  # also: no JSON, no UTF-8
        raise UserError(
            f"{path} is truncated or damaged ({error}): delete it and download it again"
        ) from error


def descriptions(export: Export, kind: str = "explanations") -> list[dict]:
    """Rows of `published.DESCRIPTIONS` in order of feature: the chosen label is the first, and
    there are no scores.

    `kind` is the folder, where a source has several. Raises `UserError` as `batches` does, or when
    a file is damaged.
    """
    labels: dict[int, dict[str, None]] = {}  # of each feature, in order, each once
    for path in batches(export, kind):
        for row in _rows(export, path, ("modelId", "layer", "index", "description")):
            if row["description"] and row["description"].strip():
                labels.setdefault(row["index"], {})[row["description"].strip()] = None
    return [
        {
            "layer": export.layer,
            "feature": feature,
            "description": next(iter(labels[feature])),
            "score": None,
            "labels": list(labels[feature]),
            "scores": [None] * len(labels[feature]),
        }
        for feature in sorted(labels)
    ]


def activations(export: Export, features: Collection[int] | None = None) -> Iterator[Activation]:
    """The sequences of these features (of all), as they stand in the files: one line is held at a
    time."""
    for path in batches(export, "activations"):
        for row in _rows(export, path, ("modelId", "layer", "index", "tokens", "values")):
            if features is not None and row["index"] not in features:
                continue
            if len(row["tokens"]) != len(row["values"]):
                n_tokens, n_values = len(row["tokens"]), len(row["values"])
                raise UserError(
                    f"{path}: feature {row['index']} has {n_values} values for {n_tokens} tokens; "
                    "download it again"
                )
            tokens = tuple(
                sys.intern(token) for token in row["tokens"]
            )  # the same few thousand strings again and again
            yield Activation(row["index"], tokens, np.asarray(row["values"], np.float32))


def token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of tokens by their spellings in the exports. A spelling that two tokens share is left
    out."""
    ids: dict[str, int] = {}
    shared = set()
    for token, number in tokenizer.get_vocab().items():
        for spelling in {
            token,
            token.translate(MARKS),
            tokenizer.convert_tokens_to_string([token]),
        }:
            if ids.setdefault(spelling, number) != number:
                shared.add(spelling)
    return {spelling: number for spelling, number in ids.items() if spelling not in shared}


def exemplars(
    export: Export,
    features: Collection[int],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    n_top: int,
    n_random: int,
    seed: int,
) -> tuple[list[int], Exemplars]:
    """The features that have enough sequences, and their exemplars, in order of feature;
    `tokenizer` is the target's.

    Of each exported sequence the `length` tokens around its highest activation are taken, where
    they are text of known ids. The top `n_top` are the highest; the others are drawn from the rest,
    which Neuronpedia took from lower ranges of activation: they are no random sample of the corpus.
    What `mean` and `peak` are: see `make_exemplars`.

    Raises `UserError` as `descriptions` does, or when no feature has enough sequences.
    """
    ids, text = token_ids(tokenizer), text_tokens(tokenizer)
    found: dict[int, list[Window]] = {feature: [] for feature in sorted(features)}
    for activation in activations(export, found.keys()):
        numbers = np.array([ids.get(token, -1) for token in activation.tokens], np.int64)
        part = window(numbers, activation.values, text, length)
        if part is not None:
            found[activation.feature].append(part)
    tops, others = [], []
    for feature, parts in found.items():
        parts.sort(key=lambda part: -part[1].max())
        rest = parts[n_top:]
        tops.append(parts)
        others.append(
            [rest[i] for i in np.random.default_rng((seed, feature)).permutation(len(rest))]
        )
    kept, result = make_exemplars(tops, others, n_top, n_random)
    return [list(found)[number] for number in kept], result
