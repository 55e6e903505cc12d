from dataclasses import replace

import pytest
import torch
from explaining import vectors
from spelling import prepending_tokenizer

from introspect_utils.models.load import load_model
from introspect_utils.scores.selfie import best_of, prompt_ids, selfie
from introspect_utils.settings.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

# F.1, written out
BASE = ["What is the meaning of the word '", "'? The meaning of the word '", "' is"]
CHAT = ["[user] Briefly define the word '", "'.\n[assistant] The meaning of the word '", "' is"]


def talkative(name):
    """A tiny model that does not just repeat its last token."""
    lm = load_model(name, "cpu", "float32")
    lm.model.lm_head.weight = torch.nn.Parameter(
        vectors(lm.model.lm_head.out_features, lm.width), requires_grad=False
    )
    return lm


@torch.no_grad()
def by_hand(lm, v, texts, max_new_tokens):
    """The most likely token, again and again, after the three texts with v [width] between them."""
    embed = lm.model.get_input_embeddings()
    bos = [] if lm.tokenizer.bos_token_id is None else [lm.tokenizer.bos_token_id]
    parts = [
        embed(torch.tensor(lm.tokenizer(text, add_special_tokens=False)["input_ids"]))
        for text in texts
    ]
    embedded = torch.cat(
        [embed(torch.tensor(bos, dtype=torch.long)), parts[0], v[None], parts[1], v[None], parts[2]]
    )[None]
    said = []
    while len(said) < max_new_tokens and said[-1:] != [lm.tokenizer.eos_token_id]:
        said.append(lm.model(inputs_embeds=embedded).logits[0, -1].argmax().item())
        embedded = torch.cat([embedded, embed(torch.tensor([[said[-1]]]))], dim=1)
    return lm.tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("name", "prompt", "texts"),
    [("tiny-llama", "chat", CHAT), ("tiny-qwen3", "base", BASE), ("tiny-gemma3", "chat", CHAT)],
)
def test_each_vector_takes_the_place_of_the_word_at_each_scale(name, prompt, texts):
    lm = talkative(name)
    vs, scales = 7 * vectors(4, lm.width, seed=1), (1, 10)
    wanted = [[by_hand(lm, scale * v / v.norm(), texts, 6) for v in vs] for scale in scales]
    assert len({text for row in wanted for text in row}) > 4
    for batch_size in (1, 3, 32):
        assert selfie(lm, vs, scales, prompt, batch_size, 6) == wanted
    assert (
        selfie(lm, 0.01 * vs, scales, prompt, 32, 6) == wanted
    )  # the scale is the norm, whatever that of v is


@pytest.mark.parametrize(("prompt", "texts"), [("base", BASE), ("chat", CHAT)])
def test_the_prompt_has_one_bos_and_two_places(prompt, texts):
    lm = load_model("tiny-llama", "cpu", "float32")
    ids, places = prompt_ids(lm, prompt)
    assert (
        ids.count(lm.tokenizer.bos_token_id) == 1
        and ids[0] == lm.tokenizer.bos_token_id
        and len(places) == 2
    )
    between = [ids[1 : places[0]], ids[places[0] + 1 : places[1]], ids[places[1] + 1 :]]
    assert [lm.tokenizer.decode(part) for part in between] == texts


@pytest.mark.parametrize(("prompt", "texts"), [("base", BASE), ("chat", CHAT)])
def test_no_space_is_put_behind_a_vector(prompt, texts):
    """By a tokenizer that puts one before every text."""
    lm = replace(load_model("tiny-llama", "cpu", "float32"), tokenizer=prepending_tokenizer())
    messages = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    lm.tokenizer.chat_template = messages + "[assistant] "
    ids, places = prompt_ids(lm, prompt)
    ids[places[0]] = ids[places[1]] = (stands_for := lm.tokenizer.convert_tokens_to_ids("Z"))
    assert lm.tokenizer.decode(ids[1:]) == "Z".join(texts) and ids.count(stands_for) == 2
    assert ids == lm.encode("Z".join(texts))


def test_a_zero_vector_stays_zero_and_no_vector_is_no_row():
    lm = talkative("tiny-llama")
    assert selfie(lm, torch.zeros(1, 32), (50,), max_new_tokens=5) == [
        [by_hand(lm, torch.zeros(32), BASE, 5)]
    ]
    assert selfie(lm, torch.zeros(0, 32), (1, 5)) == [[], []]


def test_decoding_is_greedy_whatever_a_model_has_for_settings_of_its_own():
    lm = talkative("tiny-llama")
    wanted = selfie(lm, vectors(3), (10,), max_new_tokens=12)
    lm.model.generation_config.update(
        do_sample=True, temperature=2.0, repetition_penalty=5.0, max_new_tokens=2
    )
    assert selfie(lm, vectors(3), (10,), max_new_tokens=12) == wanted


def test_vectors_of_another_width_are_refused():
    lm = load_model("tiny-gemma3", "cpu", "float32")
    with pytest.raises(UserError, match="SelfIE: tiny-gemma3 has width 48, the vectors 32"):
        selfie(lm, vectors(2, 32), (1,))


def test_a_base_model_has_no_chat_prompt():
    lm = load_model("tiny-llama", "cpu", "float32")
    lm.tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template"):
        selfie(lm, vectors(1), (1,), prompt="chat")


def test_the_best_of_the_scales_is_that_of_the_highest_score():
    said = [["a1", "b1", "c1"], ["a5", "b5", "c5"], ["a9", "b9", "c9"]]
    scores = [[0.1, -0.2, 0.5], [0.3, -0.1, 0.5], [0.2, -0.9, 0.4]]
    assert best_of(said, scores, (1, 5, 9)) == [("a5", 5, 0.3), ("b5", 5, -0.1), ("c1", 1, 0.5)]


@pytest.mark.parametrize("scale", [0, 1])
def test_a_score_that_is_not_a_number_is_never_the_best(scale):
    scores = [[0.1, 0.2], [0.3, 0.4]]
    scores[scale][1] = float("nan")
    with pytest.raises(UserError, match="direction 1 .* a score that is not a number"):
        best_of([["a1", "b1"], ["a5", "b5"]], scores, (1, 5))


@pytest.mark.parametrize("scores", [[[0.1, 0.2]], [[0.1, 0.2], [0.3]]])
def test_every_description_needs_its_score(scores):
    with pytest.raises(ValueError, match="zip"):
        best_of([["a", "b"], ["c", "d"]], scores, (1, 5))
