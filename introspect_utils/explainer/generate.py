"""Greedy explanations, batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from introspect_utils.explainer.gates import check_padding
from introspect_utils.models.residual import positions, read_shared
from introspect_utils.models.weights import generate_greedily
from introspect_utils.tasks.question import Question

if TYPE_CHECKING:
    from introspect_utils.explainer.explainer import Explainer


def generate(
    explainer: Explainer,
    questions: Sequence[Question],
    batch_size: int = 32,
    max_new_tokens: int = 24,
    prompt: str | None = None,
) -> list[str]:
    """One greedy explanation per question, in order. Longest prompts first: a batch pads little,
    and memory peaks early.

    A trained explainer has room for the longest explanation it was trained on, whatever
    `max_new_tokens` is. Raises `UserError` when a question's answer would depend on what it is
    batched with.
    """
    rows = [(question, *explainer.encode(question, prompt=prompt)) for question in questions]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][1]))
    answers = [""] * len(rows)
    tokenizer = explainer.lm.tokenizer
    progress = tqdm(
        total=len(rows), desc="explaining", unit="row", mininterval=10, disable=len(rows) == 1
    )
    with merged(explainer.model), progress, torch.inference_mode():
        if batch_size > 1 and len(rows) > 1:
            check_padding(explainer, rows)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = explainer.collate([rows[i] for i in chosen])
            embedded = explainer.embeddings(batch)
            tokens = explainer.model.generate(
                inputs_embeds=embedded,
                attention_mask=batch.mask,
                position_ids=positions(batch.mask),
                past_key_values=read_shared(explainer.lm.model, embedded, batch.shared),
                max_new_tokens=max(max_new_tokens, explainer.longest_explanation),
                do_sample=False,
                # the setting that a model's own generation config could add to greedy decoding
                repetition_penalty=1.0,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            for i, text in zip(
                chosen, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True
            ):
                answers[i] = text.strip()
            progress.update(len(chosen))
    return answers


def rollouts(
    explainer: Explainer, questions: Sequence[Question], n: int = 10, batch_size: int = 32
) -> list[list[int]]:
    """Exactly `n` greedy tokens behind each question, whether or not an explanation ends before
    (B.4)."""
    rows = [(question, *explainer.encode(question)) for question in questions]
    rolled: list[list[int]] = []
    with merged(explainer.model), torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = explainer.collate(rows[start : start + batch_size])
            inputs = {"inputs_embeds": explainer.embeddings(batch), "attention_mask": batch.mask}
            tokens = generate_greedily(
                explainer.lm, n, exactly=True, position_ids=positions(batch.mask), **inputs
            )
            rolled += tokens.tolist()
    return rolled


@contextmanager
def merged(model) -> Iterator[None]:
    """Within the context a LoRA model in float32 computes with its adapters folded into the
    weights: one product, not three.

    In bfloat16 it stays as it is, since most of what an adapter adds would be rounded away.
    """
    if not hasattr(model, "merge_adapter") or model.dtype != torch.float32:
        yield
        return
    frozen = {
        name: weight.data for name, weight in model.named_parameters() if "base_layer" in name
    }
    try:
        model.merge_adapter(safe_merge=True)  # in copies
        yield
    finally:
        model.unmerge_adapter()
        for (
            name,
            data,
        ) in frozen.items():  # unmerging is a subtraction, which leaves a rounding error
            model.get_parameter(name).data = data
