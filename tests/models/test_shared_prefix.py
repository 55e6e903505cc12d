"""What the rows of a batch have in common at their beginning is read once: the same logits,
gradients and answers."""

import dataclasses

import pytest
import torch
from explaining import WIDTHS, encode, logits, make_examples, make_explainer, training_settings
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.explainer.train import train
from introspect_utils.explainer.tuning import trainable
from introspect_utils.models import residual
from introspect_utils.models.residual import common_prefix, pad_left, worth_sharing

pytestmark = pytest.mark.usefixtures("one_thread")
SYSTEM = (
    "You are asked about what a model holds inside. Answer in a few words, and say what you see "
    "and nothing else. " * 2
)


def examples(n=6, d_target=32, **settings):
    """Questions of different lengths behind one long system prompt."""
    return [
        dataclasses.replace(example, question=dataclasses.replace(example.question, system=SYSTEM))
        for example in make_examples(n, d_target, **settings)
    ]


@pytest.fixture(scope="module", params=list(WIDTHS))
def family(request):
    return make_explainer(request.param, WIDTHS[request.param])


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=4))
def test_the_common_prefix_is_the_longest_that_leaves_a_token_each(rows):
    n = common_prefix(rows)
    assert all(row[:n] == rows[0][:n] and len(row) > n for row in rows)
    longer = {tuple(row[: n + 1]) for row in rows}
    assert len(longer) > 1 or n + 1 == min(map(len, rows))


@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=8), min_size=1, max_size=4))
def test_padding_stands_behind_what_is_shared(rows):
    shared = common_prefix(rows)
    ids, mask = pad_left(rows, 0, shared=shared)
    assert (ids[:, :shared] == ids[:1, :shared]).all() and mask[:, :shared].all()
    for row, found, seen in zip(rows, ids, mask, strict=True):
        assert found[seen.bool()].tolist() == row and not found[~seen.bool()].any()
        assert seen[len(seen) - (len(row) - shared) :].all()


def test_little_is_not_shared_nor_what_lies_in_other_windows():
    rows = [[1] * 20 + [i] for i in (2, 3, 4)]
    assert worth_sharing(rows, 21, 4096) == 20
    assert worth_sharing(rows[:2], 21, 4096) == 0 and worth_sharing(rows[:1], 21, 4096) == 0
    assert worth_sharing(rows, 21, 20) == 0


@pytest.mark.parametrize("with_vector", [True, False])
def test_logits_and_gradients_are_those_of_whole_passes(family, with_vector):
    batch = family.collate(encode(family, examples(5, family.d_target, with_vector=with_vector)))
    assert (
        batch.shared > 20
        and not batch.places[:, : batch.shared].any()
        and (batch.labels[:, : batch.shared] == -100).all()
    )
    columns = torch.arange(batch.shared, batch.ids.shape[1])
    seen = batch.mask[:, columns].bool()
    with torch.no_grad():
        torch.testing.assert_close(
            family.logits(batch, columns)[seen],
            logits(family, batch)[:, columns][seen],
            atol=1e-5,
            rtol=1e-5,
        )
    found = []
    for each in (batch, batch._replace(shared=0)):
        family.model.requires_grad_(True)
        weights = list(trainable(family.model).values())
        found.append(torch.autograd.grad(family.loss(each), weights, allow_unused=True))
        family.model.requires_grad_(False)
    for ours, whole in zip(*found, strict=True):
        if whole is not None:
            torch.testing.assert_close(ours, whole, atol=1e-6, rtol=1e-3)


def test_answers_are_those_of_whole_passes(family, monkeypatch):
    questions = [example.question for example in examples(6, family.d_target)]
    said, given, generate = [], [], family.model.generate
    monkeypatch.setattr(
        family.model,
        "generate",
        lambda **inputs: given.append(inputs) or said.append(generate(**inputs)) or said[-1],
    )
    together = family.explain(questions, 4, 6)
    monkeypatch.setattr(residual, "SAVED", 10**9)
    assert family.explain(questions, 4, 6) == together
    assert [inputs["past_key_values"] is not None for inputs in given] == [True, True, False, False]
    assert len(said[0]) == 4 and torch.equal(said[0], said[2]) and torch.equal(said[1], said[3])


def test_a_window_shorter_than_the_rows_is_not_shared():
    explainer = make_explainer("tiny-gemma3", 48)
    rows = encode(explainer, examples(4, 48))
    assert (
        explainer.lm.window == explainer.lm.model.config.sliding_window
        and explainer.collate(rows).shared > 0
    )
    explainer.lm.model.config.sliding_window = len(rows[-1][1]) - 1
    assert explainer.collate(rows).shared == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_the_same(tmp_path, monkeypatch, checkpointing):
    wanted = training_settings(gradient_checkpointing=checkpointing, epochs=3)
    shared = train(make_explainer(), examples(8), wanted, tmp_path / "shared").losses
    monkeypatch.setattr(residual, "SAVED", 10**9)
    whole = train(make_explainer(), examples(8), wanted, tmp_path / "whole").losses
    assert shared == pytest.approx(whole, rel=1e-4) and shared[-1] < shared[0]
