"""Notebooks 01, 04, 05, 08 to 11 and 13 on random models and real text."""

import pandas as pd
import pytest
from serving import ChatServer
from test_ablation_notebooks import execute

from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.report import style
from introspect_utils.report.paper import ERROR_CATEGORIES
from introspect_utils.runs import record
from introspect_utils.runs.plan import plan
from introspect_utils.runs.record import read_run
from introspect_utils.scores import simulator
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile


def test_from_text_to_table_1(smoke):
    root, _ = smoke
    features = load_profile("smoke").features
    folder, runs = root / "artifacts" / "smoke" / "features" / "tiny-llama", figures(root) / "runs"
    directions = Directions.load(folder / "directions.safetensors")
    exemplars = Exemplars.load(folder / "exemplars.safetensors")
    assert len(directions) == len(exemplars)
    sae = {directions.names[i] for i in directions.where(data="sae")}
    held_out = {directions.names[i] for i in directions.where(data="sae", split="test")}
    assert len(held_out) == features.n_test * len(features.layers)
    described = pd.read_parquet(runs / "simulator-tiny-llama" / "descriptions.parquet")
    assert set(described["feature"]) <= sae
    for split, part in described.groupby("split"):
        assert set(part["feature"]) <= (held_out if split == "test" else sae - held_out)

    full, predictions = read_run(runs / "features-tiny-llama-self-full-n24-seed0")
    assert set(predictions["condition"]) == {"full", "zero-vector", "shuffled-vector"}
    arms = {"no-layer", "wrong-layer", "shuffled-vector", "zero-vector"}
    assert full["n_train"] == 24 and set(full["statistics"]["token_match"]) == arms
    assert not set(predictions["feature"]) & (sae - held_out)
    cases = pd.read_parquet(runs / "features-errors-tiny-llama-self-n24-seed0" / "cases.parquet")
    zero = predictions.query("condition == 'full' and judge == 0")
    assert len(cases) and set(cases["feature"]) == set(zero["feature"])
    assert set(cases["automatic"]) <= set(ERROR_CATEGORIES)
    table = (figures(root) / "tables" / "table1.md").read_text()
    names = ("self", "rotated", "tiny-gemma3", "untrained", "nn-all", "nn-layer", "selfie", "gold")
    for name in (*names, "most-frequent"):
        assert f"| {style.label(name, 'full')} |" in table, name
    assert style.label("rotated", "pretrained-projection") in table
    asked = read_run(runs / "ask-tiny-llama")[0]["statistics"]
    assert asked["explanation"] and asked["patched"]["predicted"]


def figures(root):
    return root / "figures" / "smoke"


def test_candidates_of_a_chat_model(tmp_path, monkeypatch, one_thread):
    for module in (paths, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    profile = tmp_path / "chatting.yaml"
    smoke = (paths.REPO / "params" / "smoke.yaml").read_text()
    profile.write_text(smoke.replace("descriptions: rules", "descriptions: chat"))
    run = plan(load_profile(profile))[0]
    with ChatServer(lambda request: f"words of {len(request['prompt'])} letters") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        execute(run)
    assert all(path.stat().st_size for path in run.outputs)
    described = pd.read_parquet(run.outputs[3])
    assert all(text.startswith("words of") for texts in described["candidates"] for text in texts)
    assert (described["candidates"].map(len) > 0).all() and not described["rule_scores"].map(
        len
    ).any()


def test_the_simulator_of_a_profile_is_found_again_or_asked_for(tmp_path, monkeypatch):
    from introspect_utils.models.load import load_model

    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(UserError, match="no simulator at"):
        simulator.load_simulator(load_profile("smoke"), load_model("tiny-llama"))
