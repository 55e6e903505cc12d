"""Exemplar search: the eight sequences of a corpus that each direction of a layer is most active
in, against delphi's caching."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.timing import Comparison, Peer, decoder_macs, main
from introspect_utils.data import text
from introspect_utils.features.exemplars import find_exemplars
from introspect_utils.models.contexts import contexts
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual_store import LEAD_IN, open_residuals, store_residuals

DIRECTIONS, LENGTH, TOP, BATCH = 512, 32, 8, 32
KEPT = 0.05  # of a direction's activations that are handed to delphi, which is made for sparse ones


def compare(lm: LanguageModel, n: int, directions: int = DIRECTIONS) -> Comparison:
    """n contexts of 32 tokens, random unit directions, the middle layer; from text to the top
    sequences of each direction."""
    corpus = contexts(lm, text.corpus_texts("packaged", 0), LENGTH, n)
    vectors = torch.nn.functional.normalize(
        torch.randn(directions, lm.width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    layer, lead_in = lm.n_layers // 2, torch.tensor(lm.encode(LEAD_IN))
    with (
        TemporaryDirectory() as folder
    ):  # where the peer's activations begin: it is told, which takes no time of its own
        store_residuals(lm, corpus[:: -(-n // 100)], [layer], Path(folder), BATCH)
        a = open_residuals(Path(folder), layer).float().flatten(0, 1) @ vectors.T
    least = a.quantile(1 - KEPT, dim=0).clamp(min=1e-3)

    def ours() -> Tensor:
        with TemporaryDirectory() as folder:
            store_residuals(lm, corpus, [layer], Path(folder), BATCH)
            found = find_exemplars(
                open_residuals(Path(folder), layer), corpus, vectors, TOP, n_random=2, seed=0
            )
            return found.activations[:, :TOP].amax(-1)

    def same(ours: Tensor, its: Tensor) -> None:
        """The peaks of the top sequences, which ours reads off residuals in bfloat16."""
        there = its > 0  # a direction may have fewer sequences than eight above `least`
        assert there.float().mean() > 0.9
        torch.testing.assert_close(
            its[there], ours[there], rtol=0.02, atol=0.02 * ours.max().item()
        )

    peer = partial(delphi, lm, corpus, lead_in, vectors, least, layer)
    peers = (Peer("delphi: LatentCache, then its windows by maximum", peer, n, 3, same, "delphi"),)
    macs = (
        decoder_macs(lm, corpus.numel() + n * len(lead_in), layer + 1)
        + corpus.numel() * vectors.numel()
    )
    return Comparison("exemplars", "context", ours, n, peers, macs)


def delphi(
    lm: LanguageModel, corpus: Tensor, lead_in: Tensor, vectors: Tensor, least: Tensor, layer: int
) -> Tensor:
    """Peaks [directions, TOP] of the top sequences, 0 where there are fewer: delphi's cache and its
    pooling, as it loads them."""
    from delphi.latents import LatentCache, pool_max_activation_windows

    def sparse(h: Tensor) -> Tensor:
        a = h @ vectors.T
        a[:, : len(lead_in)] = 0
        return a * (a > least)

    tokens = torch.cat([lead_in.expand(len(corpus), -1), corpus], 1)
    cache = LatentCache(
        lm.model.get_decoder(), {f"layers.{layer}": sparse}, batch_size=min(BATCH, len(corpus))
    )
    cache.run(tokens.numel(), tokens)
    places, activations = (
        cache.cache.latent_locations[f"layers.{layer}"],
        cache.cache.latent_activations[f"layers.{layer}"],
    )
    order = places[:, 2].argsort(
        stable=True
    )  # as TensorBuffer does: one latent's activations together
    counts = torch.bincount(places[:, 2], minlength=len(vectors)).tolist()
    found = torch.zeros(len(vectors), TOP)
    parts = zip(places[order].split(counts), activations[order].split(counts), strict=True)
    for i, (place, active) in enumerate(parts):
        if len(active):
            windows = pool_max_activation_windows(
                active, tokens, place[:, 0], place[:, 1], tokens.shape[1]
            )[1]
            found[i, : len(windows)] = windows[:TOP].amax(-1)
    return found


if __name__ == "__main__":
    main(compare, n=1024, check=64, unit="contexts")
