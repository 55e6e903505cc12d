import json

import pyarrow.parquet as pq
import pytest
import yaml
from explaining import make_examples, make_explainer, training_settings

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.train import train
from introspect_utils.extras.sharing import push, staged
from introspect_utils.runs.plan import plan
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks.rows import PATCHING, read_rows, write_rows

SMOKE = load_profile("smoke")
ROW = {
    "layer": [0, 1], "input_tokens": ["a"], "original_continuation": ["b"], "ablated_continuation": ["c"], "is_different": True,
    "patch_position": {"orig_pos": 0, "counterfact_pos": 0, "orig_text_token": "a", "counterfact_text_token": "a",
                       "intervention_vector": [1.0]},
}  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, one_thread):
    """A run of the profile smoke by its id, as planned where nothing is done yet."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return lambda run_id: next(each for each in plan(SMOKE) if each.id == run_id)


def record(run, **fields):
    path = paths.run_dir("smoke", run.id) / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"task": "patching", "commit": "0123456789ab", **fields}))


def head(folder):
    _, front, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_an_explainer_is_staged_with_a_card_and_can_be_loaded_from_there(run):
    of = run("patching-tiny-llama-self-full-n16-seed0")
    with pytest.raises(UserError, match=f"{of.id} has no explainer and no rows here"):
        staged(SMOKE, of, "me/explainer")
    explainer = make_explainer()
    trained = train(
        explainer,
        make_examples(),
        training_settings(),
        paths.artifacts_dir("smoke") / "checkpoints" / of.id,
    )
    record(of, n_train=16, checkpoint_sha256=trained.sha256)
    folder, kind = staged(SMOKE, of, "me/explainer")
    front, body = head(folder)
    assert kind == "model" and front == {
        "library_name": "peft",
        "tags": ["introspection", "patching"],
    }
    assert (
        trained.sha256[:16] in body
        and "me/explainer" in body
        and '"learning_rate"' in body
        and "0123456789ab" in body
    )
    assert not (folder / "resume").exists()  # the optimizer's state
    asked = [example.question for example in make_examples(2)]
    assert Explainer.load(folder, "cpu").explain(asked, max_new_tokens=3) == explainer.explain(
        asked, max_new_tokens=3
    )


def test_rows_are_staged_with_a_card_that_names_their_splits_and_columns(run):
    of = run("data-patching-tiny-llama")
    for split, n in (("train", 3), ("test", 2)):
        write_rows(
            paths.artifacts_dir("smoke") / "patching" / "tiny-llama" / f"{split}.parquet", [ROW] * n
        )
    record(of)
    folder, kind = staged(SMOKE, of, "me/rows")
    front, body = head(folder)
    [config] = front["configs"]
    assert kind == "dataset" and {(file["split"], file["path"]) for file in config["data_files"]} == {
        ("train", "train.parquet"), ("test", "test.parquet"),
    }  # fmt: skip
    assert "3 train, 2 test rows" in body and all(name in body for name in PATCHING.names)
    assert (
        len(read_rows(folder / "train.parquet")) == 3
        and pq.read_metadata(folder / "test.parquet").num_rows == 2
    )


def test_what_has_nothing_to_share_says_so(run):
    with pytest.raises(UserError, match="choose a run of notebooks 02, 03 or 05 to 07"):
        staged(SMOKE, run("tables"), "me/x")


def test_a_hub_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "x")
    with pytest.raises(
        UserError, match="cannot put me/x on the hub .*check the name, HF_TOKEN and the network"
    ):
        push(tmp_path, "me/x", "model")
