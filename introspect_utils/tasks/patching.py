"""T_patch (sections 2.3, 5.1, E.2): what happens to the target's next token when part of a
counterfactual run is patched in.

x and x' state a fact about two subjects. For every block of layers and every token t from the first
difference on, v = avg over the block of h(l, t)(x') replaces h(l, t)(x) at all layers l of the
block (eq. 4), and the explanation says whether the greedy next token changes, and to what (eq. 5).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from introspect_utils.data.facts import Fact, FactPair
from introspect_utils.data.prompts import Prompt, target_prompt
from introspect_utils.features.lexicon import UNREADABLE
from introspect_utils.features.pairs import Demonstrations, TokenPair
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import CleanRun, clean_run, pad_left, patched_logits
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.outcome import explanation, parse
from introspect_utils.tasks.task_patching import cell


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
            kinds = {pair.original.object: "Orig", pair.counterfactual.object: "Changed"}
            return f"{kinds.get(option, 'Other')} Answer Option"
    return f"Token {prompt.text[start:end]!r}"


def layer_blocks(n_layers: int, n_blocks: int) -> list[tuple[int, ...]]:
    return [tuple(block.tolist()) for block in np.array_split(np.arange(n_layers), n_blocks)]


def choose_demonstrations(facts: list[Fact], n: int, seed: int) -> dict[str, list[Fact]]:
    """Up to n facts of each relation with different objects."""
    rng, chosen = random.Random(seed), defaultdict(dict)
    for fact in rng.sample(facts, len(facts)):
        if len(chosen[fact.relation]) < n:
            chosen[fact.relation].setdefault(fact.object, fact)
    return {relation: list(by_object.values()) for relation, by_object in chosen.items()}


def known_facts(
    target: LanguageModel, facts: list[Fact], demonstrations: Demonstrations, batch_size: int = 64
) -> list[Fact]:
    """The facts whose object (its first token) the target gives as its greedy next token. Raises
    `UserError` if no object can be told by its first token."""
    texts = [target_prompt(fact, demonstrations[fact.relation]).text for fact in facts]
    ids = [target.encode(text) for text in texts]
    objects = [_token(target, text, fact) for text, fact in zip(texts, facts, strict=True)]
    if set(objects) == {None}:
        target.answer_token(texts[0], f" {facts[0].object}")  # raises
    by_length, known = sorted(range(len(facts)), key=lambda i: len(ids[i])), []
    for start in range(0, len(facts), batch_size):
        batch = by_length[start : start + batch_size]
        padded = pad_left([ids[i] for i in batch], target.tokenizer.pad_token_id, target.device)
        answers = clean_run(target.model, *padded).next_token.tolist()
        known += [i for i, token in zip(batch, answers, strict=True) if token == objects[i]]
    return [facts[i] for i in sorted(known)]


def _token(target: LanguageModel, text: str, fact: Fact) -> int | None:
    """The first token of a fact's object behind `text`; None if none tells it from others."""
    try:
        return target.answer_token(text, f" {fact.object}")
    except UserError:
        return None


def patch_outcomes(
    target: LanguageModel,
    pairs: Sequence[FactPair],
    demonstrations: Demonstrations,
    n_blocks: int = 4,
    with_options: bool = True,
    known_only: bool = True,
    batch_size: int = 64,
) -> Iterator[dict]:
    """T_patch for every pair, block and aligned position: rows with the columns of `rows.PATCHING`.

    Position t of x meets the position of x' that is as far from the end, as long as both lie behind
    the first difference. With `known_only`, pairs of which the target gets x or x' wrong are left
    out.
    """
    encoded = [TokenPair.of(target, pair, demonstrations, with_options) for pair in pairs]
    encoded.sort(key=lambda pair: len(pair.texts[0]))
    blocks = layer_blocks(target.n_layers, n_blocks)
    for start in range(0, len(encoded), batch_size):
        yield from _patch_batch(target, encoded[start : start + batch_size], blocks, known_only)


def _patch_batch(
    target: LanguageModel, batch: list[TokenPair], blocks: list[tuple[int, ...]], known_only: bool
) -> Iterator[dict]:
    bos, pad = target.encode(""), target.tokenizer.pad_token_id

    def run(part: int, layers: Sequence[int]) -> CleanRun:
        texts = [bos + pair.texts[part] for pair in batch]
        return clean_run(target.model, *pad_left(texts, pad, target.device), layers)

    clean = run(0, [block[0] for block in blocks])  # of x, and of x'
    counterfactual = run(1, range(target.n_layers))
    answers, others = clean.next_token.tolist(), counterfactual.next_token.tolist()

    def known(row: int) -> bool:
        facts = (batch[row].pair.original, batch[row].pair.counterfactual)
        of_both = zip(batch[row].prompts, facts, strict=True)
        objects = [_token(target, prompt.text, fact) for prompt, fact in of_both]
        return objects == [answers[row], others[row]]

    kept = [row for row in range(len(batch)) if not known_only or known(row)]
    for block in blocks:
        # avg over the block of h(l, t)(x'): [batch, length, d]
        v = torch.stack([counterfactual.residual[layer] for layer in block]).mean(0)
        for from_end in range(1, max((batch[row].n_aligned for row in kept), default=0) + 1):
            rows = [row for row in kept if batch[row].n_aligned >= from_end]
            index = torch.tensor(rows, device=target.device)
            patch = (block, from_end, index, v[index, -from_end])
            patched = patched_logits(target.model, clean, *patch).argmax(-1)
            for row, token in zip(rows, patched.tolist(), strict=True):
                place = (batch[row], block, from_end)
                yield _row(target, *place, answers[row], token, v[row, -from_end])


def _row(
    target: LanguageModel,
    pair: TokenPair,
    block: tuple[int, ...],
    from_end: int,
    answer: int,
    patched: int,
    v: torch.Tensor,
) -> dict:
    (x, other), (ids, other_ids), n_bos = pair.prompts, pair.texts, len(target.encode(""))
    place, text = len(ids) - from_end, target.tokenizer.decode
    facts = pair.pair
    return {
        "layer": list(block),
        "input_tokens": [""] * n_bos + pieces(x.text, pair.spans),
        "original_continuation": [text([answer])],
        "ablated_continuation": [text([patched])],
        "is_different": answer != patched,
        "patch_position": {
            "orig_pos": n_bos + place,
            "counterfact_pos": n_bos + len(other_ids) - from_end,
            "orig_text_token": x.text[slice(*pair.spans[place])],
            "counterfact_text_token": text([other_ids[-from_end]]),
            "intervention_vector": v.float().cpu().numpy(),
        },
        "counterfactual_text": other.text,
        "gt_original_target": facts.original.object,
        "gt_counterfactual_target": facts.counterfactual.object,
        "token_type": token_type(x, pair.spans, place, facts),
        "subject": facts.original.subject,
        "relation": facts.original.relation,
    }


def sayable(target: LanguageModel, rows: Sequence[dict]) -> list[dict]:
    """The rows whose explanation can be said and read back: not those whose next token is a special
    one (EOS, a reserved token), a part of a character (all such look alike), or holds the marks
    around a content."""
    special = {t.content for t in target.tokenizer.added_tokens_decoder.values() if t.special}

    def fits(row: dict) -> bool:
        content = row["ablated_continuation"][0]
        outcome = (row["is_different"], content)
        said = content not in special and UNREADABLE not in content
        return said and parse(explanation(*outcome)) == outcome

    return [row for row in rows if fits(row)]


def balance(rows: list[dict], n: int, seed: int) -> list[dict]:
    """n rows, half of them changed, in which no (token type, block) cell has more of a class than
    it must (E.2), shuffled. Raises `UserError` when the rows do not suffice."""
    rng, chosen = random.Random(seed), []
    for changed, quota in ((False, n - n // 2), (True, n // 2)):
        cells = defaultdict(list)
        for row in rows:
            if row["is_different"] == changed:
                cells[cell(row)].append(row)
        sizes = [len(of_cell) for of_cell in cells.values()]
        if sum(sizes) < quota:
            kind = "changed" if changed else "unchanged"
            raise UserError(
                f"only {sum(sizes)} rows are {kind}, and {quota} are needed: raise "
                "patching.max_facts and max_pairs, or lower the sizes"
            )
        cap = next(n for n in range(quota + 1) if sum(min(n, size) for size in sizes) >= quota)
        kept = [rng.sample(part, min(cap, len(part))) for _, part in sorted(cells.items())]
        chosen += rng.sample(sum(kept, []), quota)
    return rng.sample(chosen, n)


def statistics(rows: list[dict], split: str) -> list[dict]:
    """Table 6: the number of unchanged and changed rows of each token type and block."""
    counts = Counter((*cell(row), row["is_different"]) for row in rows)
    return [
        {"split": split, "token_type": kind, "layers": list(block)}
        | {"unchanged": counts[kind, block, False], "changed": counts[kind, block, True]}
        for kind, block in sorted({cell(row) for row in rows})
    ]
