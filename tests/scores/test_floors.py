"""The floors: each against doing it by hand on a few rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from introspect_utils.features.directions import Directions
from introspect_utils.models.load import load_model
from introspect_utils.scores import floors
from introspect_utils.scores.judge import Judge

pytestmark = pytest.mark.usefixtures("one_thread")


class Shared(Judge):
    """Rates by the share of words that two texts have in common."""

    name = model = "shared"

    def ratings(self, pairs):
        words = [(set(a.split()), set(b.split())) for a, b in pairs]
        return [1 + round(4 * len(a & b) / len(a | b)) for a, b in words]


LABELS = ["the word x"] * 3 + ["nouns"] * 2 + ["the word y", "the word z", "the word w"] * 2


def test_the_best_constant_is_the_one_rated_highest_against_all_labels():
    judge = Shared()
    means = {t: np.mean(judge.rate([(t, label) for label in LABELS])) for t in set(LABELS)}
    assert floors.best_constant(LABELS, judge, 0) == max(means, key=means.get) == "the word x"
    assert floors.best_constant(["nouns", *LABELS[3:5], *["the word y"] * 9], judge, 0) != "nouns"


def test_the_best_constant_need_not_be_the_most_frequent_label():
    labels = ["nouns"] * 3 + [f"the word {letter} {n}" for letter in "ab" for n in range(4)]
    assert floors.best_constant(labels, Shared(), 0) != "nouns"


def test_only_the_most_frequent_labels_are_tried_and_a_sample_is_rated():
    labels = ["b"] * 2 + ["c"] * 3 + ["the word x"] + ["the word y"] * 50
    assert floors.best_constant(labels, Shared(), 0, candidates=1) == "the word y"
    assert floors.best_constant(["a"], Shared(), 0, rated=5) == "a"
    asked = []

    class Counting(Shared):
        def ratings(self, pairs):
            asked.extend(pairs)
            return super().ratings(pairs)

    floors.best_constant(labels, Counting(), 0, candidates=2, rated=7)
    assert len(asked) == 14


@pytest.mark.parametrize("lost", [["nouns"], ["nouns", "the word x"]])
def test_a_label_that_is_not_rated_is_not_the_best(lost):
    class Silent(Shared):
        def ratings(self, pairs):
            rated = zip(pairs, super().ratings(pairs), strict=True)
            return [np.nan if a in lost else rating for (a, _), rating in rated]

    assert floors.best_constant(LABELS, Silent(), 0) in set(LABELS) - set(lost)


def test_an_echo_is_the_token_that_the_vector_was_taken_from():
    sources = ("", "I saw<<< Paris>>> and <b>", "a<<<,>>> b\nminus\nc<<< Rome>>>", "x\n<<<\n>>>y")
    data = ("sae", "act", "dact", "act")
    rows = Directions(tuple("abcd"), data, ("test",) * 4, (1,) * 4, torch.zeros(4, 2), sources)
    assert floors.echo(rows) == [None, "the word 'Paris'", "the word ','", "the word ''"]


def test_the_lens_names_the_nearest_input_and_the_raised_output_token():
    lm = load_model("tiny-llama", "cpu", "float32")
    draw = torch.Generator().manual_seed(1)
    lm.model.lm_head.weight = torch.nn.Parameter(
        torch.randn(lm.model.lm_head.weight.shape, generator=draw), requires_grad=False
    )
    inputs, outputs = lm.model.get_input_embeddings().weight, lm.model.lm_head.weight
    [a], [b], [c] = (lm.tokenizer(t, add_special_tokens=False)["input_ids"][:1] for t in "the")
    vectors = torch.stack([3 * inputs[a], torch.linalg.pinv(outputs)[:, b], inputs[c]])
    rows = Directions(
        ("x", "y", "z"), ("sae", "sae", "act"), ("test",) * 3, (1,) * 3, vectors.detach(), ("",) * 3
    )
    first, second, third = floors.lens(lm, rows)
    assert third is None
    for text, v in ((first, rows.vectors[0]), (second, rows.vectors[1])):
        near = torch.cosine_similarity(inputs, v[None]).argmax().item()
        raised = (outputs @ v).argmax().item()
        one, other = (lm.tokenizer.decode([i]).strip() for i in (near, raised))
        assert text == (f"the word '{one}'" if one == other else f"the words '{one}' and '{other}'")
    assert lm.tokenizer.decode([a]).strip() in first
    assert floors.lens(lm, replace(rows, data=("act",) * 3)) == [None] * 3
