"""What a load left out is an error, models share weights and nothing else, and greedy is greedy."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from introspect_utils.models.load import load_model
from introspect_utils.models.weights import (
    end_tokens,
    generate_tokens,
    read_adapter,
    sharing_weights,
)
from introspect_utils.settings.errors import UserError

IDS = torch.arange(20, 44).view(2, 12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """{kind: a folder}: a full model, and a LoRA on it."""
    root, lm = tmp_path_factory.mktemp("saved"), load_model("tiny-llama", "cpu")
    lm.model.save_pretrained(root / "full")
    lm.tokenizer.save_pretrained(root / "full")
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(lm.model, config).save_pretrained(root / "lora", save_embedding_layers=False)
    return {kind: root / kind for kind in ("full", "lora")}


def read(kind, folder):
    return (
        load_model(str(folder), "cpu").model
        if kind == "full"
        else read_adapter(load_model("tiny-llama", "cpu").model, folder)
    )


def changed(saved, kind, to, change):
    """A copy of a saved folder with other weights."""
    to.mkdir()
    for path in saved[kind].iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    [weights] = to.glob("*.safetensors")
    save_file(change(load_file(weights)), weights, {"format": "pt"})
    return to


def without(part):
    return lambda weights: {name: w for name, w in weights.items() if part not in name}


def renamed(old, new):
    return lambda weights: {name.replace(old, new, 1): w for name, w in weights.items()}


FAULTS = {
    ("full", "compiled"): (renamed("model.", "_orig_mod.model."), "lacks weights .3"),
    ("full", "parallel"): (renamed("model.", "module.model."), "lacks weights"),
    ("full", "layer"): (without("layers.2."), "lacks weights .9: model.layers.2.input_layernorm"),
    ("full", "norm"): (without("model.norm."), "lacks weights .1: model.norm.weight"),
    ("full", "more"): (
        lambda w: w | {"model.layers.4.mlp.up_proj.bias": torch.zeros(2)},
        "holds unknown weights .1: model.layers.4.mlp.up_proj.bias",
    ),
    ("full", "shape"): (
        lambda w: w | {"model.norm.weight": torch.zeros(3)},
        "do not fit its config.json",
    ),
    ("lora", "compiled"): (
        renamed("base_model.model.", "base_model.model._orig_mod."),
        "lacks weights .56: ",
    ),
    ("lora", "parallel"): (renamed("base_model.", "module.base_model."), "lacks weights"),
    ("lora", "unprefixed"): (renamed("base_model.model.", ""), "lacks weights"),
    ("lora", "layer"): (without("layers.1."), "lacks weights .14: .*layers.1"),
    ("lora", "without B"): (without("lora_B"), "lacks weights .28: .*lora_B"),
    ("lora", "one B"): (without("layers.3.mlp.up_proj.lora_B"), "lacks weights .1: .*lora_B"),
    ("lora", "more"): (
        lambda w: w | {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": w[min(w)] + 1},
        "holds unknown weights .1: .*layers.9",
    ),
    ("lora", "shape"): (
        lambda w: {name: value[:, :1].contiguous() for name, value in w.items()},
        "does not fit its base",
    ),
}


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_whole_weights_are_read_as_they_were_saved(saved, kind, tmp_path):
    state = read(kind, changed(saved, kind, tmp_path / "same", dict)).state_dict()
    [path] = saved[kind].glob("*.safetensors")
    for name, weight in load_file(path).items():
        loaded = state[name if kind == "full" else name.replace(".weight", ".default.weight")]
        assert torch.equal(loaded, weight)


@pytest.mark.parametrize(("kind", "fault"), list(FAULTS))
def test_what_a_load_left_out_is_an_error_that_names_it(saved, tmp_path, kind, fault):
    change, message = FAULTS[kind, fault]
    with pytest.raises(UserError, match=message):
        read(kind, changed(saved, kind, tmp_path / "x", change))


def test_an_adapter_of_another_base_is_refused(saved):
    with pytest.raises(UserError, match="does not fit its base"):
        read_adapter(load_model("tiny-gemma3", "cpu").model, saved["lora"])


def adapted(folder, **settings):
    """The logits of a changed LoRA of tiny-llama, which is saved in `folder`."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 2, "target_modules": "all-linear"} | settings)
    model = get_peft_model(load_model("tiny-llama", "cpu").model, config)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model.eval()(IDS).logits


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal", "pissa", "olora"])
def test_an_adapter_is_read_however_it_was_begun(tmp_path, start):
    logits = adapted(tmp_path, init_lora_weights=start)
    again = read("lora", tmp_path).eval()
    torch.testing.assert_close(again(IDS).logits, logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("start", ["pissa_niter_2", "pissa_niter_16"])
def test_an_adapter_of_a_base_that_was_changed_by_chance_is_refused(tmp_path, start):
    adapted(tmp_path, init_lora_weights=start)
    with pytest.raises(UserError, match=f"init_lora_weights: {start}, .* convert the adapter"):
        read("lora", tmp_path)


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({"trainable_token_indices": [30, 40]}, "trainable_tokens"),
    ],
)
def test_what_is_trained_beside_the_adapter_must_be_there(tmp_path, settings, lost):
    logits = adapted(tmp_path / "whole", **settings)
    torch.testing.assert_close(read("lora", tmp_path / "whole").eval()(IDS).logits, logits)
    with pytest.raises(UserError, match="does not fit its base|lacks weights"):
        read("lora", changed({"x": tmp_path / "whole"}, "x", tmp_path / "less", without(lost)))


def test_a_base_with_one_matrix_for_embeddings_and_head_takes_no_two(saved, tmp_path):
    ends = load_model("tiny-llama", "cpu").model.get_input_embeddings().weight
    names = ("base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight")
    same, other = dict.fromkeys(names, ends), {names[0]: ends, names[1]: ends + 1}

    def with_ends(given):
        return lambda w: w | {name: end.clone() for name, end in given.items()}

    read("lora", changed(saved, "lora", tmp_path / "same", with_ends(same)))
    with pytest.raises(UserError, match="embeddings and a head that differ"):
        read("lora", changed(saved, "lora", tmp_path / "other", with_ends(other)))


# --- one base, two uses


def test_models_that_share_weights_share_memory_and_nothing_that_is_put_into_one(saved):
    lm = load_model("tiny-llama", "cpu")
    before = lm.model(IDS).logits
    other = sharing_weights(lm)
    places = {w.data_ptr() for w in lm.model.parameters()}
    assert {w.data_ptr() for w in other.model.parameters()} == places
    assert other.model.lm_head.weight is other.model.get_input_embeddings().weight
    adapted = read_adapter(other.model, saved["lora"])
    adapted.merge_adapter(safe_merge=True)
    other.model.resize_token_embeddings(2000)
    assert not torch.allclose(adapted(IDS).logits[..., :1000], before[..., :1000], atol=0.1)
    assert torch.equal(lm.model(IDS).logits, before)


# --- greedy

SETTINGS = {
    "suppress_tokens": list(range(600)),
    "bad_words_ids": [[token] for token in range(20, 500)],
    "sequence_bias": [[[token], 50.0] for token in range(20, 40)],
    "num_beams": 3,
    "length_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "repetition_penalty": 9.0,
    "min_new_tokens": 4,
    "begin_suppress_tokens": list(range(600)),
    "forced_eos_token_id": 2,
    "do_sample": True,
    "temperature": 30.0,
    "prompt_lookup_num_tokens": 3,
    "max_length": 1,
    "renormalize_logits": True,
    "exponential_decay_length_penalty": (1, 9.0),
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_no_generation_setting_of_the_model_changes_what_it_says(name):
    lm = load_model("tiny-llama", "cpu")
    inputs = {"inputs_embeds": lm.model.get_input_embeddings()(IDS)}
    expected = generate_tokens(lm, 8, **inputs)
    token = lm.model(IDS).logits[:, -1].argmax(-1)
    assert torch.equal(expected[:, 0], token)  # beams and penalties aside: the most likely
    setattr(lm.model.generation_config, name, SETTINGS[name])
    given = json.dumps(lm.model.generation_config.to_dict(), default=str)
    assert torch.equal(generate_tokens(lm, 8, **inputs), expected)
    assert json.dumps(lm.model.generation_config.to_dict(), default=str) == given


def test_beams_find_what_is_likelier_than_what_is_said_greedily():
    lm, n = load_model("tiny-llama", "cpu"), 4
    inputs = {"inputs_embeds": lm.model.get_input_embeddings()(IDS)}

    def log_p(said):  # of n tokens behind each prompt
        prompts = IDS.repeat_interleave(len(said) // len(IDS), 0)
        logits = lm.model(torch.cat([prompts, said], 1)).logits[:, IDS.shape[1] - 1 : -1]
        return logits.log_softmax(-1).gather(-1, said[..., None])[..., 0].sum(1)

    greedy = generate_tokens(lm, n, exactly=True, **inputs)
    beams = generate_tokens(lm, n, exactly=True, beams=5, **inputs)
    found = log_p(beams).view(len(IDS), 5)
    assert (found.diff(dim=1) <= 1e-4).all() and (found[:, 0] >= log_p(greedy) - 1e-4).all()
    assert all(len({tuple(row) for row in of.tolist()}) == 5 for of in beams.view(len(IDS), 5, n))


def test_a_likely_short_answer_stands_before_an_unlikely_long_one():
    lm, n = load_model("tiny-llama", "cpu"), 3
    [end] = end_tokens(lm)
    head = torch.nn.Linear(lm.model.lm_head.in_features, lm.model.lm_head.out_features)
    head.weight, head.bias.data = lm.model.lm_head.weight, torch.zeros(head.out_features)
    head.bias.data[end] = 3.0  # may end at any token
    lm.model.lm_head, prompt = head, IDS[:1]
    beams = generate_tokens(lm, n, beams=6, inputs_embeds=lm.model.get_input_embeddings()(prompt))
    scores = []
    for said in beams.tolist():
        said = said[: said.index(end) + 1] if end in said else said
        logits = lm.model(torch.cat([prompt, torch.tensor([said])], 1)).logits
        logits = logits[0, prompt.shape[1] - 1 : -1].log_softmax(-1)
        scores.append(logits[range(len(said)), said].sum().item())
    assert scores == sorted(scores, reverse=True)
    assert len({(row.index(end) if end in row else n) for row in beams.tolist()}) > 1


def test_an_answer_ends_at_every_end_that_the_model_has():
    lm = load_model("tiny-llama", "cpu")
    learned, special = lm.tokenizer.eos_token_id, lm.tokenizer.all_special_ids
    assert end_tokens(lm) == [learned]
    lm.model.generation_config.eos_token_id = [5, 7]
    assert end_tokens(lm) == sorted({5, 7, learned})
    lm.model.generation_config.eos_token_id = None
    turn = lm.tokenizer.convert_ids_to_tokens(special[-1])
    lm.tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }} " + turn + "\n{% endfor %}"
    )
    assert end_tokens(lm) == sorted({special[-1], learned})
    inputs = {"inputs_embeds": lm.model.get_input_embeddings()(IDS)}
    first = generate_tokens(lm, 3, **inputs)[0, 0].item()
    lm.model.generation_config.eos_token_id = first
    said = generate_tokens(lm, 3, **inputs)[0].tolist()
    assert said[0] == first and set(said[1:]) <= {lm.tokenizer.pad_token_id}
