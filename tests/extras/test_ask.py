"""What is asked of one token (notebook 13): the answers are those of the functions that the runs
use, and a click asks anew."""

import dataclasses
import html
import shutil

import numpy as np
import pytest
import torch
from explaining import SETTINGS, encode, logits, make_examples, make_explainer, training_settings
from scipy.stats import pearsonr
from simulating import make_simulator
from test_patching import PAIR

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.train import train
from introspect_utils.extras import ask, ask_widget
from introspect_utils.features.directions import Directions
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import token_activations
from introspect_utils.scores.neighbours import nearest_descriptions
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import outcome, patching, task_patching
from introspect_utils.tasks.task_features import Described

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT, INTO = "The capital of Italy is", "The capital of France is"


@pytest.fixture(scope="module")
def models():
    """Random ones: two layers, six training features of each."""
    draw = torch.Generator().manual_seed(0)
    names = tuple(f"sae/{layer}/{i}" for layer in (1, 2) for i in range(6))
    layers = tuple(int(name.split("/")[1]) for name in names)
    training = Directions(
        names,
        ("sae",) * 12,
        ("train",) * 12,
        layers,
        torch.randn(12, 32, generator=draw),
        ("",) * 12,
    )
    return ask.Models(
        target=load_model("tiny-llama", "cpu"),
        explainer=Explainer(load_model("tiny-llama", "cpu"), SETTINGS, 32, ((1,), (2,))).eval(),
        simulator=make_simulator(),
        training=Described(training, [f"words <{name}>" for name in names], None),
        held_out=Described(training.take([]), [], None),
        means={layer: torch.randn(32, generator=draw) for layer in (1, 2)},
        center=True,
        patching=make_explainer(),
        max_new_tokens=24,  # as `Explainer.explain` has it
    )


def test_what_is_clicked_on_are_the_tokens_of_the_text(models):
    tokens = ask.token_texts(models.target, TEXT)
    assert "".join(tokens) == TEXT and len(tokens) == len(
        models.target.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    )


def test_the_explanation_is_that_of_the_token_less_the_mean_where_the_profile_says_so(models):
    raw = dataclasses.replace(models, center=False)
    v, centred = (ask.activations(each, TEXT, 2)[3] for each in (raw, models))
    torch.testing.assert_close(v - centred, models.means[2])
    assert ask.explanation(raw, v, 2) == models.explainer.describe(
        token_activations(models.target, TEXT, 2)[3], 2
    )
    assert ask.explanation(models, centred, 2) == models.explainer.describe(v - models.means[2], 2)


def test_the_likeliest_explanations_are_by_a_beam_search(models):
    v = ask.activations(models, TEXT, 2)
    questions = [models.explainer.question(row, 2) for row in v[1:4]]
    together = generate(models.explainer, questions, max_new_tokens=24, beams=3)
    alone = [ask.likeliest(models, row, 2) for row in v[1:4]]
    assert alone == [together[i : i + 3] for i in (0, 3, 6)]
    assert all(len({*of_one}) > 1 for of_one in alone)


@pytest.mark.parametrize(
    ("description", "token", "echo"),
    [
        ("the word 'Rome'", " rome", True),
        ("capital cities", "capital", True),
        ("commas", ",", True),
        ("full stops after numbers", ".", True),
        ("the word 'capital'", "The", True),  # names "the", if not as what is meant
        ("the word 'Rome'", " Italy", False),
        ("cities", " I", False),
        ("this and that", " is", False),
        ("spaces", " ", False),
    ],
)
def test_an_echo_names_its_token(description, token, echo):
    assert ask.echoes(description, token) == echo


def test_the_nearest_features_are_of_the_layer_in_the_order_of_their_cosines(models):
    v = ask.activations(models, TEXT, 2)[1]
    found = ask.nearest_features(models, v, 2, n=4)
    cosines = torch.cosine_similarity(models.training.directions.vectors[6:], v[None]).numpy()
    order = np.argsort(-cosines)[:4]
    assert found["nearest training feature"].tolist() == [f"sae/2/{i}" for i in order]
    assert found["cosine"].tolist() == pytest.approx(cosines[order], abs=1e-6)
    asked = Directions(("act/2/0",), ("act",), ("test",), (2,), v[None], ("",))
    answer = nearest_descriptions(
        models.training.directions, models.training.gold, asked, within_layer=True
    )
    assert answer == found["description"].tolist()[:1]
    assert len(ask.nearest_features(models, v, 1, n=50)) == 6


def test_true_and_simulated_activations_and_their_correlation(models):
    v = ask.activations(models, TEXT, 1)[2]
    found = ask.simulated(models, TEXT, v, 1, "cities")
    a = (token_activations(models.target, TEXT, 1) @ v).numpy()
    low = float(models.means[1] @ v)
    assert (
        found.true.tolist() == np.round(10 * np.clip((a - low) / (a.max() - low), 0, 1)).tolist()
        and found.true.max() == 10
    )
    ids = torch.tensor(models.target.tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    torch.testing.assert_close(
        found.predicted, models.simulator.expected(["cities"], ids[None, None])[0, 0]
    )
    assert found.r == pytest.approx(pearsonr(a, found.predicted.numpy()).statistic, abs=1e-5)


def test_a_patch_is_that_of_the_data_and_the_prediction_that_of_the_explainer(models):
    rows = list(
        patching.patch_outcomes(
            models.target, [PAIR], {"capital": []}, 2, with_options=False, known_only=False
        )
    )
    assert {tuple(row["layer"]) for row in rows} == set(models.patching.layers)
    assert {row["is_different"] for row in rows} == {True, False}
    for row in rows[::3]:
        text, into = row["counterfactual_text"], "".join(row["input_tokens"])
        bos = len(models.target.encode(text)) - len(ask.token_texts(models.target, text))
        found = ask.patched(
            models, text, row["patch_position"]["counterfact_pos"] - bos, row["layer"][1], into
        )
        assert (found.block, found.real) == (tuple(row["layer"]), task_patching.answer(row))
        assert (
            found.token == row["patch_position"]["orig_text_token"]
            and [found.before] == row["original_continuation"]
        )
        question = task_patching.question(row, "full", task_patching.TEMPLATES[0])
        assert found.predicted == models.patching.explain([question])[0]
        assert found.right == (found.predicted == found.real)


def test_without_its_explainer_a_patch_is_made_at_the_layer_and_the_notebook_named(models):
    found = ask.patched(dataclasses.replace(models, patching=None), TEXT, 3, 2, INTO)
    assert (found.block, found.predicted, found.right) == ((2,), None, None) and "<<<" in found.real
    assert "06_train_activation_patching" in ask_widget.patched_html(found)
    assert "(right)" in ask_widget.patched_html(found._replace(predicted=found.real, right=True))


def test_a_token_that_the_other_text_does_not_reach_is_refused(models):
    with pytest.raises(UserError, match="'is' has no token number .* from its end to be patched"):
        ask.patched(models, TEXT, 0, 2, "is")


def test_what_is_missing_names_its_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    smoke = load_profile("smoke")
    with pytest.raises(UserError, match="01_data_features"):
        ask.load(smoke, "tiny-llama")
    other = dataclasses.replace(
        smoke, features=dataclasses.replace(smoke.features, explainers=("tiny-gemma3",))
    )
    with pytest.raises(
        UserError, match="profile smoke trains no self-explainer of features of tiny-llama"
    ):
        ask.load(other, "tiny-llama")


# --- the widget, without a browser
# -----------------------------------------------------------------------------------


@pytest.fixture
def widget(models):
    return ask_widget.widget(models, TEXT, INTO, position=3, layer=1)


def test_a_click_asks_of_that_token_and_of_that_layer(models, widget):
    text, tokens, layer, into, answer = widget.children
    assert [button.description for button in tokens.children] == ask.token_texts(
        models.target, TEXT
    )
    assert answer.value.startswith(ask_widget.answer_html(models, TEXT, 3, 1, INTO))
    said, zero = (
        ask.explanation(models, v, 1)
        for v in (ask.activations(models, TEXT, 1)[3], torch.zeros(32))
    )
    others = ask.likeliest(models, ask.activations(models, TEXT, 1)[3], 1)
    likely = "; ".join(other for other in others if other != said)
    shown = answer.value.replace("</td><td>", ": ")
    assert html.escape(f"Also likely: {likely}") in shown and likely
    assert html.escape(f"With a zero vector: {zero}") in shown
    shown = []
    answer.observe(lambda change: shown.append(change.new), "value")
    tokens.children[1].click()
    assert shown == ["Asking ...", answer.value]
    assert answer.value.startswith(ask_widget.answer_html(models, TEXT, 1, 1, INTO))
    assert [button.button_style for button in tokens.children].index("primary") == 1
    layer.value = 2
    assert answer.value.startswith(ask_widget.answer_html(models, TEXT, 1, 2, INTO))
    into.value = "is"
    assert "has no token number" in answer.value and "nearest training feature" in answer.value


def test_an_echo_and_an_error_are_said(models, widget, monkeypatch):
    _, tokens, _, _, answer = widget.children
    monkeypatch.setattr(ask, "explanation", lambda models, v, layer: f"the word '{TEXT[-2:]}'")
    tokens.children[-1].click()
    assert "this may be an echo" in answer.value
    tokens.children[0].click()
    assert "this may be an echo" not in answer.value
    monkeypatch.setattr(ask, "likeliest", lambda *_: 1 / 0)
    tokens.children[1].click()
    assert answer.value == "ZeroDivisionError: division by zero"


def test_another_text_has_other_tokens_and_no_text_says_so(models, widget):
    text, tokens, _, _, answer = widget.children
    text.value = "is <b>Rome</b>"
    assert [button.description for button in tokens.children] == ask.token_texts(
        models.target, "is <b>Rome</b>"
    )
    assert (
        "&lt;" in answer.value
        and "<b>Rome</b>" not in answer.value
        and "words &lt;sae/1/" in answer.value
    )
    text.value = ""
    assert answer.value == "the text is empty: give at least one word" and tokens.children == ()
    text.value = "Rome"
    assert answer.value.startswith(ask_widget.answer_html(models, "Rome", 0, 1, INTO))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_not_rounded_away_and_the_target_stays_as_it_was(tmp_path, monkeypatch, dtype):
    examples, ids = make_examples(), torch.arange(20, 32)[None]
    trained, target = make_explainer(dtype=dtype), load_model("tiny-llama", "cpu", dtype)
    train(trained, examples, training_settings(), tmp_path)
    monkeypatch.setattr(ask, "checkpoint", lambda *_: tmp_path / "explainer.json")
    before, smoke = (
        target.model(ids).logits,
        dataclasses.replace(load_profile("smoke"), dtype=dtype),
    )
    loaded = ask._load_explainer(smoke, "x", target)
    rows = encode(trained, examples)
    ours, theirs = (logits(each, each.collate(rows)).float() for each in (loaded, trained))
    assert (ours - theirs).norm() / theirs.norm() < 1e-5
    assert torch.equal(target.model(ids).logits, before)
    assert loaded.embed.weight.data_ptr() == target.model.get_input_embeddings().weight.data_ptr()


@pytest.mark.real
def test_what_comes_trained_reads_its_vector_in_a_fresh_clone(tmp_path, monkeypatch):
    runs = "figures/small/runs"
    shutil.copytree(paths.REPO / runs, tmp_path / runs)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    models = ask.load(load_profile("small"), "smollm2-135m-instruct")
    v = ask.activations(models, TEXT, 10)
    said = models.explainer.describe(torch.cat([v, 0 * v[:1]]), 10, max_new_tokens=20)
    assert said[1] == "the word 'capital'" and said[4] == "the word 'is'"
    assert "capital" not in said[-1] and len({*said}) >= 5
    found = ask.simulated(models, TEXT, v[1], 10, said[1])
    assert found.r > 0.5
    patched = ask.patched(models, TEXT, 1, 10, "The capital of France is")
    assert outcome.parse(patched.predicted)[0] is not None and patched.right is not None
