"""Directions v of a target's residual stream (section 3.2): features of dictionaries (made in
introspect_utils.features.dictionaries), full activations (ACT) and activation differences
(dACT)."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from introspect_utils.data.facts import Fact, FactPair
from introspect_utils.data.prompts import target_prompt
from introspect_utils.models.load import LanguageModel
from introspect_utils.models.residual import clean_run, pad_left
from introspect_utils.models.residual_store import LEAD_IN, read_residuals
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import opened, replaced

LABELS = ("names", "data", "split", "layers", "sources")


@dataclass(frozen=True, eq=False)
class Directions:
    """n directions of a target's residual stream.

    `names`: unique, "sae/12/345" (layer, latent), "act/12/7" or "dact/12/7"; `data`: "sae", "act"
    or "dact"; `split`: "train" or "test" (act and dact are all test); `layers`: the layer each
    comes from; `vectors` [n, d_target] float32; `sources`: where an act or dact comes from, the
    text with its token marked <<<like this>>>, "" for sae.
    """

    names: tuple[str, ...]
    data: tuple[str, ...]
    split: tuple[str, ...]
    layers: tuple[int, ...]
    vectors: Tensor
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.vectors) or any(
            len(getattr(self, label)) != len(self.vectors) for label in LABELS
        ):
            raise ValueError(
                "directions need unique names, and as many labels of every kind as vectors"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, indices: Sequence[int]) -> Directions:
        """Some of the directions, in this order."""
        chosen = {label: tuple(getattr(self, label)[i] for i in indices) for label in LABELS}
        return replace(
            self, **chosen, vectors=self.vectors[torch.as_tensor(indices, dtype=torch.int64)]
        )

    def where(
        self, data: str | None = None, split: str | None = None, layer: int | None = None
    ) -> list[int]:
        """Numbers of the directions with these labels; None stands for any."""
        labels = zip(self.data, self.split, self.layers, strict=True)
        wanted = (data, split, layer)
        return [
            i
            for i, own in enumerate(labels)
            if all(w is None or w == o for w, o in zip(wanted, own, strict=True))
        ]

    def centred(self, means: Mapping[int, Tensor]) -> Directions:
        """The directions less the mean [d_target] of their layer's residuals, which full
        activations share most of."""
        return replace(
            self, vectors=self.vectors - torch.stack([means[layer] for layer in self.layers])
        )

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
    `contexts` [N, T].

    No token is used twice. Raises `UserError` when there are too few.
    """
    wanted = n_per_layer * len(layers)
    if contexts.numel() < wanted:
        raise UserError(
            f"{contexts.numel()} held-out tokens are too few for {wanted} activations: cut more "
            "held-out contexts"
        )
    places = random.Random(seed).sample(
        range(contexts.numel()), wanted
    )  # the first n_per_layer are the first layer's, and so on
    rows, columns = (
        torch.tensor(places) // contexts.shape[1],
        torch.tensor(places) % contexts.shape[1],
    )
    needed, rows = rows.unique(return_inverse=True)
    vectors = torch.empty(wanted, lm.width)
    for batch, h in read_residuals(lm, contexts[needed], layers, batch_size):
        for number, layer in enumerate(layers):
            own = torch.arange(number * n_per_layer, (number + 1) * n_per_layer)
            own = own[(rows[own] >= batch.start) & (rows[own] < batch.stop)]
            vectors[own] = h[layer][rows[own] - batch.start, columns[own]].float().cpu()
    ids = contexts[needed][rows].tolist()
    sources = [
        marked_text(lm, context, column)
        for context, column in zip(ids, columns.tolist(), strict=True)
    ]
    return _test_directions("act", layers, n_per_layer, vectors, sources)


def activation_differences(
    lm: LanguageModel,
    pairs: Sequence[FactPair],
    demonstrations: dict[str, list[Fact]],
    layers: Sequence[int],
    n_per_layer: int,
    seed: int,
    with_options: bool = True,
    batch_size: int = 32,
) -> Directions:
    """dACT: h(l, t)(x) - h(l, t)(x') of counterfactual pairs (section 2.3), each at one of the
    layers, drawn at random.

    The prompts are those of T_patch, behind the lead-in of `read_residuals`. t is the final token
    of the subject; where the pairs do not suffice, also tokens behind the first difference that are
    the same in both prompts, counted from the end. Raises `UserError` when that is not enough
    either.
    """
    rng, wanted = random.Random(seed), n_per_layer * len(layers)
    prepared = [
        _aligned(lm, pair, demonstrations[pair.original.relation], with_options) for pair in pairs
    ]
    finals = [(i, at.final) for i, at in enumerate(prepared) if at.final]
    others = [
        (i, t) for i, at in enumerate(prepared) for t in range(1, at.n_same + 1) if t != at.final
    ]
    places = (rng.sample(finals, len(finals)) + rng.sample(others, len(others)))[:wanted]
    if len(places) < wanted:
        raise UserError(
            f"{len(pairs)} pairs have {len(places)} places for differences, and {wanted} are "
            "needed: make more pairs"
        )
    rng.shuffle(places)
    vectors, sources = torch.empty(wanted, lm.width), [""] * wanted
    order = sorted(
        range(wanted), key=lambda i: len(prepared[places[i][0]].ids)
    )  # prompts of like length together
    for start in range(0, wanted, batch_size):
        batch = order[start : start + batch_size]
        runs = []
        for text in ("ids", "other_ids"):
            prompts = [lm.encode(LEAD_IN) + getattr(prepared[places[i][0]], text) for i in batch]
            padded = pad_left(prompts, lm.tokenizer.pad_token_id, lm.device)
            runs.append(clean_run(lm.model, *padded, layers).residual)
        for row, i in enumerate(batch):
            layer, (pair, from_end) = layers[i // n_per_layer], places[i]
            vectors[i] = (
                runs[0][layer][row, -from_end].float() - runs[1][layer][row, -from_end].float()
            ).cpu()
            texts = prepared[pair].ids, prepared[pair].other_ids
            sources[i] = "\nminus\n".join(
                marked_text(lm, ids, len(ids) - from_end) for ids in texts
            )
    return _test_directions("dact", layers, n_per_layer, vectors, sources)


@dataclass(frozen=True)
class _Aligned:
    """x and x' of a pair as token ids, without BOS.

    `final`: the place from the end of the subject's final token, 0 if it is not one place in both.
    `n_same`: how many tokens behind the first difference, counted from the end, are the same in
    both.
    """

    ids: list[int]
    other_ids: list[int]
    final: int
    n_same: int


def _aligned(
    lm: LanguageModel, pair: FactPair, demonstrations: Sequence[Fact], with_options: bool
) -> _Aligned:
    texts, finals = [], []
    for fact in (pair.original, pair.counterfactual):
        prompt = target_prompt(fact, demonstrations, pair.options if with_options else ())
        encoded = lm.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
        final = max(
            i for i, (start, _) in enumerate(encoded["offset_mapping"]) if start < prompt.subject[1]
        )
        texts.append(encoded["input_ids"])
        finals.append(len(texts[-1]) - final)
    n_before = next(i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
    behind = [ids[:n_before:-1] for ids in texts]  # from the end
    n_same = next(
        (i for i, (a, b) in enumerate(zip(*behind, strict=False)) if a != b), min(map(len, behind))
    )
    return _Aligned(*texts, finals[0] if finals[0] == finals[1] else 0, n_same)


def marked_text(lm: LanguageModel, ids: Sequence[int], position: int) -> str:
    """The text of the tokens, without special ones, with that of `position` <<<like this>>>."""
    parts = ids[:position], ids[position : position + 1], ids[position + 1 :]
    settings = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before, token, after = (lm.tokenizer.decode(part, **settings) for part in parts)
    return f"{before}<<<{token}>>>{after}"


def _test_directions(
    data: str, layers: Sequence[int], n_per_layer: int, vectors: Tensor, sources: list[str]
) -> Directions:
    """Directions of the layers in turn, `n_per_layer` each; no explainer is trained on any of
    them."""
    n = len(vectors)
    names = tuple(f"{data}/{layer}/{number}" for layer in layers for number in range(n_per_layer))
    of_layer = tuple(layer for layer in layers for _ in range(n_per_layer))
    return Directions(names, (data,) * n, ("test",) * n, of_layer, vectors, tuple(sources))
