import dataclasses

import pytest
import torch
from explaining import (
    SETTINGS,
    TRAINING,
    WIDTHS,
    encode,
    make_examples,
    make_explainer,
    training_settings,
    vectors,
)
from transformers import AutoModelForCausalLM, MistralConfig

from introspect_utils.explainer import generate as generation
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.generate import generate, rollouts
from introspect_utils.explainer.train import train
from introspect_utils.explainer.tuning import add_lora
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.tasks.question import Example, Question

pytestmark = pytest.mark.usefixtures("one_thread")


def questions(d_target):
    """Nine questions of as many lengths, not in order, one of them without a vector."""
    examples = make_examples(16, d_target)
    chosen = [examples[i].question for i in (14, 1, 6, 3, 15, 8, 0, 11)]
    return [*chosen[:5], Question("Is it so?"), *chosen[5:]]


@torch.no_grad()
def by_hand(explainer, question, max_new_tokens):
    """The most likely token, again and again: one row, no padding, no cache. (ids, with EOS if it
    came)."""
    ids, _ = explainer.encode(question)
    embedded = explainer.embed(torch.tensor([ids]))
    if question.vector is not None:
        layer = torch.tensor([explainer.layers.index(question.layers)])
        embedded[0, ids.index(explainer.placeholder)] = explainer.continuous_token(
            question.vector[None], layer
        )[0]
    said = []
    while len(said) < max_new_tokens and said[-1:] != [explainer.lm.tokenizer.eos_token_id]:
        said.append(explainer.model(inputs_embeds=embedded).logits[0, -1].argmax().item())
        embedded = torch.cat([embedded, explainer.embed(torch.tensor([[said[-1]]]))], dim=1)
    return said


def expected(explainer, asked, max_new_tokens):
    tokenizer = explainer.lm.tokenizer
    return [
        tokenizer.decode(by_hand(explainer, each, max_new_tokens), skip_special_tokens=True).strip()
        for each in asked
    ]


@pytest.mark.parametrize("name", list(WIDTHS))
def test_a_batch_says_what_each_question_alone_would(name):
    """Random models, whose answers depend on everything in the question."""
    explainer = make_explainer(name, projection="always")
    explainer.lm.model.lm_head.weight = torch.nn.Parameter(
        vectors(1200, WIDTHS[name])
    )  # else they repeat the last token
    asked = questions(32)
    wanted = expected(explainer, asked, 12)
    assert len(set(wanted)) > 5
    for batch_size in (1, 4):
        assert generate(explainer, asked, batch_size, 12) == wanted, batch_size
    assert explainer.explain(asked[::-1], 7, 12) == wanted[::-1]


def test_rows_of_a_batch_end_where_each_says_eos(tmp_path):
    explainer = make_explainer("tiny-qwen3")
    examples = make_examples(8)
    train(
        explainer,
        examples,
        training_settings(tuning="full", learning_rate=3e-3, batch_size=8, epochs=30),
        tmp_path,
    )
    asked = [example.question for example in examples] + questions(32)
    ends = [by_hand(explainer, each, 20) for each in asked]
    assert len({len(end) for end in ends if end[-1] == explainer.lm.tokenizer.eos_token_id}) > 3
    wanted = expected(explainer, asked, 20)
    for batch_size in (1, 7):
        assert generate(explainer, asked, batch_size, 20) == wanted, batch_size


def test_no_more_than_the_most_tokens_asked_for_are_said():
    explainer = make_explainer()
    asked = questions(32)
    assert generate(explainer, asked, 4, 3) == expected(explainer, asked, 3)
    assert generate(explainer, [], 4, 3) == []


def test_the_form_of_the_prompt_can_be_given():
    chat, base = make_explainer(prompt="chat"), make_explainer(prompt="base")
    asked = questions(32)
    assert generate(chat, asked, prompt="base") == generate(base, asked) != generate(chat, asked)
    assert generate(base, asked, prompt="chat") == generate(chat, asked)


def test_decoding_is_greedy_whatever_a_model_has_for_settings_of_its_own():
    explainer = make_explainer()
    asked = questions(32)
    wanted = generate(explainer, asked, max_new_tokens=20)
    for name, value in {
        "do_sample": True,
        "temperature": 9.0,
        "repetition_penalty": 9.0,
        "max_length": 5,
    }.items():
        setattr(explainer.model.generation_config, name, value)
    assert generate(explainer, asked, max_new_tokens=20) == wanted


# --- merged adapters


def adapted(name="tiny-llama", dtype="float32"):
    """An explainer whose adapters do something."""
    explainer = make_explainer(name, dtype=dtype)
    add_lora(explainer, TRAINING, 0)
    for parameter_name, parameter in explainer.model.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.copy_(vectors(*parameter.shape, seed=len(parameter_name)) * 0.05)
    return explainer.eval()


def state(explainer):
    return {name: parameter.detach().clone() for name, parameter in explainer.named_parameters()}


@pytest.mark.parametrize("name", ["tiny-gemma3"])
def test_merged_adapters_say_the_same_and_leave_every_weight_as_it_was(name, monkeypatch):
    explainer = adapted(name)
    asked, before = questions(32), state(explainer)
    unadapted = make_explainer(name)
    wanted = expected(explainer, asked, 8)
    assert wanted != expected(unadapted, asked, 8)
    merging = []
    original = Explainer.embeddings
    monkeypatch.setattr(
        Explainer,
        "embeddings",
        lambda self, batch: merging.append(_merged_layers(self)) or original(self, batch),
    )
    for _ in range(2):
        assert generate(explainer, asked, 4, 8) == wanted
    assert set(merging) == {28}
    after = state(explainer)
    assert _merged_layers(explainer) == 0 and all(
        torch.equal(before[key], after[key]) for key in before
    )


def _merged_layers(explainer):
    return sum(bool(getattr(module, "merged", False)) for module in explainer.modules())


@pytest.mark.parametrize("where", ["generating", "merging"])
def test_adapters_are_taken_out_again_after_an_exception(where, monkeypatch):
    explainer = adapted()
    before = state(explainer)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    if where == "generating":
        monkeypatch.setattr(explainer.lm.model, "generate", interrupted)
    else:
        layer = [
            module
            for module in explainer.modules()
            if hasattr(module, "lora_A") and hasattr(module, "merge")
        ][9]
        monkeypatch.setattr(layer, "merge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(explainer, questions(32))
    after = state(explainer)
    assert _merged_layers(explainer) == 0 and all(
        torch.equal(before[key], after[key]) for key in before
    )


def test_adapters_are_not_rounded_into_bfloat16_weights():
    """An adapter too small to show in a bfloat16 weight still counts."""
    explainer = adapted(dtype="bfloat16")
    before = state(explainer)
    batch = explainer.collate(encode(explainer, make_examples(2)))
    with torch.no_grad():
        wanted = explainer.loss(batch)
        with generation.merged(explainer.model):
            assert torch.equal(explainer.loss(batch), wanted) and _merged_layers(explainer) == 0
    assert len(generate(explainer, questions(32), max_new_tokens=2)) == 9
    after = state(explainer)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_model_without_adapters_is_left_alone():
    explainer = make_explainer()
    with generation.merged(explainer.model):
        assert explainer.explain(questions(32)[:1]) == expected(explainer, questions(32)[:1], 24)


def test_gradients_flow_after_generating():
    explainer = adapted()
    rows = encode(explainer, make_examples(2))
    generate(explainer, questions(32), max_new_tokens=2)
    explainer.loss(explainer.collate(rows)).backward()
    gradients = [
        parameter.grad for name, parameter in explainer.named_parameters() if "lora_" in name
    ]
    assert all(gradient is not None and gradient.any() for gradient in gradients)


def test_a_trained_explainer_has_room_for_its_longest_explanation(tmp_path):
    explainer, examples = make_explainer(), make_examples(4)
    long = [Example(example.question, "one two three " * 8) for example in examples]
    train(explainer, long, training_settings(), tmp_path)
    (ids, n_prompt), question = (
        explainer.encode(long[0].question, long[0].explanation),
        long[0].question,
    )
    assert (
        explainer.longest_explanation
        == len(ids) - n_prompt
        == Explainer.load(tmp_path).longest_explanation
    )
    explainer.lm.model.generate = lambda generation_config, **given: torch.zeros(
        1, generation_config.max_new_tokens, dtype=torch.long
    ).fill_(ids[-2])
    (answer,) = generate(explainer, [question], max_new_tokens=1)
    assert answer == explainer.lm.tokenizer.decode([ids[-2]] * (len(ids) - n_prompt)).strip()


# --- attention windows


def windowed(name, window):
    """A random model all of whose layers see `window` tokens back."""
    lm = load_model(name, "cpu")
    given = lm.model.config.to_dict() | {"sliding_window": window, "initializer_range": 0.4}
    if name == "tiny-gemma3":
        config = type(lm.model.config)(**given | {"layer_types": ["sliding_attention"] * 4})
    else:
        given = {key: value for key, value in given.items() if key != "model_type"}
        config = MistralConfig(**given)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    lm = LanguageModel("windowed", model.requires_grad_(False), lm.tokenizer)
    assert lm.window == window
    return Explainer(lm, dataclasses.replace(SETTINGS, vector_scale="raw"), lm.width, [(0,)])


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gemma3"])
@pytest.mark.parametrize("ahead", [4, 30])
def test_an_answer_beyond_the_window_does_not_depend_on_the_batch(name, ahead):
    """A system prompt that is read once for all, and prompts of several lengths within the window,
    whose answers go on behind it."""
    system = "You are a helpful assistant. " * 4
    asked = [Question("Which is it?" + " Rome is." * k, system=system) for k in (0, 2, 5, 9)]
    longest = max(len(windowed(name, 1000).encode(question)[0]) for question in asked)
    explainer = windowed(name, longest + 6)
    together = explainer.collate([(q, *explainer.encode(q)) for q in asked], ahead)
    assert (together.shared > 0) == (ahead == 4)  # beyond the window nothing is shared
    alone = [rollouts(explainer, [question], ahead)[0] for question in asked]
    assert rollouts(explainer, asked, ahead) == alone
    said = [generate(explainer, [question], max_new_tokens=ahead)[0] for question in asked]
    assert generate(explainer, asked, max_new_tokens=ahead) == said
