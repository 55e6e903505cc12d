"""Every gate stops what it is for, in the run where it stands, and lets an honest run pass."""

import dataclasses
import gc
import weakref

import pandas as pd
import pytest
import torch
from explaining import TRAINING, encode, make_examples, make_explainer, training_settings
from safetensors.torch import load_file, save_file

from introspect_utils.explainer import gates
from introspect_utils.explainer import generate as generation
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.train import train
from introspect_utils.features.directions import Directions
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import clean_run, pad_left
from introspect_utils.runs import record as provenance
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import task_features
from introspect_utils.tasks.question import Example

pytestmark = pytest.mark.usefixtures("one_thread")


# --- training


def test_masked_labels_stop_training(tmp_path, monkeypatch):
    original = Explainer.collate

    def collate(self, rows, ahead=0):
        batch = original(self, rows)
        batch.labels[1, :-1] = -100  # one row is left with its EOS
        return batch

    monkeypatch.setattr(Explainer, "collate", collate)
    with pytest.raises(UserError, match="the labels of row 1 of the first batch are masked"):
        train(make_explainer(), make_examples(), TRAINING, tmp_path)


@pytest.mark.parametrize("said", ["", " \n"])
@pytest.mark.parametrize("prompt", ["chat", "base"])
def test_an_empty_explanation_stops_training(tmp_path, said, prompt):
    examples = [*make_examples(3), Example(make_examples(4)[3].question, said)]
    with pytest.raises(UserError, match="training row 3 has an empty explanation: leave it out"):
        train(make_explainer(prompt=prompt), examples, TRAINING, tmp_path)


def optimizer_of(monkeypatch, choose):
    """Training with an optimizer whose parameters are chosen from (all of the module, those to be
    trained)."""
    made = torch.optim.AdamW
    everything = []
    original = gates.sampled
    monkeypatch.setattr(
        gates,
        "sampled",
        lambda module: everything.append(dict(module.named_parameters())) or original(module),
    )
    monkeypatch.setattr(
        torch.optim,
        "AdamW",
        lambda weights, **settings: made(choose(everything[-1], list(weights)), **settings),
    )


def test_a_frozen_parameter_that_changes_stops_training(tmp_path, monkeypatch):
    def choose(everything, wanted):
        norm = next(p for name, p in everything.items() if name.endswith("input_layernorm.weight"))
        norm.grad = torch.ones_like(norm)
        return [*wanted, norm]

    optimizer_of(monkeypatch, choose)
    with pytest.raises(
        UserError, match="input_layernorm.weight is frozen, and training changed it"
    ):
        train(make_explainer(), make_examples(), TRAINING, tmp_path)
    assert not (tmp_path / "explainer.json").exists()


@pytest.mark.parametrize("left_out", ["model", "projection"])
def test_what_is_not_trained_stops_training(tmp_path, monkeypatch, left_out):
    def choose(everything, wanted):
        return [
            p
            for name, p in everything.items()
            if p.requires_grad and not name.startswith(f"{left_out}.")
        ]

    optimizer_of(monkeypatch, choose)
    with pytest.raises(
        UserError, match=f"training changed nothing in the {left_out}: raise learning_rate"
    ):
        train(make_explainer(projection="always"), make_examples(), TRAINING, tmp_path)


def test_the_check_of_what_was_trained_keeps_no_weight_in_memory():
    """As FSDP does, others are put in the place of the parameters: the first ones must be freed."""
    module = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.Linear(300, 300))
    before = gates.sampled(module)
    storage = weakref.ref(module[0].weight.untyped_storage())
    copies = [torch.nn.Linear(300, 300) for _ in module]
    for i, copy in enumerate(copies):
        copy.load_state_dict(module[i].state_dict())
        module[i].weight, module[i].bias = copy.weight, copy.bias
    gc.collect()
    assert storage() is None
    assert sum(values.untyped_storage().nbytes() for values, _ in before.values()) < 10_000
    with pytest.raises(UserError, match="training changed nothing in the 0, 1"):
        gates.check_trained(module, before)
    module[0].weight.data += 1
    module[1].bias.data += 1
    gates.check_trained(module, before)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_saved_is_what_was_trained(tmp_path, monkeypatch, tuning, rank):
    """An honest run passes; a checkpoint that lacks a tensor, or has another one in its place, does
    not."""
    explainer = make_explainer(projection="always", projection_rank=rank)
    train(explainer, make_examples(), training_settings(tuning=tuning), tmp_path)
    trained = sum(p.requires_grad for p in explainer.parameters())
    found = 0
    for path in tmp_path.glob("*.safetensors"):
        if path.name == "vectors.safetensors":
            continue
        saved = load_file(path)
        for name in [name for name in saved if name != "weight" or not rank]:
            save_file(saved | {name: saved[name] + 1}, path)
            with pytest.raises(UserError, match="is not what was trained; delete"):
                gates.check_saved(explainer, tmp_path)
            found += 1
            if found % 5 == 1:
                save_file({other: value for other, value in saved.items() if other != name}, path)
                with pytest.raises(UserError, match="which was trained: delete it and train again"):
                    gates.check_saved(explainer, tmp_path)
        save_file(saved, path)
    assert found == trained
    gates.check_saved(explainer, tmp_path)


def test_a_checkpoint_that_another_run_wrote_over_is_not_recorded(tmp_path, monkeypatch):
    trained = train(make_explainer(), make_examples(), TRAINING, tmp_path / "one")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def record():
        device = torch.device("cpu")
        return provenance.run_record(
            "x", load_profile("smoke"), device, trained.checkpoint, checkpoint_sha256=trained.sha256
        )

    assert record()["checkpoint_sha256"] == trained.sha256
    train(make_explainer(), make_examples(), TRAINING, tmp_path / "one", seed=1)
    with pytest.raises(UserError, match="one has changed since its explainer was trained"):
        record()


# --- training and test rows


def test_a_direction_of_both_parts_is_refused():
    vectors = torch.eye(4, 8)
    vectors[3] = vectors[0]
    split = ("train", "train", "test", "test")
    made = Directions(("a", "b", "c", "d"), ("sae",) * 4, split, (1, 1, 1, 1), vectors, ("",) * 4)
    gold = dict.fromkeys(made.names, "x")
    with pytest.raises(
        UserError, match="1 of 2 directions of the test rows stand among the training rows too"
    ):
        task_features.split(made, gold, 2, 0)
    assert task_features.split(dataclasses.replace(made, layers=(1, 1, 1, 2)), gold, 2, 0)[
        "test"
    ] == [2, 3]


# --- predictions


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3", "tiny-gemma3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_honest_models_pass_the_gate_of_padding(name, dtype):
    explainer = make_explainer(name, dtype=dtype)
    gates.check_padding(explainer, encode(explainer, make_examples(16)))


@pytest.mark.parametrize("fault", ["mask", "positions"])
def test_padding_that_is_not_masked_stops_generation(monkeypatch, fault):
    explainer, questions = make_explainer(), [example.question for example in make_examples(8)]
    said = generate(explainer, questions, 1, 4)
    if fault == "mask":
        original = Explainer.collate

        def collate(self, rows, ahead=0):
            batch = original(self, rows)
            return batch._replace(mask=torch.ones_like(batch.mask))

        monkeypatch.setattr(Explainer, "collate", collate)
    else:
        forward = explainer.model.forward

        def stretched(
            position_ids, **rest
        ):  # RoPE is relative: positions that only count the padding too would change nothing
            return forward(position_ids=position_ids * len(position_ids), **rest)

        monkeypatch.setattr(explainer.model, "forward", stretched)
    with pytest.raises(
        UserError, match="tiny-llama answers a question otherwise beside longer ones than alone"
    ):
        generate(explainer, questions, 4, 4)
    if fault == "mask":
        assert generate(explainer, questions, 1, 4) == said  # as the message says


def test_generation_passes_the_gate_as_it_generates(monkeypatch):
    """With the adapters folded in, and once a call."""
    seen = []
    monkeypatch.setattr(
        generation, "check_padding", lambda explainer, rows, ahead: seen.append(len(rows))
    )
    explainer, questions = make_explainer(), [example.question for example in make_examples(4)]
    for batch_size in (1, 2):
        generate(explainer, questions, batch_size, 2)
    generate(explainer, questions[:1], 2, 2)
    assert seen == [4] and generate(explainer, [], 2, 2) == []


def predictions(said, condition="full", truth=(True, False, True)):
    return pd.DataFrame(
        {
            "explainer": "self",
            "condition": condition,
            "generation": said,
            "is_different": truth[: len(said)],
        }
    )


RUN = {"checkpoint": "artifacts/x", "n_train": 11}  # of run.json, what is looked at


def test_an_explainer_that_always_says_the_same_is_reported():
    [line] = gates.warnings(RUN, predictions(["a", "a", "a"]))
    assert line == "self, full: all 3 predictions are the same ('a')"
    assert gates.warnings(RUN, predictions(["a", "b", "a"])) == []
    assert gates.warnings(RUN | {"n_train": 10}, predictions(["a", "a", "a"])) == []
    assert gates.warnings(RUN | {"checkpoint": None}, predictions(["a", "a", "a"])) == []
    assert gates.warnings(RUN, predictions(["a", "a", "a"], "zero-vector")) == []
    assert gates.warnings(RUN, predictions([])) == []


@pytest.mark.parametrize(
    ("truth", "label"), [((True, True), "changed"), ((False, False), "unchanged")]
)
def test_a_test_set_of_one_class_is_reported(truth, label):
    [line] = gates.warnings(RUN, predictions(["a", "b"], truth=truth))
    assert line == f"all test rows are {label}: has-changed F1 over one class says nothing"


# --- activations


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_not_finite_is_reported_with_layer_and_token(value):
    lm = load_model("tiny-llama", "cpu")
    texts = [lm.encode("A short one"), lm.encode("A text that is longer than the short one")]
    broken = lm.tokenizer(" short", add_special_tokens=False)["input_ids"][0]
    ids, mask = pad_left(texts, lm.tokenizer.pad_token_id)
    clean_run(lm.model, ids, mask, [0, 1])
    place = texts[0].index(broken)

    def hook(module, args, output):
        return torch.where((ids == broken)[..., None], value, output)

    handle = lm.model.get_decoder().layers[1].register_forward_hook(hook)
    with pytest.raises(
        UserError,
        match=f"residual stream at layer 1, token {place} of text 0 of its batch is not finite",
    ):
        clean_run(lm.model, ids, mask, [0, 1])
    handle.remove()
    handle = (
        lm.model.get_decoder()
        .layers[3]
        .register_forward_hook(
            lambda module, args, output: torch.where(mask[..., None] == 0, value, output)
        )
    )
    clean_run(lm.model, ids, mask, [0, 3])  # what stands at padding is read by nobody
    handle.remove()


def test_read_residuals_reports_it_too():
    from introspect_utils.models.residual_store import read_residuals

    lm = load_model("tiny-llama", "cpu")
    lm.model.get_input_embeddings().weight.data[77] = float("nan")
    contexts = torch.tensor([[20, 21, 22, 23], [77, 20, 22, 23]])
    with pytest.raises(
        UserError, match="layer 1, token 0 of text 1 of its batch is not finite.*dtype: float32"
    ):
        list(read_residuals(lm, contexts, [1, 2], 4))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_that_are_not_finite_are_no_fault_of_padding(dtype):
    explainer, questions = make_explainer(dtype=dtype), [e.question for e in make_examples(4)]
    explainer.lm.model.get_decoder().norm.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite: the model is damaged"):
        generate(explainer, questions, 4, 4)
