"""One question to the real model: its tokenizer, chat template and reserved tokens are not those of
the tiny ones."""

import dataclasses

import pytest
import torch
from explaining import SETTINGS

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.models.residual import clean_run, pad_left
from introspect_utils.tasks.question import Question

pytestmark = pytest.mark.real

BLOCK = (8, 9, 10)


@pytest.fixture(scope="module")
def explainer(smollm2):
    return Explainer(smollm2, SETTINGS, smollm2.width, (BLOCK,))


@pytest.fixture(scope="module")
def question(smollm2):
    """About the mean of the block's residuals at the last token of a text."""
    ids, mask = pad_left(
        [smollm2.encode("The capital of France is")], smollm2.tokenizer.pad_token_id
    )
    run = clean_run(smollm2.model, ids, mask, BLOCK)
    v = torch.stack([run.residual[layer][0, -1] for layer in BLOCK]).mean(0)
    return Question(
        "If feature [s]v[e] at layer 8, 9, 10 is added to the text <<<Rome is>>>, what happens?",
        v.clone(),
        BLOCK,
    )


def test_the_prompt_is_a_chat_with_one_vector(explainer, question):
    tokenizer = explainer.lm.tokenizer
    ids, n_prompt = explainer.encode(question, "It would remain unchanged.")
    text = tokenizer.decode(ids)
    assert (
        text.startswith("<|im_start|>")
        and text.count("<|im_start|>user\n") == text.count("<|im_start|>assistant\n") == 1
    )
    assert "If feature <jupyter_start><empty_output><jupyter_output> at layer 8, 9, 10" in text
    assert tokenizer.decode(ids[n_prompt:]) == "It would remain unchanged.<|im_end|>"
    base, n_prompt = explainer.encode(question, "It would remain unchanged.", "base")
    assert base.count(tokenizer.bos_token_id) == 1 and base[0] == tokenizer.bos_token_id
    assert tokenizer.decode(base[n_prompt:]) == " It would remain unchanged.<|im_end|>"


def test_the_vector_is_at_the_scale_of_the_embeddings_and_reaches_the_logits(explainer, question):
    other = question.with_vector(-question.vector)
    rows = [
        (each, *explainer.encode(each, "It would remain unchanged.")) for each in (question, other)
    ]
    batch = explainer.collate(rows)
    embedded = explainer.embeddings(batch)
    norm = explainer.lm.model.get_input_embeddings().weight.norm(dim=-1).mean()
    torch.testing.assert_close(embedded[batch.places].norm(dim=-1), norm.expand(2))
    with torch.no_grad():
        logits = explainer.model(inputs_embeds=embedded, logits_to_keep=1).logits[:, -1]
        assert (logits[0] - logits[1]).abs().max() > 0.01
        assert 0 < explainer.loss(batch).item() < 20


def test_it_explains_in_words(explainer, question):
    asked = [question, dataclasses.replace(question, text=f"{question.text} Answer in one word.")]
    said = explainer.explain(asked, batch_size=2, max_new_tokens=4)
    assert all(isinstance(answer, str) and answer for answer in said)
    assert said == explainer.explain(asked, batch_size=1, max_new_tokens=4)
