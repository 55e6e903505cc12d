"""Greedy explanations, batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from introspect_utils.questions import Question
from introspect_utils.residual import positions

if TYPE_CHECKING:
    from introspect_utils.explainer import Explainer


@torch.inference_mode()
def generate(explainer: Explainer, questions: Sequence[Question], batch_size: int = 32, max_new_tokens: int = 24, prompt: str | None = None) -> list[str]:
    """One greedy explanation per question, in order. Longest prompts first, so that a batch pads little and memory peaks early."""
    rows = [(question, *explainer.encode(question, prompt=prompt)) for question in questions]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][1]))
    answers = [""] * len(rows)
    tokenizer = explainer.lm.tokenizer
    progress = tqdm(total=len(rows), desc="explaining", unit="row", mininterval=10)
    with merged(explainer.model), progress:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = explainer.collate([rows[i] for i in chosen])
            tokens = explainer.model.generate(
                inputs_embeds=explainer.embeddings(batch),
                attention_mask=batch.mask,
                position_ids=positions(batch.mask),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            for i, text in zip(chosen, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
                answers[i] = text.strip()
            progress.update(len(chosen))
    return answers


@contextmanager
def merged(model) -> Iterator[None]:
    """Within the context a LoRA model computes with its adapters folded into the weights: one matrix product a layer, not three."""
    if not hasattr(model, "merge_adapter"):
        yield
        return
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()
