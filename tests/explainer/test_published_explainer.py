"""Explainers in the two formats that the authors publish, made of tiny models."""

import dataclasses
import json

import pytest
import torch
from explaining import BLOCKS, encode, logits, make_examples, make_explainer, training_settings
from safetensors.torch import load_file, save_file

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.make import make_explainer as explainer_of
from introspect_utils.explainer.published import is_published, load_published, published_folder
from introspect_utils.explainer.train import train
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks.question import VECTOR, Question
from introspect_utils.tasks.task_features import prompt, templates

pytestmark = pytest.mark.usefixtures("one_thread")
SMOKE = load_profile("smoke")
RAW = dataclasses.replace(
    SMOKE, explainer=dataclasses.replace(SMOKE.explainer, vector_scale="raw", vector_center=False)
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """{format: (folder, the logits of its explainer)}; the adapter's has one more token, and its
    embeddings."""
    root = tmp_path_factory.mktemp("published")
    lm = load_model("tiny-llama", "cpu")
    lm.model.save_pretrained(root / "base")
    lm.tokenizer.save_pretrained(root / "base")
    found = {}
    for kind, folder in (
        ("full", root / "features_explain_tiny"),
        ("lora", root / "act_patch_tiny"),
    ):
        explainer = make_explainer(vector_scale="raw")
        if kind == "lora":
            explainer.model.resize_token_embeddings(
                explainer.lm.model.config.vocab_size + 1, mean_resizing=False
            )
        train(explainer, make_examples(), training_settings(tuning=kind), root / kind)
        explainer.model.save_pretrained(
            folder, **({"save_embedding_layers": True} if kind == "lora" else {})
        )
        if kind == "full":
            lm.tokenizer.save_pretrained(folder)
        else:
            described = json.loads((folder / "adapter_config.json").read_text())
            (folder / "adapter_config.json").write_text(
                json.dumps(described | {"base_model_name_or_path": str(root / "base")})
            )
        found[kind] = (
            folder,
            logits(explainer, explainer.collate(encode(explainer, make_examples()))),
        )
    return found


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_published_explainer_answers_as_it_did_and_is_not_trained(published, tmp_path, kind):
    folder, expected = published[kind]
    explainer = explainer_of(RAW, "patching", str(folder), "full", "tiny-llama", 32, BLOCKS, 0)
    batch = explainer.collate(encode(explainer, make_examples()))
    torch.testing.assert_close(logits(explainer, batch), expected)
    before = {name: p.clone() for name, p in explainer.named_parameters()}
    trained = train(explainer, make_examples(), training_settings(), tmp_path / "checkpoint")
    assert all(torch.equal(p, before[name]) for name, p in explainer.named_parameters())
    assert (trained.losses, trained.trained_parameters) == ([], 0) and len(trained.sha256) == 64
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {
        p.name for p in folder.iterdir()
    }
    assert trained == train(
        explainer, make_examples(), training_settings(), tmp_path / "checkpoint"
    )
    assert len(explainer.explain([make_examples(1)[0].question], max_new_tokens=3)) == 1


def test_a_name_says_what_is_published():
    assert is_published("Transluce/act_patch_qwen3_8b_qwen3_8b") and is_published(
        "/data/input_ablation_qwen3_8b_qwen3_8b_hint"
    )
    assert (
        not is_published("Qwen/Qwen3-8B")
        and not is_published("act_patch_mine")
        and not is_published("rotated@0.5")
    )


def test_its_vector_is_raw_and_of_its_targets_width(published):
    folder, _ = published["full"]
    for profile, width in ((RAW, 48), (SMOKE, 32)):
        with pytest.raises(
            UserError,
            match="reads raw vectors, has width 32, the target (48|32): set vector_scale: raw",
        ):
            explainer_of(profile, "patching", str(folder), "full", "tiny-llama", width, BLOCKS, 0)


def copy(folder, to, leave=()):
    to.mkdir(parents=True)
    for path in folder.iterdir():
        if path.name not in leave:
            (to / path.name).write_bytes(path.read_bytes())
    return to


def test_other_formats_are_refused_by_name(published, tmp_path):
    folder, _ = published["lora"]
    config = json.loads((folder / "adapter_config.json").read_text())
    pickled = copy(
        folder, tmp_path / "pickled" / "act_patch_x", leave=("adapter_model.safetensors",)
    )
    (pickled / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"act_patch_x has no \*.safetensors: weights in other formats are not read"
    ):
        load_published(str(pickled), "cpu", "float32")
    for change, message in (
        ({"peft_type": "IA3"}, "is of IA3 on"),
        ({"base_model_name_or_path": None}, "is of LORA on None"),
    ):
        other = copy(folder, tmp_path / message / "act_patch_x")
        (other / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=f"adapter_config.json {message}"):
            load_published(str(other), "cpu", "float32")
    narrow = copy(folder, tmp_path / "narrow" / "act_patch_x")
    weights = load_file(narrow / "adapter_model.safetensors")
    key = next(key for key in weights if "embed_tokens" in key)
    for part, message in (
        (weights[key][:, :16], "does not fit its base .*embed_tokens"),
        (weights[key][:40], "has 40 embeddings, .* more tokens: of another base"),
    ):
        save_file(weights | {key: part.contiguous()}, narrow / "adapter_model.safetensors")
        with pytest.raises(UserError, match=message):
            load_published(str(narrow), "cpu", "float32")


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_weights_that_are_not_whole_are_refused(published, tmp_path, kind):
    folder, _ = published[kind]
    other = copy(folder, tmp_path / folder.name)
    [path] = other.glob("*.safetensors")
    lacking = {name: w for name, w in load_file(path).items() if "layers.1.mlp" not in name}
    save_file(lacking, path, {"format": "pt"})
    with pytest.raises(UserError, match="lacks weights .*layers.1.mlp"):
        load_published(str(other), "cpu", "float32")


def test_one_that_cannot_be_downloaded_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        UserError,
        match="cannot load the published explainer Transluce/act_patch_none .*check the name",
    ):
        published_folder("Transluce/act_patch_none")


@pytest.mark.parametrize(
    ("name", "form", "asked"),
    [
        ("features_explain_llama3.1_8b_llama3_8b", "authors-base", "At layer 1, {} encodes "),
        (
            "features_explain_llama3.1_8b_llama3.1_8b_instruct",
            "authors-llama",
            "Generate a description of this feature at layer 1: {}",
        ),
        ("features_explain_tiny", "base", "At layer 1, {} encodes"),  # nothing is known of it
    ],
)
def test_each_is_asked_in_the_form_it_was_trained_with_and_records_it(
    published, tmp_path, name, form, asked
):
    folder = copy(published["full"][0], tmp_path / name)
    explainer = explainer_of(RAW, "features", str(folder), "full", "tiny-llama", 32, [(1,)], 0)
    assert explainer.settings.prompt == form
    text = prompt(templates(form)[0], 1, form)
    assert text == asked.format(VECTOR)
    ids, n = explainer.encode(Question(text, torch.ones(32), (1,), prompt=form), "cities")
    decode = explainer.lm.tokenizer.decode
    assert ("[user]" in decode(ids[:n])) == (form == "authors-llama")
    assert decode(ids[n:-1]) == (" cities" if form == "base" else "cities")
    explainer.save(tmp_path / "saved")
    assert Explainer.load(tmp_path / "saved", "cpu").settings.prompt == form


def test_an_adapter_of_another_base_than_its_name_says_is_refused(published, tmp_path):
    folder = copy(published["lora"][0], tmp_path / "act_patch_qwen3_8b_qwen3_8b")
    described = json.loads((folder / "adapter_config.json").read_text())
    for base in (described["base_model_name_or_path"], "Qwen/Qwen3-8B-Base", "tiny-llama"):
        described["base_model_name_or_path"] = base
        (folder / "adapter_config.json").write_text(json.dumps(described))
        with pytest.raises(UserError, match=f"names {base} as its base, .* trained on qwen3-8b"):
            load_published(str(folder), "cpu", "float32")


@pytest.mark.parametrize("base", ["meta-llama/Meta-Llama-3.1-8B", "/data/Llama-3.1-8B"])
def test_one_base_has_several_ids(published, tmp_path, monkeypatch, base):
    folder = copy(published["lora"][0], tmp_path / "act_patch_llama3.1_8b_llama3.1_8b")
    described = json.loads((folder / "adapter_config.json").read_text())
    place, described["base_model_name_or_path"] = described["base_model_name_or_path"], base
    (folder / "adapter_config.json").write_text(json.dumps(described))
    read = {}
    monkeypatch.setattr(
        "introspect_utils.explainer.published.load_model",
        lambda name, *where: read.setdefault(name, load_model(place, *where)),
    )
    assert load_published(str(folder), "cpu", "float32").model and list(read) == [base]
