"""What is kept of a model belongs to its weights, not to its name."""

import dataclasses
import json

import pytest
import torch
from explaining import (
    BLOCKS,
    SETTINGS,
    TRAINING,
    Interruption,
    interrupted_after,
    make_examples,
    training_settings,
)
from simulating import make_exemplars, stages

from introspect_utils.explainer import variants
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.train import train
from introspect_utils.models.fingerprint import identity
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import open_residuals, store_residuals
from introspect_utils.scores.simulator import Simulator
from introspect_utils.scores.simulator_scores import score_candidates
from introspect_utils.scores.simulator_training import train_simulator
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile

pytestmark = pytest.mark.usefixtures("one_thread")
ASKED = [example.question for example in make_examples(4)]


def llama(seed=0, dtype="float32"):
    return load_model("tiny-llama", "cpu", dtype, seed)


def explainer_on(lm):
    return Explainer(lm, SETTINGS, 32, BLOCKS).eval()


def rotated(lm):
    return variants.rotate(lm, variants.orthogonal(lm.width, 1.0, seed=3))


def nudged(lm):
    """A training step with a small rate."""
    draw = torch.Generator().manual_seed(0)
    for weight in lm.model.parameters():
        weight.data += 1e-3 * torch.randn(weight.shape, generator=draw)
    return lm


OTHERS = {
    "another seed": lambda: llama(1),
    "trained a little": lambda: nudged(llama()),
    "rotated under the same name": lambda: rotated(llama()),
    "another family of the same shapes": lambda: load_model("tiny-qwen3", "cpu"),
    "rotated": lambda: dataclasses.replace(rotated(llama()), name="tiny-llama rotated"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, its answers)"""
    folder, explainer = tmp_path_factory.mktemp("trained"), explainer_on(llama())
    train(explainer, make_examples(), TRAINING, folder)
    return folder, explainer.explain(ASKED)


@pytest.mark.parametrize("kind", list(OTHERS))
def test_adapters_are_not_put_on_another_base(trained, kind):
    other = OTHERS[kind]()
    named = "has other weights now" if other.name == "tiny-llama" else f"is not {other.name}"
    with pytest.raises(UserError, match=f"was trained on tiny-llama, which {named}"):
        Explainer.load(trained[0], base=other)


def test_the_base_is_known_in_another_dtype_and_under_another_name(trained, tmp_path):
    folder, said = trained
    Explainer.load(folder, "cpu", "bfloat16")
    Explainer.load(folder, base=llama(dtype="float16"))
    llama().model.save_pretrained(tmp_path)
    llama().tokenizer.save_pretrained(tmp_path)
    base = load_model(str(tmp_path), "cpu")
    assert Explainer.load(folder, base=base).explain(ASKED) == said


def test_of_an_old_checkpoint_the_name_decides(trained, tmp_path):
    for path in trained[0].glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    described = json.loads((tmp_path / "explainer.json").read_text())
    del described["weights"]
    (tmp_path / "explainer.json").write_text(json.dumps(described))
    assert Explainer.load(tmp_path).explain(ASKED) == trained[1]
    with pytest.raises(UserError, match="tiny-llama, which is not tiny-qwen3"):
        Explainer.load(tmp_path, base=load_model("tiny-qwen3", "cpu"))


def test_a_folder_that_was_trained_again_is_another_base(tmp_path):
    for seed in (0, 1):
        llama(seed).model.save_pretrained(tmp_path / "base")
        llama(seed).tokenizer.save_pretrained(tmp_path / "base")
        if seed == 0:
            lm = load_model(str(tmp_path / "base"), "cpu")
            train(explainer_on(lm), make_examples(), TRAINING, tmp_path / "explainer")
            simulator = Simulator(lm, llama(), 1)
            train_simulator(simulator, stages(), TRAINING, tmp_path / "simulator", 0)
            Simulator.load(tmp_path / "simulator", llama())
    for load in (
        lambda: Explainer.load(tmp_path / "explainer", "cpu"),
        lambda: Simulator.load(tmp_path / "simulator", llama()),
    ):
        with pytest.raises(UserError, match="base, which has other weights now"):
            load()


# --- caches

BASES = {
    "weights": (llama, lambda: llama(1)),
    "a few steps": (llama, lambda: nudged(llama())),
    "dtype": (lambda: llama(dtype="bfloat16"), llama),
}


@pytest.mark.parametrize("kind", list(BASES))
def test_residuals_of_other_weights_are_not_kept(tmp_path, kind):
    contexts = torch.arange(20, 44).view(4, 6)
    for lm in (make() for make in BASES[kind]):
        store_residuals(lm, contexts, [1], tmp_path / "same", 4)
        store_residuals(lm, contexts, [1], tmp_path / lm.name / identity(lm), 4)
        ours = open_residuals(tmp_path / "same", 1)
        assert torch.equal(ours, open_residuals(tmp_path / lm.name / identity(lm), 1))


@pytest.mark.parametrize("kind", list(BASES))
@pytest.mark.parametrize("after", [1, 99])
def test_a_training_of_other_weights_is_not_taken_up(tmp_path, kind, after):
    first, other = (make() for make in BASES[kind])
    how = training_settings(checkpoint_minutes=0)
    with interrupted_after(after):
        try:
            train(explainer_on(first), make_examples(), how, tmp_path)
        except Interruption:
            assert after == 1
    with interrupted_after(99) as computed:
        train(explainer_on(other), make_examples(), how, tmp_path)
    assert len(computed) == 2


def test_auto_stands_for_the_dtype_that_it_is_here(tmp_path, monkeypatch):
    how = training_settings(compute_dtype="auto", epochs=2)
    taken = []
    for bfloat16 in (False, True, True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda b=bfloat16: {"avx512_bf16": b})
        with interrupted_after(99) as computed:
            train(explainer_on(llama()), make_examples(), how, tmp_path)
        taken.append(len(computed))
    assert taken == [4, 4, 0]


def test_a_simulator_of_other_weights_is_trained_and_scores_anew(tmp_path):
    for seed in (0, 1):
        simulator = Simulator(llama(seed), llama(seed), 1)
        with interrupted_after(99) as computed:
            train_simulator(simulator, stages(), TRAINING, tmp_path / "trained", 0)
        assert len(computed) == 5
    exemplars, texts = make_exemplars(2), [["cities"], ["metals"]]
    found = []
    for seed in (0, 1):
        simulator = Simulator(llama(seed), llama(seed), 1).eval()
        torch.nn.init.ones_(simulator.head.weight[::2])
        found.append(score_candidates(simulator, texts, exemplars, tmp_path / "scores", 2))
    assert found[0] != found[1]
    with pytest.raises(UserError, match="tiny-llama, which has other weights now"):
        Simulator.load(tmp_path / "trained", llama(0))


def test_a_sibling_of_other_weights_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    profile = load_profile("smoke")
    monkeypatch.setattr(variants, "fit", lambda *args, **given: args[4].touch() or ([], 0.0))
    files = {variants._sibling_weights(profile, lm) for lm in (llama(), llama(1), nudged(llama()))}
    assert len(files) == 3 and variants._sibling_weights(profile, llama()) in files
