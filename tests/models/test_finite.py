"""Logits that are not finite are an error wherever they are read: the likeliest of them is none."""

import pytest
import torch
from explaining import make_examples, make_explainer

from introspect_utils.data.facts import Fact, FactPair
from introspect_utils.explainer.generate import rollouts
from introspect_utils.explainer.train import held_out_loss
from introspect_utils.models.gate import sample_logits
from introspect_utils.models.load import load_model
from introspect_utils.models.weights import sharing_weights
from introspect_utils.scores.selfie import selfie
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import ablation, patching

DAMAGED = "logits of tiny-llama for text 0 of its batch are not finite.*dtype: float32"
ROME, PARIS = Fact("r", "Rome", "Italy", "Rome is in"), Fact("r", "Paris", "France", "Paris is in")


@pytest.fixture(params=["embedding", "last norm", "head", "overflow"])
def lm(request):
    """A model that is damaged where nobody looks: with the gate at load passed."""
    lm = load_model("tiny-llama", "cpu")
    part = {
        "embedding": lm.model.get_input_embeddings(),
        "last norm": lm.model.get_decoder().norm,
        "head": lm.model.get_output_embeddings(),
        "overflow": lm.model.get_decoder().norm,
    }[request.param]
    part.weight.data = part.weight.data.clone()
    if request.param == "embedding":  # in every prompt below
        part.weight.data[lm.encode("is")[-1]] = float("nan")
        part.weight.data[lm.encode("Rome is")[-1]] = float("nan")
    elif request.param == "overflow":
        part.weight.data *= 3e38
    else:
        part.weight.data[..., 0] = float("nan")
    return lm


def readings(lm):
    pair = FactPair(ROME, PARIS, ("Italy", "France", "unknown"))
    prompts = [["What is Rome is?", "What is Rome is?\nHint: C"]]
    explainer = make_explainer()
    explainer.lm.model.load_state_dict(
        {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    )
    examples = make_examples(2)
    asked = [example.question for example in examples]
    yield lambda: ablation.letter_logprobs(lm, prompts, "Answer:")
    yield lambda: patching.known_facts(lm, [ROME, PARIS], {"r": []})
    yield lambda: list(patching.patch_outcomes(lm, [pair], {"r": []}, 2, known_only=False))
    yield lambda: selfie(lm, torch.randn(2, lm.width), [5], max_new_tokens=3)
    yield lambda: explainer.explain(asked[:1])
    yield lambda: explainer.explain(asked)
    yield lambda: rollouts(explainer, asked[:1], 3)
    yield lambda: held_out_loss(explainer, examples)


def test_logits_that_are_not_finite_are_an_error_wherever_they_are_read(lm):
    for number, reading in enumerate(readings(lm)):
        with pytest.raises(UserError, match="not finite.*dtype: float32"):
            print(number, reading())


def test_a_vector_that_is_not_finite_is_no_empty_description():
    vectors = torch.randn(2, 32)
    vectors[1, 3] = float("nan")
    with pytest.raises(UserError, match="for text 1 of its batch .* a vector put into it"):
        selfie(load_model("tiny-llama", "cpu"), vectors, [5], max_new_tokens=3)


@pytest.mark.parametrize("resized", [False, True])
def test_copies_and_heads_made_anew_are_checked_too(resized):
    lm = make_explainer().lm if resized else sharing_weights(load_model("tiny-llama", "cpu"))
    head = lm.model.get_output_embeddings()
    head.weight.data = head.weight.data.clone()
    head.weight.data[7, 0] = float("inf")
    with pytest.raises(UserError, match=DAMAGED):
        sample_logits(lm)


def test_the_loss_of_training_is_checked_by_the_training_itself():
    explainer, examples = make_explainer(), make_examples(2)
    explainer.lm.model.requires_grad_(True)
    explainer.lm.model.get_output_embeddings().weight.data[7, 0] = float("nan")
    rows = [(e.question, *explainer.encode(e.question, e.explanation)) for e in examples]
    assert explainer(rows).isnan()
