import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from introspect_utils.data.assets import ASSETS
from introspect_utils.models.load import (
    choose_compute_dtype,
    choose_device,
    choose_dtype,
    load_model,
)
from introspect_utils.models.tiny import FAMILIES, WIDTHS
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS

TINY = [name for name in MODELS if name.startswith("tiny-")]
TEXT = "Rome is the capital of"


def logits(lm, text=TEXT):
    with torch.inference_mode():
        return lm.model(torch.tensor([lm.encode(text)])).logits


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama as a folder in the transformers format."""
    lm = load_model("tiny-llama", "cpu")
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# --- the registry


@pytest.mark.parametrize("name", MODELS)
def test_every_entry_says_where_one_model_comes_from(name):
    spec = MODELS[name]
    assert [bool(spec.asset), bool(spec.hub), bool(spec.tiny)].count(True) == 1
    assert "/" not in name and name == name.lower()
    if spec.asset:
        assert spec.asset in ASSETS
    if spec.hub:
        owner, _, model = spec.hub.partition("/")
        assert model.lower().endswith(
            name.removeprefix("llama-3-")
        )  # the name is the hub's, but for Meta-Llama-3-8B
        assert spec.gated == (owner in ("meta-llama", "google"))
    if spec.tiny:
        assert spec.tiny in FAMILIES and spec.tiny in WIDTHS


def test_the_registry_needs_no_torch():
    code = "import sys, introspect_utils.models.load; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- loading


@pytest.mark.parametrize("name", TINY)
def test_a_saved_folder_gives_the_model_back(name, tmp_path):
    lm = load_model(name, "cpu")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), "cpu")
    assert again.encode(TEXT) == lm.encode(TEXT)
    torch.testing.assert_close(logits(again), logits(lm), rtol=0, atol=0)
    assert again.tokenizer.padding_side == "left" and again.tokenizer.pad_token_id is not None
    assert (again.n_layers, again.width) == (4, WIDTHS[MODELS[name].tiny])


def test_a_folder_without_a_pad_token_pads_with_eos(folder):
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": None}))
    tokenizer = load_model(str(folder), "cpu").tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_the_seed_draws_the_weights_of_a_tiny_model():
    same, again, other = (logits(load_model("tiny-llama", "cpu", seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_a_loaded_model_is_for_reading():
    model = load_model("tiny-gemma3", "cpu", "bfloat16").model
    assert not model.training
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.bfloat16, False)}


def test_hub_ids_load_from_the_cache_and_fail_in_one_line_without_network(folder, tmp_path):
    """In a process of its own: the hub's client reads these variables when it is imported."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / ("0" * 40))
    code = """if True:
        import sys, torch
        from introspect_utils.models.load import load_model
        for name in sys.argv[1:]:
            try:
                print(load_model(name, "cpu").model(torch.tensor([[1, 77, 78]])).logits.argmax().item())
            except Exception as error:
                print(f"{type(error).__name__}: {error}")
    """
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }
    names = ["someone/tiny", "llama-3.1-8b", "qwen3-8b", "someone/else"]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True
    )
    cached, gated, known, unknown = done.stdout.splitlines()
    with torch.inference_mode():
        assert (
            int(cached)
            == load_model("tiny-llama", "cpu").model(torch.tensor([[1, 77, 78]])).logits.argmax()
        )
    assert (
        gated.startswith("UserError: cannot load llama-3.1-8b (meta-llama/Llama-3.1-8B)")
        and "HF_TOKEN" in gated
    )
    assert (
        known.startswith("UserError: cannot load qwen3-8b (Qwen/Qwen3-8B)")
        and "network" in known
        and "HF_TOKEN" not in known
    )
    assert (
        unknown.startswith("UserError: cannot load someone/else")
        and "check the name and the network" in unknown
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-lama", "no model is called 'tiny-lama'; did you mean 'tiny-llama'"),
        ("qwen", "no model is called 'qwen'"),
        ("/no/such/folder", "there is no such folder"),
    ],
)
def test_an_unknown_name_is_told_from_a_missing_folder(name, message):
    with pytest.raises(UserError, match=message) as error:
        load_model(name, "cpu")
    assert "\n" not in str(error.value)


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "a weight file of .* is damaged .*: delete it"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b""),
            "a weight file of .* is damaged",
        ),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"no file named model.safetensors.*\*\.safetensors, as save_pretrained",
        ),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "llam'),
            "config.json.* is not a valid JSON",
        ),
        (empty, "cannot load .*; a model folder holds config.json"),
    ],
    ids=["truncated", "empty weights", "no weights", "broken config", "empty folder"],
)
def test_a_damaged_folder_is_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        load_model(str(folder), "cpu")
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


# --- device and dtype


@pytest.mark.parametrize("gpu", [True, False])
def test_auto_is_bfloat16_on_a_gpu_and_float32_without(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device("auto") == ("cuda" if gpu else "cpu")
    assert choose_device("cpu") == "cpu"
    assert choose_dtype("auto") == (torch.bfloat16 if gpu else torch.float32)
    assert choose_dtype("auto", "cpu") == torch.float32
    assert choose_dtype("bfloat16", "cpu") == torch.bfloat16
    assert choose_dtype("float32") == torch.float32
    cpus = (  # Intel's without matrix units: a training step takes longer in bfloat16 (measured)
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, False),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, True),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, False),
        ({}, False),
    )
    for cpu, fast in cpus:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda cpu=cpu: cpu)
        assert choose_compute_dtype("auto") == ("bfloat16" if gpu or fast else "float32")
        assert choose_compute_dtype("auto", "cpu") == ("bfloat16" if fast else "float32")
        assert choose_compute_dtype("float32") == "float32"


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no usable GPU here: set device: auto or cpu"):
        load_model("tiny-llama", "cuda")


# --- texts


@pytest.mark.parametrize("name", TINY)
def test_base_and_chat_texts_have_exactly_one_bos(name):
    lm = load_model(name, "cpu")
    base, chat = lm.encode(TEXT), lm.encode(lm.chat(TEXT), special=True)
    bos = lm.tokenizer.bos_token_id
    assert (bos is None) == (name == "tiny-qwen3")
    if bos is None:
        special = set(lm.tokenizer.all_special_ids)
        assert not special & {*base, *chat}
    else:
        assert (base[0], base.count(bos)) == (chat[0], chat.count(bos)) == (bos, 1)
    assert lm.tokenizer.decode(base, skip_special_tokens=True) == TEXT


@pytest.mark.parametrize("name", TINY)
def test_a_chat_is_one_user_turn_that_awaits_the_assistant(name):
    lm = load_model(name, "cpu")
    assert lm.chat(TEXT) == f"{lm.tokenizer.bos_token or ''}[user] {TEXT}\n[assistant] "


def test_a_model_without_chat_template_says_so():
    lm = load_model("tiny-llama", "cpu")
    lm.tokenizer.chat_template = None
    with pytest.raises(
        UserError, match="tiny-llama has no chat template: set explainer.prompt: base"
    ):
        lm.chat("hello")


# --- the real model


@pytest.mark.real
def test_the_converted_model_knows_the_capital_of_france(smollm2):
    assert (smollm2.n_layers, smollm2.width) == (30, 576)
    token = logits(smollm2, "The capital of France is")[0, -1].argmax().item()
    assert smollm2.tokenizer.decode([token]) == " Paris"
    chat = smollm2.encode(smollm2.chat("Hello"), special=True)
    assert chat[0] == smollm2.tokenizer.bos_token_id != chat[1]
    assert "helpful" not in smollm2.chat("Hello")  # no default system prompt
