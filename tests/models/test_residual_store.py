import json
import os

import pytest
import torch

from introspect_utils.models import residual_store
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import decoder_layers
from introspect_utils.models.residual_store import open_residuals, read_residuals, store_residuals
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = [name for name in MODELS if name.startswith("tiny-")]


@pytest.fixture(scope="module")
def contexts():
    return torch.randint(10, 1000, (7, 6), generator=torch.Generator().manual_seed(0))


def whole_pass(lm, context):
    """hidden_states of the whole model on one context behind its lead-in, without it: [layer][T,
    d], embedding first."""
    ids = torch.tensor([[*lm.encode("\n"), *context.tolist()]])
    with torch.inference_mode():
        return [
            h[0, -len(context) :] for h in lm.model(ids, output_hidden_states=True).hidden_states
        ]


@pytest.mark.parametrize("name", TINY)
def test_stored_residuals_are_those_of_the_whole_model_alone(name, contexts, tmp_path):
    lm = load_model(name, "cpu")
    store_residuals(lm, contexts, [2, 0], tmp_path, batch_size=3)
    for layer in (0, 2):
        stored = open_residuals(tmp_path, layer)
        assert stored.shape == (7, 6, lm.width) and stored.dtype == torch.bfloat16
        for h, context in zip(stored, contexts, strict=True):
            torch.testing.assert_close(
                h.float(), whole_pass(lm, context)[layer + 1], rtol=1e-2, atol=1e-3
            )


def test_the_last_layer_is_read_before_the_final_norm(tiny, contexts):
    [(rows, h)] = read_residuals(tiny, contexts, [3], batch_size=10)
    assert (rows.start, rows.stop) == (0, 7)
    torch.testing.assert_close(
        tiny.model.get_decoder().norm(h[3])[0],
        whole_pass(tiny, contexts[0])[-1],
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_lead_in_is_one_bos_where_there_is_one_and_a_line_break():
    llama, qwen = load_model("tiny-llama", "cpu"), load_model("tiny-qwen3", "cpu")
    assert (
        llama.encode(residual_store.LEAD_IN)[0] == llama.tokenizer.bos_token_id
        and len(llama.encode(residual_store.LEAD_IN)) == 2
    )
    assert len(qwen.encode(residual_store.LEAD_IN)) == 1


def test_layers_above_and_the_vocabulary_are_not_computed(tiny, contexts, tmp_path):
    called = []
    layers = list(decoder_layers(tiny.model))
    watched = [*layers, tiny.model.lm_head]
    handles = [
        module.register_forward_hook(lambda *_, i=i: called.append(i))
        for i, module in enumerate(watched)
    ]
    store_residuals(tiny, contexts, [1], tmp_path, batch_size=7)
    for handle in handles:
        handle.remove()
    assert called == [0, 1]
    assert list(decoder_layers(tiny.model)) == layers  # and the model is as it was


def test_the_model_is_as_it_was_after_a_failure(contexts):
    lm = load_model("tiny-llama", "cpu")
    with pytest.raises(IndexError):
        list(read_residuals(lm, contexts + 10_000_000, [1], 7))
    assert len(decoder_layers(lm.model)) == 4
    assert not any(module._forward_hooks for module in decoder_layers(lm.model).modules())


# --- interrupted passes


def interrupted(monkeypatch, after):
    """From now on a pass is cut short after so many batches."""
    original = residual_store.read_residuals

    def cut(*args):
        for number, batch in enumerate(original(*args)):
            if number == after:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(residual_store, "read_residuals", cut)


def test_a_pass_cut_short_is_not_taken_for_whole_and_goes_on(tiny, contexts, tmp_path, monkeypatch):
    store_residuals(tiny, contexts, [1, 2], tmp_path / "whole", batch_size=2)
    with monkeypatch.context() as patch:
        interrupted(patch, after=2)
        with pytest.raises(KeyboardInterrupt):
            store_residuals(tiny, contexts, [1, 2], tmp_path / "cut", batch_size=2)
    with pytest.raises(UserError, match="layer1.bf16 is unfinished or damaged"):
        open_residuals(tmp_path / "cut", 1)
    with pytest.raises(UserError, match="holds no residuals of layer 3"):
        open_residuals(tmp_path / "cut", 3)
    with (tmp_path / "cut" / "layer2.bf16").open("ab") as file:
        file.write(b"half a context")  # as a process killed while it wrote leaves it
    seen = []
    original = residual_store.read_residuals
    monkeypatch.setattr(
        residual_store,
        "read_residuals",
        lambda lm, c, *args: seen.append(len(c)) or original(lm, c, *args),
    )
    store_residuals(tiny, contexts, [1, 2], tmp_path / "cut", batch_size=2)
    assert seen == [3]  # four of seven were there
    for layer in (1, 2):
        assert torch.equal(
            open_residuals(tmp_path / "cut", layer), open_residuals(tmp_path / "whole", layer)
        )
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [
        "layer1.bf16",
        "layer1.json",
        "layer2.bf16",
        "layer2.json",
    ]


def test_only_what_is_missing_is_computed(tiny, contexts, tmp_path, monkeypatch):
    store_residuals(tiny, contexts, [1], tmp_path, batch_size=7)
    asked = []
    original = residual_store.read_residuals
    monkeypatch.setattr(
        residual_store,
        "read_residuals",
        lambda lm, c, layers, size: asked.append(list(layers)) or original(lm, c, layers, size),
    )
    store_residuals(tiny, contexts, [1], tmp_path, batch_size=7)
    store_residuals(tiny, contexts, [0, 1], tmp_path, batch_size=7)
    store_residuals(
        tiny, contexts.flip(0), [0, 1], tmp_path, batch_size=7
    )  # another corpus: nothing of the old one is kept
    assert asked == [[0], [0, 1]]
    [(_, h)] = original(tiny, contexts.flip(0), [1], 7)
    assert torch.equal(open_residuals(tmp_path, 1), h[1].bfloat16())


def test_a_damaged_store_is_an_error_and_is_made_again(tiny, contexts, tmp_path):
    store_residuals(tiny, contexts, [1], tmp_path, batch_size=7)
    assert json.loads((tmp_path / "layer1.json").read_text())["shape"] == [7, 6, 32]
    before = open_residuals(tmp_path, 1).clone()
    data = (tmp_path / "layer1.bf16").read_bytes()
    for damaged in (data[:-2], data + b"more"):
        (tmp_path / "layer1.bf16").write_bytes(damaged)
        with pytest.raises(UserError, match=r"layer1.bf16 is unfinished or damaged .*\[7, 6, 32\]"):
            open_residuals(tmp_path, 1)
        store_residuals(tiny, contexts, [1], tmp_path, batch_size=7)
        assert torch.equal(open_residuals(tmp_path, 1), before)


def test_the_mean_over_a_corpus_larger_than_a_block():
    values = torch.randn(2500, 3, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    torch.testing.assert_close(
        residual_store.mean_residual(values), values.float().mean((0, 1)), rtol=1e-5, atol=1e-6
    )


def test_a_store_larger_than_the_memory_is_read(tmp_path):
    length, width = 32, 64
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shape = [3 * memory // (2 * length * width), length, width]
    raw = tmp_path / "layer0.bf16"
    raw.touch()
    os.truncate(raw, 2 * shape[0] * length * width)  # a hole: no room on the disk
    (tmp_path / "layer0.json").write_text(json.dumps({"shape": shape}))
    h = open_residuals(tmp_path, 0)
    assert list(h.shape) == shape and h.dtype == torch.bfloat16 and not h[-1].any()
