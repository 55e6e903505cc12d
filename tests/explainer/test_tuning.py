"""LoRA goes on every linear layer of the decoder, whatever an architecture calls it."""

import pytest
import torch
from explaining import TRAINING, make_explainer
from test_variants import FAMILY, model_of

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.tuning import add_lora
from introspect_utils.settings.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
# model_type -> (settings beside those of FAMILY, linear layers of a decoder layer)
LINEAR = {
    "llama": ({}, 7),
    "gemma2": ({}, 7),
    "phi3": ({}, 4),  # qkv_proj, o_proj, gate_up_proj, down_proj
    "phi": ({}, 6),  # dense, fc1, fc2
    "gpt_neox": ({}, 4),  # query_key_value, dense, dense_h_to_4h, dense_4h_to_h
    "starcoder2": ({"tie_word_embeddings": True}, 6),  # c_fc, c_proj
    "stablelm": ({"tie_word_embeddings": False}, 7),
}


def explainer_of(kind, settings):
    made = make_explainer()
    lm = model_of(kind, settings)
    return Explainer(lm, made.settings, FAMILY["hidden_size"], made.layers)


@pytest.mark.parametrize("kind", list(LINEAR))
def test_every_linear_layer_but_the_head_is_adapted_and_their_number_is_said(kind, capsys):
    settings, n = LINEAR[kind]
    explainer = explainer_of(kind, settings)
    head = explainer.lm.model.get_output_embeddings()
    linear = {
        part.weight.data_ptr()
        for part in explainer.lm.model.modules()
        if isinstance(part, torch.nn.Linear) and part is not head
    }
    add_lora(explainer, TRAINING, 0)
    adapted = [part for part in explainer.model.modules() if hasattr(part, "lora_A")]
    assert {part.weight.data_ptr() for part in adapted} == linear
    assert len(adapted) == n * FAMILY["num_hidden_layers"]
    assert f"LoRA on {len(adapted)} linear layers of {kind}" in capsys.readouterr().out
    assert explainer.lm.model.get_output_embeddings() is head


def test_experts_which_are_no_linear_layers_are_adapted_too():
    explainer = explainer_of("mixtral", {"num_local_experts": 4})
    add_lora(explainer, TRAINING, 0)
    named = [name for name, p in explainer.model.named_parameters() if p.requires_grad]
    assert any("layers.2.mlp.experts" in name for name in named)


def test_weights_that_lora_does_not_reach_are_named():
    explainer = make_explainer()
    explainer.lm.model.get_decoder().layers[1].mixer = torch.nn.Conv1d(32, 32, 3)
    with pytest.raises(
        UserError, match="does not reach all weights of tiny-llama .1: layers.1.mix"
    ):
        add_lora(explainer, TRAINING, 0)
