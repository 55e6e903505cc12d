"""Directions v of a target's residual stream (section 3.2): features of dictionaries (made in
`dictionaries`), full activations (ACT) and activation differences (dACT)."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from introspect_utils.data.facts import FactPair
from introspect_utils.features.pairs import Demonstrations, TokenPair
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import clean_run, pad_left
from introspect_utils.models.residual_store import LEAD_IN, read_residuals
from introspect_utils.models.tokens import texts_of
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import opened, replaced

LABELS = ("names", "data", "split", "layers", "sources")


@dataclass(frozen=True, eq=False)
class Directions:
    """n directions of a target's residual stream. Raises `UserError` for one that is not finite.

    `names`: unique, "sae/12/345" (layer, latent), "act/12/7" or "dact/12/7"; `data`: "sae", "act"
    or "dact"; `split`: "train" or "test" (act and dact are all test); `layers`: the layer each
    comes from; `vectors` [n, d_target] float32; `sources`: of an act or dact the text with its
    token marked <<<like this>>>, "" for sae.
    """

    names: tuple[str, ...]
    data: tuple[str, ...]
    split: tuple[str, ...]
    layers: tuple[int, ...]
    vectors: Tensor
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, label)) for label in LABELS}
        if {len(set(self.names)), *lengths} != {len(self.vectors)}:
            raise ValueError(
                "directions need unique names, and as many labels of every kind as vectors"
            )
        broken = ~self.vectors.isfinite().all(-1)
        if broken.any():
            raise UserError(
                f"the vector of direction {self.names[broken.nonzero()[0]]} is not finite: the "
                "residual stream or the dictionary it comes from is damaged; make it again"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, indices: Sequence[int]) -> Directions:
        """Some of the directions, in this order."""
        chosen = {label: tuple(getattr(self, label)[i] for i in indices) for label in LABELS}
        vectors = self.vectors[torch.as_tensor(indices, dtype=torch.int64)]
        return replace(self, **chosen, vectors=vectors)

    def where(
        self, data: str | None = None, split: str | None = None, layer: int | None = None
    ) -> list[int]:
        """Numbers of the directions with these labels; None stands for any."""
        labels = zip(self.data, self.split, self.layers, strict=True)
        return [
            i
            for i, (d, s, n) in enumerate(labels)
            if data in (None, d) and split in (None, s) and layer in (None, n)
        ]

    def centred(self, means: Mapping[int, Tensor]) -> Directions:
        """The directions less the mean [d_target] of their layer's residuals."""
        mean = torch.stack([means[layer] for layer in self.layers])
        return replace(self, vectors=self.vectors - mean)

    @staticmethod
    def concat(parts: Sequence[Directions]) -> Directions:
        """The directions of all parts, in order."""
        labels = {label: sum((getattr(part, label) for part in parts), ()) for label in LABELS}
        return Directions(**labels, vectors=torch.cat([part.vectors for part in parts]))

    def save(self, path: Path) -> None:
        """Write one safetensors file, the labels as JSON in its metadata, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {label: json.dumps(getattr(self, label)) for label in LABELS}
        with replaced(path) as temporary:
            save_file({"vectors": self.vectors.contiguous()}, temporary, metadata)

    @staticmethod
    def load(path: Path) -> Directions:
        """Read what `save` wrote. Raises `UserError` when there is no such file, or it is
        damaged."""
        with opened(path, "notebooks/01_data_features.ipynb") as saved:
            labels = {label: tuple(json.loads(value)) for label, value in saved.metadata().items()}
            return Directions(**labels, vectors=saved.get_tensor("vectors"))


def full_activations(
    lm: LanguageModel,
    contexts: Tensor,
    layers: Sequence[int],
    n_per_layer: int,
    seed: int,
    batch_size: int = 64,
) -> Directions:
    """ACT: h(l, t)(x) at `n_per_layer` tokens drawn at random for each layer from held-out
    `contexts` [N, T], none used twice. Raises `UserError` when there are too few."""
    n = n_per_layer * len(layers)
    if contexts.numel() < n:
        raise UserError(
            f"{contexts.numel()} held-out tokens are too few for {n} activations: cut more "
            "held-out contexts"
        )
    # the first n_per_layer places are the first layer's, and so on
    places = torch.tensor(random.Random(seed).sample(range(contexts.numel()), n))
    of_token, columns = places // contexts.shape[1], places % contexts.shape[1]
    needed, rows = of_token.unique(return_inverse=True)
    vectors = torch.empty(n, lm.width)
    for batch, h in read_residuals(lm, contexts[needed], layers, batch_size):
        for layer, of_layer in zip(layers, torch.arange(n).split(n_per_layer), strict=True):
            here = of_layer[(rows[of_layer] >= batch.start) & (rows[of_layer] < batch.stop)]
            vectors[here] = h[layer][rows[here] - batch.start, columns[here]].float().cpu()
    marked = zip(contexts[of_token].tolist(), columns.tolist(), strict=True)
    sources = [marked_text(lm, *place) for place in marked]
    return _test_directions("act", layers, n_per_layer, vectors, sources)


def activation_differences(
    lm: LanguageModel,
    pairs: Sequence[FactPair],
    demonstrations: Demonstrations,
    layers: Sequence[int],
    n_per_layer: int,
    seed: int,
    with_options: bool = True,
    batch_size: int = 32,
) -> Directions:
    """dACT: h(l, t)(x) - h(l, t)(x') of counterfactual pairs (section 2.3), each at one of the
    layers, drawn at random. The prompts are those of T_patch, behind the lead-in of
    `read_residuals`.

    t is the final token of the subject; where the pairs do not suffice, also tokens behind the
    first difference that are the same in both prompts. Raises `UserError` when there are too few.
    """
    rng, n, lead_in = random.Random(seed), n_per_layer * len(layers), lm.encode(LEAD_IN)
    encoded = [TokenPair.of(lm, pair, demonstrations, with_options) for pair in pairs]
    finals = [(pair, pair.final) for pair in encoded if pair.final]
    same = [(pair, t) for pair in encoded for t in range(1, pair.n_same + 1)]
    others = [(pair, t) for pair, t in same if t != pair.final]
    places = (rng.sample(finals, len(finals)) + rng.sample(others, len(others)))[:n]
    if len(places) < n:
        raise UserError(
            f"{len(pairs)} pairs have {len(places)} places for differences, and {n} are needed: "
            "make more pairs"
        )
    rng.shuffle(places)
    vectors, sources = torch.empty(n, lm.width), [""] * n
    order = sorted(range(n), key=lambda i: len(places[i][0].texts[0]))  # like lengths together
    for start in range(0, n, batch_size):
        batch = order[start : start + batch_size]
        texts = [places[i][0].texts for i in batch]
        runs = []
        for of_text in zip(*texts, strict=True):
            prompts = [lead_in + ids for ids in of_text]
            padded = pad_left(prompts, lm.tokenizer.pad_token_id, lm.device)
            runs.append(clean_run(lm.model, *padded, layers).residual)
        for row, i in enumerate(batch):
            layer, from_end = layers[i // n_per_layer], places[i][1]
            h, other = (run[layer][row, -from_end].float().cpu() for run in runs)
            vectors[i] = h - other
            marked = (marked_text(lm, ids, len(ids) - from_end) for ids in texts[row])
            sources[i] = "\nminus\n".join(marked)
    return _test_directions("dact", layers, n_per_layer, vectors, sources)


def marked_text(lm: LanguageModel, ids: Sequence[int], position: int) -> str:
    """The text of the tokens, without special ones, with that of `position` <<<like this>>>."""
    parts = ids[:position], ids[position : position + 1], ids[position + 1 :]
    before, token, after = texts_of(lm.tokenizer, parts, special=False)
    return f"{before}<<<{token}>>>{after}"


def _test_directions(
    data: str, layers: Sequence[int], n_per_layer: int, vectors: Tensor, sources: list[str]
) -> Directions:
    """Directions of the layers in turn, `n_per_layer` each; no explainer is trained on any."""
    n = len(vectors)
    names = tuple(f"{data}/{layer}/{number}" for layer in layers for number in range(n_per_layer))
    of_layer = tuple(layer for layer in layers for _ in range(n_per_layer))
    return Directions(names, (data,) * n, ("test",) * n, of_layer, vectors, tuple(sources))
