"""Explanations, batched: greedy, or the likeliest by a beam search."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from introspect_utils.explainer.gates import check_padding
from introspect_utils.explainer.question_model import QuestionModel, Row
from introspect_utils.explainer.tuning import cut, merged
from introspect_utils.models.residual import positions, read_shared
from introspect_utils.models.weights import generate_tokens
from introspect_utils.tasks.question import Question


def generate(
    explainer: QuestionModel,
    questions: Sequence[Question],
    batch_size: int = 32,
    max_new_tokens: int = 24,
    prompt: str | None = None,
    beams: int = 1,
) -> list[str]:
    """One greedy explanation per question, in order; the longest prompts are read first. With
    `beams`, so many of each question, its likeliest first.

    An explanation may always be as long as the longest that the explainer was trained on. Raises
    `UserError` when a question and its answer are longer than the model reads, or an answer would
    depend on what its question is batched with.
    """
    rows = [(question, *explainer.encode(question, prompt=prompt)) for question in questions]
    most = max(max_new_tokens, explainer.longest_explanation)
    said = _continue(explainer, rows, batch_size, most, beams=beams)
    decode = explainer.lm.tokenizer.decode
    return [
        decode(tokens, skip_special_tokens=True).strip() for of_row in said for tokens in of_row
    ]


def rollouts(
    explainer: QuestionModel, questions: Sequence[Question], n: int = 10, batch_size: int = 32
) -> list[list[int]]:
    """Exactly `n` greedy tokens behind each question, past the end of its explanation (B.4)."""
    rows = [(question, *explainer.encode(question)) for question in questions]
    return [tokens for [tokens] in _continue(explainer, rows, batch_size, n, exactly=True)]


@torch.inference_mode()
def _continue(
    explainer: QuestionModel,
    rows: list[Row],
    batch_size: int,
    n: int,
    exactly: bool = False,
    beams: int = 1,
) -> list[list[list[int]]]:
    """`beams` continuations of each row, of at most, or exactly, `n` tokens."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][1]))
    said, lm = [[] for _ in rows], explainer.eval().lm
    if rows:
        lm.check_length(len(rows[order[0]][1]) + n, "a question with its answer")
    bar = {"total": len(rows), "desc": "explaining", "unit": "row", "disable": len(rows) == 1}
    with merged(explainer.model), tqdm(**bar, mininterval=10) as progress:
        if batch_size > 1 and len(rows) > 1:
            check_padding(explainer, rows, n)
        for chosen in cut(order, batch_size):
            batch = explainer.collate([rows[i] for i in chosen], n)
            embedded = explainer.embeddings(batch)
            cache = read_shared(lm.model, embedded.repeat_interleave(beams, 0), batch.shared)
            read = {"inputs_embeds": embedded, "attention_mask": batch.mask}
            read |= {"position_ids": positions(batch.mask), "past_key_values": cache}
            tokens = generate_tokens(lm, n, exactly, beams, **read)
            for i, of_row in zip(chosen, tokens.view(len(chosen), beams, -1).tolist(), strict=True):
                said[i] = of_row
            progress.update(len(chosen))
    return said
