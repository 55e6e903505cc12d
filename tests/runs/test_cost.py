import dataclasses

import pytest
from whole_paper import OWN, PAPER

from introspect_utils.runs import cost as estimates
from introspect_utils.runs.cost import downloads, estimate, resources, training
from introspect_utils.runs.plan import plan
from introspect_utils.runs.run import PUBLISHED
from introspect_utils.settings.profile import load_profile

RUNS = {run.id: run for run in plan(PAPER)}
OF_ITS_OWN = {run.id: run for run in plan(OWN)}


def of(run_id):
    return estimate(PAPER, RUNS[run_id])


@pytest.fixture
def whole_peak(monkeypatch):
    """A GPU of 1e12 FLOP/s, all of which is used: 3.6e15 FLOPs an hour."""
    for name, value in {"PEAK": 1e12, "READING": 1.0, "WRITING": 1.0}.items():
        monkeypatch.setattr(estimates, name, value)


def test_training_by_hand(whole_peak):
    settings = {
        "tuning": "full",
        "lora_r": 128,
        "epochs": 3,
        "batch_size": 2,
        "processes": 1,
        "sharded": False,
    }
    settings["gradient_checkpointing"] = False
    made = training(settings, n=1e9, rows=1000, tokens=100)
    assert made.hours == pytest.approx(6 * 1e9 * 1000 * 100 * 3 / 3.6e15)
    assert made.memory == pytest.approx(16e9 + estimates.ACTIVATIONS * 1e9 * 200)
    assert (made.disk, made.scratch) == (8e9, 16e9)
    adapter = estimates.LORA * 128 * 1e9
    lora = training(settings | {"tuning": "lora"}, n=1e9, rows=1000, tokens=100)
    assert lora.hours == pytest.approx(made.hours * 4 / 6)
    assert lora.memory == pytest.approx(2e9 + 16 * adapter + estimates.ACTIVATIONS * 1e9 * 200)
    assert lora.disk == pytest.approx(8 * adapter)
    across = training(
        settings | {"processes": 2, "gradient_checkpointing": True}, n=1e9, rows=1000, tokens=100
    )
    assert (across.gpus, across.disk, across.scratch) == (2, 8e9, 16e9)
    assert across.hours == pytest.approx(made.hours * 8 / 6)
    assert across.memory == pytest.approx(16e9 + estimates.ACTIVATIONS * 1e9 * 200 * 0.1 / 2)
    sharded = training(settings | {"processes": 2, "sharded": True}, n=1e9, rows=1000, tokens=100)
    assert sharded.memory == pytest.approx(8e9 + estimates.ACTIVATIONS * 1e9 * 200 / 2)


def test_an_explainer_of_hints_by_hand(whole_peak):
    """12,642 rows for 30 epochs, then 1,400 questions answered once, 50 tokens each."""
    made = of("ablation-llama-3.1-8b-instruct-self-full-n12642-seed42")
    trained, tested = 8 * 12642 * 30 * 256, 2 * 1400 * (256 + 50)
    assert made.hours == pytest.approx(8.03e9 * (trained + tested) / 3.6e15)
    assert made.dollars == 0
    untrained = of("ablation-llama-3.1-8b-instruct-self-untrained-n0-seed42")
    assert untrained.hours == pytest.approx(8.03e9 * tested / 3.6e15) and untrained.disk == 0


def test_feature_runs_by_hand(whole_peak):
    """150 test rows a layer (50 of each kind), on three vectors each."""
    made = of("features-llama-3.1-8b-self-full-n7936-seed42")
    rows = 3 * 150 * 31
    trained, tested = 8 * 7936 * 10 * 64, 2 * rows * (64 + 50)
    scored = 2 * rows * 10 * (94 + 20)
    assert made.hours == pytest.approx(8.03e9 * (trained + tested + scored) / 3.6e15)
    assert of("data-features-llama-3.1-8b").dollars == 0  # published descriptions
    data = estimate(OWN, OF_ITS_OWN["data-features-llama-3.1-8b"])
    described = 1.1 * 1015808 + 50 * 31
    assert data.dollars == pytest.approx(5 * described * ((330 + 5 * 94) * 0.40 + 15 * 1.60) / 1e6)
    assert data.disk == 20000 * 94 * 4096 * 31 * 2


def test_what_is_alike_is_estimated_alike_and_more_is_more():
    """Full fine-tuning of 8B with float32 masters wants two 80 GB GPUs, LoRA one; hours follow
    rows, epochs and sizes."""
    full, lora = (
        of(f"features-llama-3.1-8b-self-{name}-n1015808-seed42") for name in ("full", "lora")
    )
    assert lora.memory < 80e9 < full.memory < 85e9 and (lora.gpus, full.gpus) == (
        1,
        2,
    )  # one has 85e9 bytes
    assert lora.hours < full.hours
    sizes = [
        of(f"features-llama-3.1-8b-qwen3-8b-full-n{n}-seed42").hours for n in PAPER.features.sizes
    ]
    assert sizes == sorted(sizes)
    large = of("features-llama-3.1-8b-llama-3.1-70b-pretrained-projection-n1015808-seed42")
    assert large.hours > 8 * lora.hours and large.memory > 141e9
    assert of("similarity-llama-3.1-8b").memory > 2 * (8e9 + 70e9)  # the largest explainer's
    trained = of("simulator-gemma-2-9b")
    read = estimate(OWN, OF_ITS_OWN["simulator-llama-3.1-8b"])
    assert trained.disk > 0 and read.disk == 0  # the published one is read


def test_every_run_with_a_large_model_is_estimated_and_no_other():
    without = {run.id for run in RUNS.values() if estimate(PAPER, run) is None}
    assert without == {run.id for run in RUNS.values() if run.notebook[:2] in ("09", "11", "12")}
    assert all(
        made.hours > 0 and made.memory > 2 * 8e9
        for run in RUNS.values()
        if (made := estimate(PAPER, run)) and run.notebook != PUBLISHED
    )
    for profile in map(load_profile, ("smoke", "mini", "small")):
        assert not any(estimate(profile, run) for run in plan(profile))


def test_a_model_of_unknown_size_is_not_guessed_and_a_chat_model_of_unknown_price_neither():
    patching = dataclasses.replace(
        PAPER.patching, explainers=("owner/model", "self"), conditions=("full",)
    )
    mine = dataclasses.replace(PAPER, patching=patching, parts=())
    made = {run.id: estimate(mine, run) for run in plan(mine)}
    assert made["patching-llama-3.1-8b-owner--model-full-n13454-seed42"] is None
    assert made["patching-llama-3.1-8b-self-full-n13454-seed42"].hours > 0
    other = dataclasses.replace(
        OWN, features=dataclasses.replace(OWN.features, chat_model="mine"), parts=()
    )
    [data] = [run for run in plan(other) if run.id == "data-features-llama-3.1-8b"]
    cost = estimate(other, data).dollars
    assert cost != cost  # nan


def test_a_cluster_is_asked_for_what_the_estimate_says():
    run = RUNS["ablation-qwen3-8b-self-full-n12642-seed42"]
    made, asked = estimate(PAPER, run), resources(PAPER, run)
    assert asked == {
        "gpu": 2,
        "mem_mb": round(3 * made.memory / 1e6),
        "runtime": round(30 + 60 * made.hours),
    }
    assert (
        resources(PAPER, RUNS["tables"])
        == {}
        == resources(load_profile("smoke"), plan(load_profile("smoke"))[0])
    )


def test_downloads_are_the_models_dictionaries_and_texts():
    assert downloads(PAPER, RUNS["patching-llama-3.1-8b-qwen3-8b-full-n13454-seed42"]) == {
        "meta-llama/Llama-3.1-8B": 2 * 8.03e9,
        "Qwen/Qwen3-8B": 2 * 8.19e9,
    }
    assert set(downloads(OWN, OF_ITS_OWN["data-features-llama-3.1-8b"])) == {
        "meta-llama/Llama-3.1-8B",
        "llama_scope_lxr_32x",
        "HuggingFaceFW/fineweb",
    }
    assert "Transluce/features_explain_llama3.1_8b_simulator" in downloads(
        OWN, OF_ITS_OWN["simulator-llama-3.1-8b"]
    )
    assert downloads(PAPER, RUNS["simulator-gemma-2-9b"]) == {"google/gemma-2-9b": 2 * 9.24e9}
    assert downloads(PAPER, RUNS["tables"]) == {}
    small = load_profile("small")
    assert not any(downloads(small, run) for run in plan(small))
