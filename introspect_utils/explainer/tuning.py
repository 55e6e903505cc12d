"""What of an explainer is trained (LoRA, all weights, a map alone), and its losses (eq. 1)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from introspect_utils.explainer.question_model import QuestionModel, Row
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training

BUCKET = 8  # batches whose rows are sorted by length together
PROBED = 4  # rows of which the loss is compared with that for another vector


def make_trainable(explainer: QuestionModel, settings: Training, seed: int) -> None:
    """Adapters, or copies of all weights, in float32 (as released: bfloat16) whatever the model is
    in. Of a frozen explainer only the map in front of it is trained."""
    if explainer.frozen:
        return
    if settings.tuning == "lora":
        add_lora(explainer, settings, seed)
    else:
        explainer.model.requires_grad_(True)
    for weight in trainable(explainer.model).values():
        weight.data = weight.data.to(getattr(torch, settings.weights), copy=True)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def add_lora(explainer: nn.Module, settings: Training, seed: int) -> None:
    """LoRA on every linear layer of the decoder, whatever it is called, and not on the head. The
    projection (or a simulator's head) stays outside, so it is trained in full. Raises `UserError`
    for a decoder with weights that LoRA does not reach."""
    config = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        task_type="CAUSAL_LM",
        target_modules="all-linear",
    )
    decoder, name = explainer.lm.model.get_decoder(), explainer.lm.name
    torch.manual_seed(seed)
    explainer.model = get_peft_model(explainer.lm.model, config)
    adapted = [part for part in decoder.modules() if isinstance(part, LoraLayer)]
    embeddings = [part for part in decoder.modules() if isinstance(part, nn.Embedding)]
    reached = {id(weight) for part in adapted + embeddings for weight in part.parameters()}
    left = [key for key, w in decoder.named_parameters() if w.dim() > 1 and id(w) not in reached]
    if left or not adapted:
        raise UserError(
            f"LoRA does not reach all weights of {name} ({len(left)}: {', '.join(left[:3])}): set "
            "training.tuning: full, or take another model"
        )
    print(f"LoRA on {len(adapted)} linear layers of {name}", flush=True)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within the context a LoRA model in float32 has its adapters folded into copies of the
    weights: one product, not three. In bfloat16 most of an adapter would be rounded away."""
    if not hasattr(model, "merge_adapter") or model.dtype != torch.float32:
        yield
        return
    frozen = {name: w.data for name, w in model.named_parameters() if "base_layer" in name}
    try:
        model.merge_adapter(safe_merge=True)
        yield
    finally:
        model.unmerge_adapter()
        for name, data in frozen.items():  # unmerging by subtraction leaves a rounding error
            model.get_parameter(name).data = data


def batches(
    lengths: Sequence[int], batch_size: int, epochs: int, seed: int, order: str = "shuffled"
) -> Iterator[list[int]]:
    """Row numbers of each step: every epoch shuffled by the seed, rows of like length together; or,
    in the `order` "file", as they come (the authors' code)."""
    rows = list(range(len(lengths)))
    for epoch in range(epochs):
        if order == "file":
            yield from cut(rows, batch_size)
            continue
        rng = random.Random(f"{seed}-{epoch}")
        for part in cut(rng.sample(rows, len(rows)), BUCKET * batch_size):
            steps = cut(sorted(part, key=lambda i: lengths[i]), batch_size)
            yield from rng.sample(steps, len(steps))


def cut(rows: list, n: int) -> list[list]:
    return [rows[start : start + n] for start in range(0, len(rows), n)]


def loss_of(
    rows: Sequence[Row], settings: Training, rank: int = 0, processes: int = 1
) -> Callable[[nn.Module, list[int]], Tensor]:
    """Eq. 1 of the chosen rows, as a function of the explainer and their numbers. Of several
    processes each takes every n-th row, and the mean of their losses is that of all rows."""

    def tokens(chosen: list[int]) -> int:
        return sum(len(rows[i][1]) - rows[i][2] for i in chosen)

    def loss(explainer: nn.Module, chosen: list[int]) -> Tensor:
        mine = chosen[rank::processes]
        padded = len(chosen) * max(len(rows[i][1]) for i in chosen)
        share = tokens(mine) / (tokens(chosen) if settings.loss == "tokens" else padded)
        # a process without rows takes part with a weight of 0
        return explainer([rows[i] for i in mine or chosen[:1]]) * (share * processes)

    return loss


def with_other_vectors(rows: list[Row]) -> tuple[list[Row], list[tuple[list[int], list[int]]]]:
    """The rows and, behind them, copies of some with another vector, in no direction of the first
    and not zero; and the pairs of steps whose losses must differ."""
    asked = [i for i, (question, _, _) in enumerate(rows) if question.vector is not None][:PROBED]
    some = [rows[i] for i in asked]
    others = [(q.with_vector(1 - q.vector), ids, n_prompt) for q, ids, n_prompt in some]
    return rows + others, [([i], [len(rows) + j]) for j, i in enumerate(asked)]
