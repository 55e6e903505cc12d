"""The gate at load: which architectures it lets through, and what it notices."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from introspect_utils.models.gate import check_architecture, check_same_logits, sample_logits
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def random_model(family: str, tokenizer, **changes) -> LanguageModel:
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **SIZES | special | changes)
    torch.manual_seed(0)
    return LanguageModel(family, AutoModelForCausalLM.from_config(config).eval(), tokenizer)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("tiny-")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tiny_families_pass(name, dtype):
    check_architecture(load_model(name, "cpu", dtype))


@pytest.mark.parametrize(
    "family", ["qwen2", "gemma", "gemma2", "phi3", "olmo2", "cohere2", "stablelm", "gpt_neox"]
)
def test_other_families_of_one_stream_pass(family, tiny):
    """Biases, LayerNorm, fused projections, scaled embeddings, parallel blocks."""
    check_architecture(random_model(family, tiny.tokenizer))


@pytest.mark.parametrize("family", ["gpt2", "mamba", "jamba", "minicpm3"])
def test_an_architecture_that_cannot_be_read_is_refused_by_name(family, tiny):
    """Layers elsewhere, no attention, a cache of another kind."""
    changes = {"n_layer": 2, "n_head": 4, "n_embd": 32} if family == "gpt2" else {}
    with pytest.raises(UserError, match=rf"{family} is a \w+, (which does not)"):
        check_architecture(random_model(family, tiny.tokenizer, **changes))


def tuple_output(lm):
    for layer in lm.model.model.layers:
        layer.register_forward_hook(lambda module, args, output: (output,))


def another_stream(lm):
    """What each layer gives is changed on its way to the next."""
    lm.model.model.layers[2].register_forward_pre_hook(
        lambda module, args: (args[0] * 1.01, *args[1:])
    )


def ids_only(lm):
    """Token ids are embedded otherwise than `get_input_embeddings` says."""
    decoder = lm.model.model

    def embed(module, args, kwargs):
        if kwargs.get("input_ids") is not None:
            embedded = decoder.embed_tokens(kwargs.pop("input_ids")) * 2
            return args, kwargs | {"inputs_embeds": embedded}

    decoder.register_forward_pre_hook(embed, with_kwargs=True)


def no_padding(lm):
    """The attention mask is not read."""
    lm.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, kwargs | {"attention_mask": None}), with_kwargs=True
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (tuple_output, "does not work as expected"),
        (another_stream, "layer 2 does not read what layer 1 gives"),
        (ids_only, "embeddings in place of token ids change its logits"),
        (no_padding, "padding on the left changes its logits|a patch through the cache"),
    ],
)
def test_a_model_that_works_otherwise_is_refused(fault, message):
    lm = load_model("tiny-llama", "cpu")
    fault(lm)
    with pytest.raises(UserError, match=message):
        check_architecture(lm)


def test_a_folder_is_checked_when_it_is_loaded(tmp_path, tiny):
    lm = random_model("gpt2", tiny.tokenizer, n_layer=2, n_head=4, n_embd=32)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="GPT2LMHeadModel, .* .its decoder layers are not in"):
        load_model(str(tmp_path), "cpu")


def test_a_change_of_weights_is_seen_in_the_logits():
    lm = load_model("tiny-llama", "cpu")
    before = sample_logits(lm)
    check_same_logits(lm, before, "nothing")
    with torch.no_grad():
        lm.model.model.layers[1].self_attn.v_proj.weight[0] += 0.1
    with pytest.raises(UserError, match=r"the change changes the logits of tiny-llama by .*%"):
        check_same_logits(lm, before, "the change")
