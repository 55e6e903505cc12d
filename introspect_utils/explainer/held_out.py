"""The loss on examples that nothing is trained on."""

from collections.abc import Sequence

import torch

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.tasks.question import Example


@torch.inference_mode()
def held_out_loss(explainer: Explainer, examples: Sequence[Example], batch_size: int = 8) -> float:
    """Eq. 1 of examples that have an explanation: nats per token of the explanations, however they
    are batched."""
    rows = [
        (example.question, *explainer.encode(example.question, example.explanation))
        for example in examples
        if example.explanation
    ]
    total, n_tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = explainer.collate(rows[start : start + batch_size])
        n = int((batch.labels != -100).sum())
        total += n * explainer.loss(batch).item()
        n_tokens += n
    return total / n_tokens
