"""T_patch (sections 2.3, 5.1, E.2): what happens to the target's next token when part of a
counterfactual run is patched in.

x and x' state a fact about two subjects. For every block of layers and every token t from the first
difference on, v = avg over the block of h(l, t)(x') replaces h(l, t)(x) at all layers l of the
block (eq. 4), and the explanation says whether the greedy next token changes, and to what (eq. 5).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from introspect_utils.data.facts import Fact, FactPair
from introspect_utils.data.prompts import Prompt, target_prompt
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import clean_run, pad_left, patched_next_token
from introspect_utils.models.tokens import token_spans
from introspect_utils.settings.errors import UserError


def tokens(target: LanguageModel, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """(ids, character spans) of `text` behind one BOS, whose span is empty. Parts of one character
    share its span."""
    spans, ids = token_spans(target.tokenizer, text)[1], target.encode(text)
    return ids, [(0, 0)] * (len(ids) - len(spans)) + spans


def pieces(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The tokens as strings that join to `text`: a character of several tokens goes to the first,
    the others are empty."""
    ends = [end for _, end in spans]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def token_type(
    prompt: Prompt, spans: Sequence[tuple[int, int]], position: int, pair: FactPair
) -> str:
    """The categories of E.2; any token outside them is its own category."""
    start, end = spans[position]
    if start < prompt.subject[1] and end > prompt.subject[0]:
        goes_on = position + 1 < len(spans) and spans[position + 1][0] < prompt.subject[1]
        return "Subject" if goes_on else "Subject Final"
    if end <= prompt.statement_end:
        return "Relation"
    for option, (first, last) in prompt.options.items():
        if start < last and end > first:
            named = {pair.original.object: "Orig", pair.counterfactual.object: "Changed"}
            return f"{named.get(option, 'Other')} Answer Option"
    return f"Token {prompt.text[start:end]!r}"


def layer_blocks(n_layers: int, n_blocks: int) -> list[tuple[int, ...]]:
    return [tuple(block.tolist()) for block in np.array_split(np.arange(n_layers), n_blocks)]


def choose_demonstrations(facts: list[Fact], n: int, seed: int) -> dict[str, list[Fact]]:
    """Up to n facts of each relation with different objects. Their subjects are to be left out of
    the data."""
    rng, chosen = random.Random(seed), defaultdict(dict)
    for fact in rng.sample(facts, len(facts)):
        if len(chosen[fact.relation]) < n:
            chosen[fact.relation].setdefault(fact.object, fact)
    return {relation: list(by_object.values()) for relation, by_object in chosen.items()}


def known_facts(
    target: LanguageModel,
    facts: list[Fact],
    demonstrations: dict[str, list[Fact]],
    batch_size: int = 64,
) -> list[Fact]:
    """The facts whose object (its first token) the target gives as its greedy next token."""
    texts = [target_prompt(fact, demonstrations[fact.relation]).text for fact in facts]
    ids = [target.encode(text) for text in texts]
    known, by_length = [], sorted(range(len(facts)), key=lambda i: len(ids[i]))
    for start in range(0, len(facts), batch_size):
        batch = by_length[start : start + batch_size]
        run = clean_run(
            target.model,
            *pad_left([ids[i] for i in batch], target.tokenizer.pad_token_id, target.device),
        )
        known += [
            i
            for i, token in zip(batch, run.next_token.tolist(), strict=True)
            if token == target.answer_token(texts[i], f" {facts[i].object}")
        ]
    return [facts[i] for i in sorted(known)]


def patch_outcomes(
    target: LanguageModel,
    pairs: Sequence[FactPair],
    demonstrations: dict[str, list[Fact]],
    n_blocks: int = 4,
    with_options: bool = True,
    known_only: bool = True,
    batch_size: int = 64,
) -> Iterator[dict]:
    """T_patch for every pair, block and aligned position: rows with the columns of the published
    datasets and `token_type`.

    Prompts are aligned at their ends: position t of x meets the position of x' that is as far from
    the end, as long as both lie behind the first difference. With `known_only`, pairs of which the
    target gets x or x' wrong are left out.
    """
    prepared = sorted(
        (_Pair.of(target, pair, demonstrations, with_options) for pair in pairs),
        key=lambda pair: len(pair.ids),
    )
    for start in range(0, len(prepared), batch_size):
        yield from _patch_batch(
            target,
            prepared[start : start + batch_size],
            layer_blocks(target.n_layers, n_blocks),
            known_only,
        )


@dataclass(frozen=True)
class _Pair:
    pair: FactPair
    prompt: Prompt
    ids: list[int]
    spans: list[tuple[int, int]]
    counterfactual_text: str
    counterfactual_ids: list[int]
    n_aligned: int  # positions, counted from the end

    @classmethod
    def of(
        cls,
        target: LanguageModel,
        pair: FactPair,
        demonstrations: dict[str, list[Fact]],
        with_options: bool,
    ) -> "_Pair":
        demos, options = (
            demonstrations[pair.original.relation],
            pair.options if with_options else (),
        )
        prompt = target_prompt(pair.original, demos, options)
        ids, spans = tokens(target, prompt.text)
        other = target_prompt(pair.counterfactual, demos, options).text
        other_ids = target.encode(other)
        different = next(i for i, (a, b) in enumerate(zip(ids, other_ids, strict=False)) if a != b)
        return cls(
            pair, prompt, ids, spans, other, other_ids, min(len(ids), len(other_ids)) - different
        )


def _patch_batch(
    target: LanguageModel, batch: list[_Pair], blocks: list[tuple[int, ...]], known_only: bool
) -> Iterator[dict]:
    pad, device = target.tokenizer.pad_token_id, target.device
    clean = clean_run(
        target.model,
        *pad_left([pair.ids for pair in batch], pad, device),
        layers=[block[0] for block in blocks],
    )
    every = range(target.n_layers)
    counterfactual = clean_run(
        target.model,
        *pad_left([pair.counterfactual_ids for pair in batch], pad, device),
        layers=every,
    )
    answers = clean.next_token.tolist(), counterfactual.next_token.tolist()

    def known(row: int) -> bool:
        pair, texts = batch[row].pair, (batch[row].prompt.text, batch[row].counterfactual_text)
        return all(
            answer[row] == target.answer_token(text, f" {fact.object}")
            for answer, text, fact in zip(
                answers, texts, (pair.original, pair.counterfactual), strict=True
            )
        )

    kept = [row for row in range(len(batch)) if not known_only or known(row)]
    for block in blocks:
        # avg over the block of h(l, t)(x'): [batch, length, d]
        v = torch.stack([counterfactual.residual[layer] for layer in block]).mean(0)
        for from_end in range(1, max((batch[row].n_aligned for row in kept), default=0) + 1):
            rows = [row for row in kept if batch[row].n_aligned >= from_end]
            index = torch.tensor(rows, device=device)
            patched = patched_next_token(
                target.model, clean, block, from_end, index, v[index, -from_end]
            )
            for row, token in zip(rows, patched.tolist(), strict=True):
                yield _row(
                    target, batch[row], block, from_end, answers[0][row], token, v[row, -from_end]
                )


def _row(
    target: LanguageModel,
    pair: _Pair,
    block: tuple[int, ...],
    from_end: int,
    answer: int,
    patched: int,
    v: torch.Tensor,
) -> dict:
    position = len(pair.ids) - from_end
    other = len(pair.counterfactual_ids) - from_end
    text = target.tokenizer.decode
    return {
        "layer": list(block),
        "input_tokens": pieces(pair.prompt.text, pair.spans),
        "original_continuation": [text([answer])],
        "ablated_continuation": [text([patched])],
        "is_different": answer != patched,
        "patch_position": {
            "orig_pos": position,
            "counterfact_pos": other,
            "orig_text_token": pair.prompt.text[slice(*pair.spans[position])],
            "counterfact_text_token": text([pair.counterfactual_ids[other]]),
            "intervention_vector": v.float().cpu().numpy(),
        },
        "counterfactual_text": pair.counterfactual_text,
        "gt_original_target": pair.pair.original.object,
        "gt_counterfactual_target": pair.pair.counterfactual.object,
        "token_type": token_type(pair.prompt, pair.spans, position, pair.pair),
        "subject": pair.pair.original.subject,
        "relation": pair.pair.original.relation,
    }


def cell(row: dict) -> tuple[str, tuple[int, ...]]:
    """(token type, block): all that a lookup knows of a row."""
    return row["token_type"], tuple(row["layer"])


def balance(rows: list[dict], n: int, seed: int) -> list[dict]:
    """n rows, half of them changed, in which no (token type, block) cell has more of a class than
    it must (E.2), shuffled.

    Raises `UserError` when the rows do not suffice.
    """
    rng, chosen = random.Random(seed), []
    for changed, wanted in ((False, n - n // 2), (True, n // 2)):
        cells = defaultdict(list)
        for row in rows:
            if row["is_different"] == changed:
                cells[cell(row)].append(row)
        sizes = [len(of_cell) for of_cell in cells.values()]
        if sum(sizes) < wanted:
            there = f"only {sum(sizes)} rows are {'changed' if changed else 'unchanged'}, and {wanted} are needed"
            raise UserError(f"{there}: raise patching.max_facts and max_pairs, or lower the sizes")
        cap = next(
            cap for cap in range(wanted + 1) if sum(min(cap, size) for size in sizes) >= wanted
        )
        kept = [
            row
            for _, of_cell in sorted(cells.items())
            for row in rng.sample(of_cell, min(cap, len(of_cell)))
        ]
        chosen += rng.sample(kept, wanted)
    return rng.sample(chosen, n)


def statistics(rows: list[dict], split: str) -> list[dict]:
    """Table 6: the number of unchanged and changed rows of each token type and block."""
    counts = Counter((*cell(row), row["is_different"]) for row in rows)
    return [
        {"split": split, "token_type": kind, "layers": list(block)}
        | {"unchanged": counts[kind, block, False], "changed": counts[kind, block, True]}
        for kind, block in sorted({cell(row) for row in rows})
    ]
