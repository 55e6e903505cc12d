"""Tiny explainers and questions that several tests share."""

import contextlib
import dataclasses

import pytest
import torch

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import Loop
from introspect_utils.models.load import load_model
from introspect_utils.settings.sections import ExplainerSettings, Training
from introspect_utils.tasks.question import Example, Question

WIDTHS = {"tiny-llama": 32, "tiny-qwen3": 32, "tiny-gemma3": 48}
BLOCKS = ((0, 1), (2, 3))
SETTINGS = ExplainerSettings(
    vector_center=False,
    vector_scale="embedding",
    projection="when-needed",
    projection_rank=0,
    prompt="chat",
)
TRAINING = Training(
    tuning="lora",
    compute_dtype="float32",
    lora_r=4,
    lora_alpha=16,
    lora_dropout=0.0,
    learning_rate=1e-2,
    schedule="constant",
    batch_size=4,
    epochs=1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    checkpoint_minutes=30,
    processes=1,
    sharded=False,
    gradient_checkpointing=False,
    log_with="none",
)
WORDS = (
    "red",
    "a long shade of green",
    "blue or not",
    "violet",
    "amber and gold",
    "grey",
    "no colour at all",
    "white",
)


def make_explainer(name="tiny-llama", d_target=32, dtype="float32", seed=0, **settings):
    """An untrained explainer of a target with vectors of width `d_target` from two blocks of
    layers."""
    lm = load_model(name, "cpu", dtype)
    return Explainer(lm, dataclasses.replace(SETTINGS, **settings), d_target, BLOCKS, seed).eval()


def training_settings(**changes):
    return dataclasses.replace(TRAINING, **changes)


def vectors(n, d_target=32, seed=0):
    return torch.randn(n, d_target, generator=torch.Generator().manual_seed(seed))


def make_examples(n=8, d_target=32, with_vector=True, seed=0):
    """Questions of different lengths. Pairs of them differ in the vector alone, and so does what is
    to be said of them."""
    vs = vectors(n, d_target, seed)
    mark = "[s]v[e] " if with_vector else ""
    texts = [f"Which colour {mark}is it{' in the long run' * (i // 2)}?" for i in range(n)]
    return [
        Example(
            Question(text, vs[i] if with_vector else None, BLOCKS[i // 2 % 2]),
            WORDS[i % len(WORDS)],
        )
        for i, text in enumerate(texts)
    ]


def encode(explainer, examples):
    """Rows for `collate`."""
    return [
        (example.question, *explainer.encode(example.question, example.explanation))
        for example in examples
    ]


@torch.no_grad()
def logits(explainer, batch):
    """All logits [batch, length, vocabulary]."""
    positions = (batch.mask.cumsum(-1) - 1).clamp(min=0)
    embedded = explainer.embeddings(batch)
    return explainer.model(
        inputs_embeds=embedded, attention_mask=batch.mask, position_ids=positions
    ).logits


class Interruption(Exception):
    """Stands for Ctrl-C or the loss of the machine."""


@contextlib.contextmanager
def interrupted_after(steps):
    """Within the context, training is interrupted at step `steps` + 1 of those it takes. Yields the
    items of the steps that it took."""
    original, taken = Loop.step, []

    def step(self, item, *arguments):
        if len(taken) == steps:
            raise Interruption
        taken.append(item)
        return original(self, item, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "step", step)
        yield taken
