"""Explanations with a continuous token: rows a second, against `generate` row by row and in batches
padded on the left."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.rows import patching_examples, training_settings, untrained_explainer
from benchmarks.timing import Comparison, Peer, decoder_macs, main
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.train import train
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import common_prefix
from introspect_utils.settings.paths import artifacts_dir

BATCH, NEW_TOKENS, TRAINING = (
    32,
    20,
    96,
)  # as in `small`; rows from which the explainer learns how an answer looks and ends


def compare(lm: LanguageModel, n: int) -> Comparison:
    """n questions to an explainer that a few steps have taught the form of an answer (kept in
    artifacts/benchmarks)."""
    explainer = untrained_explainer(replace(lm, model=copy.deepcopy(lm.model)))
    settings = training_settings(batch_size=8, learning_rate=3e-3)
    train(
        explainer,
        patching_examples(lm, TRAINING),
        settings,
        artifacts_dir("benchmarks") / f"explainer-{lm.name}",
    )
    questions = [example.question for example in patching_examples(lm, n, seed=1)]
    one_by_one = questions[: max(2, n // 16)]

    def same(ours: list[str], its: list[str]) -> None:
        """But for one in fifty: adapters folded into the weights round otherwise, and an answer may
        hang on the last bit."""
        different = sum(a != b for a, b in zip(ours, its, strict=False))
        assert different <= len(its) // 50, [
            pair for pair in zip(ours, its, strict=False) if pair[0] != pair[1]
        ]

    def ours() -> list[str]:
        return generate(explainer, questions, BATCH, NEW_TOKENS)

    peers = (
        Peer(
            "`generate` row by row",
            lambda: plain(explainer, one_by_one, 1),
            len(one_by_one),
            8,
            same,
        ),
        Peer("`generate` in batches", lambda: plain(explainer, questions, BATCH), n, 1.2, same),
    )
    asked = [explainer.encode(question)[0] for question in questions]
    read = sum(map(len, asked)) - (n - -(-n // BATCH)) * common_prefix(asked)
    said = sum(
        len(lm.tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in ours()
    )
    return Comparison(
        "generation", "explanation", ours, n, peers, decoder_macs(lm, read + said, logits=n + said)
    )


@torch.inference_mode()
def plain(explainer: Explainer, questions: Sequence, batch_size: int) -> list[str]:
    """As a user of transformers and PEFT would: batches in the order of the rows, padded on the
    left."""
    tokenizer, answers = explainer.lm.tokenizer, []
    for start in range(0, len(questions), batch_size):
        rows = [
            (question, *explainer.encode(question))
            for question in questions[start : start + batch_size]
        ]
        batch = explainer.collate(rows)
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        most = max(NEW_TOKENS, explainer.longest_explanation)
        inputs = {"inputs_embeds": explainer.embeddings(batch), "attention_mask": batch.mask}
        tokens = explainer.model.generate(**inputs, **ends, max_new_tokens=most, do_sample=False)
        answers += [
            text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]
    return answers


if __name__ == "__main__":
    main(compare, n=128, check=16, unit="questions")
