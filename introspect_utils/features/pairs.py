"""Counterfactual pairs (section 2.3) as the target's tokens, aligned at their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from introspect_utils.data.facts import Fact, FactPair
from introspect_utils.data.prompts import Prompt, target_prompt
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.tokens import token_spans

# solved examples of each relation, which stand before both prompts
Demonstrations = Mapping[str, Sequence[Fact]]


@dataclass(frozen=True)
class TokenPair:
    """The prompts x and x' of a pair, as text and as token ids without BOS.

    `spans`: the characters of each token of x. `n_aligned`: how many positions of both lie behind
    the first difference, counted from the end. `n_same`: at how many of them, from the end, the
    tokens are the same. `final`: the place from the end of the subject's final token, 0 if it is
    not one place in both.
    """

    pair: FactPair
    prompts: tuple[Prompt, Prompt]
    texts: tuple[list[int], list[int]]
    spans: list[tuple[int, int]]
    n_aligned: int
    n_same: int
    final: int

    @classmethod
    def of(
        cls, lm: LanguageModel, pair: FactPair, demonstrations: Demonstrations, with_options: bool
    ) -> TokenPair:
        shown, options = demonstrations[pair.original.relation], pair.options * with_options
        facts = (pair.original, pair.counterfactual)
        prompts = tuple(target_prompt(fact, shown, options) for fact in facts)
        encoded = [token_spans(lm.tokenizer, prompt.text) for prompt in prompts]
        ids, spans = zip(*encoded, strict=True)
        finals = {
            len(of_text) - max(i for i, span in enumerate(of_text) if span[0] < prompt.subject[1])
            for prompt, of_text in zip(prompts, spans, strict=True)
        }
        n_aligned = min(map(len, ids)) - len(commonprefix(ids))
        ends = commonprefix([of_text[::-1] for of_text in ids])
        n_same = min(len(ends), max(0, n_aligned - 1))
        final = finals.pop() if len(finals) == 1 else 0
        return cls(pair, prompts, ids, spans[0], n_aligned, n_same, final)
