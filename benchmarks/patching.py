"""Patching labels (eq. 4): all blocks x positions of pairs of packaged facts, each the greedy next
token under one patching."""

from collections.abc import Iterable, Sequence

from benchmarks.patching_peers import Pair, nnsight, plain, transformer_lens
from benchmarks.timing import Comparison, Peer, decoder_macs, main
from introspect_utils.data import facts
from introspect_utils.data.prompts import target_prompt
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.tasks import patching

BLOCKS = 4  # of layers, as in the profile small


def compare(lm: LanguageModel, n: int) -> Comparison:
    """Labels of n pairs against TransformerLens, nnsight, and plain batched hooks that recompute
    everything."""
    everything = facts.load_facts("packaged")
    demonstrations = patching.choose_demonstrations(everything, 2, seed=0)
    chosen = facts.make_pairs(facts.sample_facts(everything, 2500, seed=0), n, seed=0)
    pairs = [tokenised(lm, pair, demonstrations[pair.original.relation]) for pair in chosen]
    blocks, some = patching.layer_blocks(lm.n_layers, BLOCKS), typical(pairs, max(1, n // 25))

    number = {pair.texts: i for i, pair in enumerate(pairs)}

    def ours() -> dict[tuple, str]:
        rows = patching.patch_outcomes(
            lm, chosen, demonstrations, BLOCKS, with_options=False, known_only=False
        )
        return {key(row): row["ablated_continuation"][0] for row in rows}

    def key(row: dict) -> tuple:
        pair, position = (
            number["".join(row["input_tokens"]), row["counterfactual_text"]],
            row["patch_position"]["orig_pos"],
        )
        return pair, tuple(row["layer"]), len(pairs[pair].ids) - position

    def same(ours: dict, its: dict) -> None:
        assert its and its == {label: ours[label] for label in its}

    def labels(of: Iterable[Pair]) -> int:
        return len(blocks) * sum(pair.n_aligned for pair in of)

    n_some = labels(some.values())
    peers = (
        Peer(
            "TransformerLens",
            lambda: transformer_lens(lm, some, blocks),
            n_some,
            12,
            same,
            "transformer_lens",
        ),
        Peer(
            "nnsight, a trace a label",
            lambda: nnsight(lm, some, blocks, together=False),
            n_some,
            12,
            same,
            "nnsight",
        ),
        Peer(
            "nnsight, positions together",
            lambda: nnsight(lm, some, blocks, together=True),
            n_some,
            12,
            same,
            "nnsight",
        ),
        Peer("plain batched hooks", lambda: plain(lm, pairs, blocks), labels(pairs), 4, same),
    )
    return Comparison(
        "patching", "label", ours, labels(pairs), peers, least_macs(lm, pairs, blocks)
    )


def tokenised(
    lm: LanguageModel, pair: facts.FactPair, demonstrations: Sequence[facts.Fact]
) -> Pair:
    texts = tuple(
        target_prompt(fact, demonstrations).text for fact in (pair.original, pair.counterfactual)
    )
    ids, other = map(lm.encode, texts)
    different = next(i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b)
    return Pair(texts, ids, other, min(len(ids), len(other)) - different)


def typical(pairs: Sequence[Pair], n: int) -> dict[int, Pair]:
    """{number: pair} of the n pairs whose length is nearest to that of the average label: whoever
    goes pair by pair has his rate from them.
    """
    mean = sum(pair.n_aligned * len(pair.ids) for pair in pairs) / sum(
        pair.n_aligned for pair in pairs
    )
    return {
        i: pairs[i]
        for i in sorted(range(len(pairs)), key=lambda i: abs(len(pairs[i].ids) - mean))[:n]
    }


def least_macs(
    lm: LanguageModel, pairs: Sequence[Pair], blocks: Sequence[tuple[int, ...]]
) -> float:
    """Two clean runs a pair; for each label the tokens from the patch on through the layers above
    the block's first."""
    macs = sum(decoder_macs(lm, len(pair.ids) + len(pair.other), logits=2) for pair in pairs)
    for pair in pairs:
        for block in blocks:
            above, tokens = lm.n_layers - 1 - block[0], pair.n_aligned * (pair.n_aligned + 1) / 2
            macs += decoder_macs(lm, tokens, above) + decoder_macs(lm, 0, logits=pair.n_aligned)
    return macs


if __name__ == "__main__":
    main(compare, n=50, check=2, unit="pairs")
