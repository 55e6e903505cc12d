"""The explainers made from the target: the same function in another basis, and the target trained
further."""

from dataclasses import replace

import pytest
import torch
from explaining import BLOCKS, make_examples, training_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from introspect_utils.explainer import make, variants
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.train import train
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import recorded
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import variant
from introspect_utils.settings.profile import load_profile

IDS = torch.arange(24).view(2, 12) * 31 % 1000


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return load_profile("smoke")


def stream(lm):
    """(logits, h of layer 1) of `lm` on IDS."""
    with torch.no_grad(), recorded(lm.model, [1]) as found:
        return lm.model(IDS).logits, found[1]


@given(width=st.integers(2, 24), share=st.floats(0.05, 1), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_share_of_a_rotation_is_one_and_the_shares_make_up_the_whole(width, share, seed):
    q, rest = variants.orthogonal(width, share, seed), variants.orthogonal(width, 1 - share, seed)
    torch.testing.assert_close(q @ q.T, torch.eye(width, dtype=q.dtype), atol=1e-8, rtol=0)
    torch.testing.assert_close(q @ rest, variants.orthogonal(width, 1.0, seed), atol=1e-8, rtol=0)


def test_half_of_the_way_turns_less_than_all_of_it():
    cosines = [
        variants.orthogonal(256, share).diagonal().mean() for share in (0.25, 0.5, 0.75, 1.0)
    ]
    assert cosines == sorted(cosines, reverse=True)
    assert abs(cosines[3]) < 0.05 and cosines[0] == pytest.approx(
        0.9, abs=0.03
    )  # sin(a)/a of angles up to a = 45 degrees


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3"])
def test_a_rotated_model_is_the_same_function_in_another_basis(name):
    lm = load_model(name)
    with torch.no_grad():
        for parameter_name, weight in lm.model.named_parameters():
            if "norm" in parameter_name:
                weight.uniform_(0.5, 2)  # gains of 1 would need no folding
    logits, h = stream(lm)
    q = variants.orthogonal(lm.width, 1.0, seed=3)
    turned_logits, turned = stream(variants.rotate(lm, q))
    torch.testing.assert_close(turned_logits, logits, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(turned, h @ q.float().T, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(turned, h, atol=0.1)


FAMILY = {
    "vocab_size": 1200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# model_type -> settings beside those of FAMILY; whether it can be rotated
ROTATED = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {"attention_bias": True},
    "ernie4_5": {"use_bias": True},
    "gemma": {},
    "phi3": {},
    "granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    "mistral": {"tie_word_embeddings": True},
    "smollm3": {},
}
REFUSED = {
    "stablelm": {"use_qkv_bias": True},
    "olmo": {},
    "olmo2": {},
    "cohere": {},
    "gemma2": {},
    "gemma3_text": {},
    "qwen3_moe": {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4},
}


def model_of(kind, settings):
    """A random model in which no bias is 0 and no gain 1."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **FAMILY | settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, weight in model.requires_grad_(False).named_parameters():
        if "norm" in name and "bias" not in name:
            weight.add_(torch.rand_like(weight))
        elif "bias" in name:
            weight.normal_()
    return LanguageModel(kind, model, load_model("tiny-llama").tokenizer)


@pytest.mark.parametrize("kind", list(ROTATED))
def test_biases_gains_and_fused_projections_are_rotated_too(kind):
    lm = model_of(kind, ROTATED[kind])
    logits, h = stream(lm)
    q = variants.orthogonal(32, 1.0, seed=3)
    turned_logits, turned = stream(variants.rotate(lm, q))
    torch.testing.assert_close(turned_logits, logits, atol=5e-4, rtol=1e-3)
    torch.testing.assert_close(turned, h @ q.float().T, atol=5e-4, rtol=1e-3)
    assert not torch.allclose(turned, h, atol=0.1)


@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_cannot_be_rotated_is_refused_by_name(kind):
    lm = model_of(kind, REFUSED[kind])
    named = type(lm.model).__name__
    with pytest.raises(UserError, match=named):
        variants.rotate(lm, variants.orthogonal(32, 1.0, seed=3))


def test_a_sibling_is_trained_once_is_better_on_its_text_and_half_a_sibling_lies_between(
    profile, monkeypatch
):
    profile = replace(
        profile, variants=replace(profile.variants, sibling_steps=12, sibling_learning_rate=3e-3)
    )
    target = load_model("tiny-llama")
    whole = make.explainer_model(profile, "sibling", "tiny-llama", 0)
    monkeypatch.setattr(variants, "fit", None)  # raises if it is trained again
    half = make.explainer_model(profile, "sibling@0.5", "tiny-llama", 0)
    weights = [lm.model.get_input_embeddings().weight for lm in (target, half, whole)]
    torch.testing.assert_close(weights[1], (weights[0] + weights[2]) / 2)
    assert not torch.equal(weights[0], weights[2])
    text = make.aligned_contexts(profile, target)
    losses = [lm.model(input_ids=text, labels=text).loss.item() for lm in (target, whole)]
    assert losses[1] < losses[0]
    assert not any(p.requires_grad for p in whole.model.parameters())


def test_names_say_the_variant_and_the_share():
    assert variant("rotated@0.25") == ("rotated", 0.25)
    assert variant("sibling") == ("sibling", 1.0)
    assert variant("owner/model@main") == ("owner/model@main", 1.0)


def test_an_explainer_of_a_variant_is_loaded_onto_it(profile, tmp_path):
    examples = make_examples(8)
    trained = make.make_explainer(
        profile, "features", "rotated", "full", "tiny-llama", 32, BLOCKS, 0
    )
    train(trained, examples, training_settings(), tmp_path / "checkpoint")
    with pytest.raises(UserError, match="adapts tiny-llama rotated: make that with"):
        Explainer.load(tmp_path / "checkpoint")
    base = make.explainer_model(profile, "rotated", "tiny-llama", 0)
    questions = [example.question for example in examples]
    assert Explainer.load(tmp_path / "checkpoint", base=base).explain(questions) == trained.explain(
        questions
    )
