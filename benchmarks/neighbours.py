"""Nearest neighbours (section 3.3): the top-1 of each query among 300,000 directions, against
faiss's exact index."""

import torch
from torch import Tensor

from benchmarks.timing import Comparison, Peer, installed, main
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.scores.neighbours import nearest

TRAIN = 300_000


def compare(lm: LanguageModel, n: int, train: int = TRAIN) -> Comparison:
    """n queries among 300,000 vectors of the model's width, all of norm 1. Filling faiss's index is
    not timed."""
    draw = torch.Generator().manual_seed(0)
    vectors, queries = (
        torch.nn.functional.normalize(torch.randn(m, lm.width, generator=draw), dim=-1)
        for m in (train, n)
    )
    index = faiss_index(vectors) if installed("faiss") else None

    def faiss() -> tuple[Tensor, Tensor]:
        value, found = (torch.from_numpy(part[:, 0]) for part in index.search(queries.numpy(), 1))
        return found, value

    def same(ours: tuple[Tensor, Tensor], its: tuple[Tensor, Tensor]) -> None:
        torch.testing.assert_close(its[1], ours[1], rtol=0, atol=1e-5)
        assert (
            its[0] == ours[0]
        ).float().mean() > 0.999  # products that are equal but for rounding

    peers = (Peer("faiss IndexFlatIP", faiss, n, 1, same, "faiss"),)
    return Comparison(
        "neighbours",
        "query",
        lambda: nearest(vectors, queries, "dot"),
        n,
        peers,
        n * vectors.numel(),
    )


def faiss_index(vectors: Tensor):
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.numpy())
    return index


if __name__ == "__main__":
    main(compare, n=1024, check=64, unit="queries")
