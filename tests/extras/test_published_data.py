"""The profile `published` against what there is, and its way from published files to tables, on
tiny ones in their formats."""

import json
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from test_ablation_notebooks import execute
from test_task_ablation import PUBLISHED as HINTED

from introspect_utils.data.facts import load_facts, make_pairs
from introspect_utils.explainer import gates
from introspect_utils.explainer.published import EXPLAINERS, trained_from
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import load_model
from introspect_utils.report import style
from introspect_utils.report.paper import lookup, model_name
from introspect_utils.report.table_rows import names
from introspect_utils.runs import cost, preflight, record
from introspect_utils.runs.beside import ARCHIVES
from introspect_utils.runs.plan import plan
from introspect_utils.runs.record import read_run
from introspect_utils.runs.run import PUBLISHED
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import TASKS, patching
from introspect_utils.tasks.rows import ABLATION, PATCHING

PROFILE = load_profile("published")
RUNS = plan(PROFILE)
PAIRS = (
    "patching-llama-3.1-8b",
    "patching-qwen3-8b",
    "ablation-llama-3.1-8b-instruct",
    "ablation-qwen3-8b",
)
TESTED = [run for run in RUNS if run.notebook in [task.train for task in TASKS.values()]]


def test_every_published_explainer_is_tested_once_on_its_target_and_nothing_is_trained():
    found = [run for run in TESTED if trained_from(run.parameters["explainer"])]
    assert sorted(run.parameters["explainer"] for run in found) == sorted(
        f"Transluce/{name}" for name in EXPLAINERS
    )
    for run in found:
        beginning = {
            "features": "features_explain",
            "patching": "act_patch",
            "ablation": "input_ablation",
        }[run.id.split("-")[0]]
        target = run.parameters["target"].replace("-", "").replace("_", "")
        assert (
            run.parameters["explainer"]
            .replace("_", "")
            .startswith(f"Transluce/{beginning}{target}".replace("_", ""))
        )
    others = {run.id for run in TESTED} - {run.id for run in found}
    assert others == {f"{pair}-self-untrained-n0-seed42" for pair in PAIRS}
    assert not any(run.settings["training"] or "checkpoints" in str(run.outputs) for run in TESTED)
    assert Counter(run.notebook[:2] for run in RUNS) == {
        "15": 5,
        "05": 3,
        "06": 4,
        "07": 4,
        "08": 1,
        "12": 1,
    }
    assert [run.notebook for run in RUNS[:5]] == [PUBLISHED] * 5


def test_its_data_are_the_published_ones():
    """REFERENCE: published data."""
    hints = (
        "Transluce/input_ablation_llama_3.1_8b_instruct_mmlu_hint",
        "Transluce/input_ablation_qwen3_8b_mmlu_hint",
    )
    patches = (
        "Transluce/act_patch_llama_3.1_8b_counterfact",
        "Transluce/act_patch_qwen3_8b_counterfact",
    )
    found = {run.id: run.settings["published"] for run in RUNS if run.notebook == PUBLISHED}
    rows = {f"data-{pair}": source for pair, source in zip(PAIRS, (*patches, *hints), strict=True)}
    assert found == rows | {"data-features-llama-3.1-8b": "artifacts/published/archives"}
    files = [PROFILE, *PROFILE.parts]
    assert {(f.patching.sizes, f.patching.n_test) for f in files} == {
        ((13454,), 5600),
        ((120644,), 14357),
    }
    assert {(f.ablation.sizes, f.ablation.n_test) for f in files} == {((12642,), 1400)}


def test_each_stands_beside_the_papers_row():
    for run in TESTED:
        target = run.parameters["target"]
        explainer, condition = names(
            run.parameters, run.parameters["explainer"], run.parameters["condition"]
        )
        table = {"features": "1", "patching": "2", "ablation": "3"}[run.id.split("-")[0]]
        assert lookup(
            table=table, target=target, explainer=model_name(explainer), condition=condition
        ), run.id
    assert style.label("published self") == "Self, as published"
    assert style.look("published self") == style.look("self") != style.look("published llama-3-8b")


def test_what_it_lacks_is_said(monkeypatch):
    monkeypatch.setattr(preflight, "is_cached", lambda name: False)
    data, tested = (
        RUNS[:5],
        [
            run
            for run in TESTED
            if run.parameters["explainer"].endswith("act_patch_qwen3_8b_qwen3_8b")
        ],
    )
    by_id = {run.id: run for run in data}
    assert preflight.to_download(PROFILE, [by_id["data-features-llama-3.1-8b"]]) == {}
    assert preflight.to_download(PROFILE, [by_id["data-ablation-qwen3-8b"]]) == {
        "Transluce/input_ablation_qwen3_8b_mmlu_hint": pytest.approx(22e6, rel=0.1)
    }
    assert preflight.to_download(PROFILE, tested[:1]) == {
        "Qwen/Qwen3-8B": 2 * 8.19e9,
        "Transluce/act_patch_qwen3_8b_qwen3_8b": 3.2e9,
    }
    assert (
        all(cost.resources(PROFILE, run) == {} for run in data)
        and cost.resources(PROFILE, tested[0])["gpu"] == 1
    )
    lines = [
        line
        for line in preflight.missing(PROFILE, data)
        if line.startswith("archives: there is no ")
    ]
    assert len(lines) == 1 and all(name in lines[0] for name in ARCHIVES.values())
    assert not [
        line for line in preflight.missing(PROFILE, data[1:]) if line.startswith("archives")
    ]


# --- from published files to tables
# ---------------------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path):
    """A folder with all that the authors publish, of tiny-llama: explainers, a simulator, rows,
    archives."""
    lm = load_model("tiny-llama", "cpu")
    full = (
        "features_explain_llama3.1_8b_llama3_8b",
        "input_ablation_qwen3_8b_qwen3_8b_hint",
        "simulator",
        "Llama-3.1-8B",
    )
    for name in full:
        lm.model.save_pretrained(tmp_path / name)
        lm.tokenizer.save_pretrained(tmp_path / name)
    pairs = make_pairs(load_facts("packaged"), 3, seed=0)
    rows = list(
        patching.patch_outcomes(
            lm,
            pairs,
            patching.choose_demonstrations(load_facts("packaged"), 0, 0),
            2,
            known_only=False,
        )
    )
    write_splits(
        tmp_path / "patching",
        pa.Table.from_pylist(rows, PATCHING).drop_columns("token_type"),
        slice(16),
        slice(16, 24),
    )
    write_splits(
        tmp_path / "ablation",
        pa.Table.from_pylist(HINTED, ABLATION).drop_columns("subject"),
        slice(2),
        slice(3),
    )
    adapter = get_peft_model(lm.model, LoraConfig(r=2, target_modules=["q_proj"]))
    folder = tmp_path / "act_patch_llama3.1_8b_llama3.1_8b"
    adapter.save_pretrained(folder, save_embedding_layers=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": str(tmp_path / "Llama-3.1-8B")})
    )
    for number, (data, name) in enumerate(ARCHIVES.items()):
        write_archive(tmp_path / "archives" / name, data, number, lm.tokenizer.bos_token_id)
    return tmp_path


def write_splits(folder, table, train, test):
    folder.mkdir()
    pq.write_table(table[train], folder / "train.parquet")
    pq.write_table(table[test], folder / "test.parquet")


def write_archive(folder, data, seed, bos, width=32, n=6, layers=(1, 2), length=9):
    """n vectors of each layer: of the SAE the first two are held out and the others are for
    training."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    rows = {"test": range(2), "train": range(2, n)}
    of_split = {
        split: [(layer, i) for layer in layers for i in part] for split, part in rows.items()
    }
    (folder / "explanations").mkdir(parents=True)
    (folder / "features").mkdir()
    if data == "sae":
        for layer in layers:
            (folder / "features" / f"layer_{layer}.pkl").write_bytes(
                pickle.dumps(torch.randn(width, n, generator=generator))
            )
        for split, pairs in of_split.items():
            said = [
                (pair, {"chosen_label": f"label {pair}", "all_labels": [], "all_label_scores": {}})
                for pair in pairs
            ]
            (folder / "explanations" / f"{split}_explanations.pkl").write_bytes(pickle.dumps(said))
            (folder / "explanations" / f"{split}_layer_feature_idxs.pkl").write_bytes(
                pickle.dumps(pairs)
            )
    else:
        torch.save(
            torch.randn(len(of_split["test"]), width, generator=generator),
            folder / "test_vectors.pt",
        )
        pairs = [(layer, row) for row, (layer, _) in enumerate(of_split["test"])]
        (folder / "test_indices.json").write_text(json.dumps(pairs))
    for layer in layers:
        (folder / "train" / f"layer{layer}").mkdir(parents=True)
        ids = random.integers(300, 900, (2, 4, length))
        ids[..., 0] = bos
        np.save(folder / "train" / f"layer{layer}" / "max_seq_ids.npy", ids)
        np.save(
            folder / "train" / f"layer{layer}" / "max_seq_acts.npy",
            random.random((2, 4, length)).astype(np.float16),
        )


@pytest.fixture
def profile(theirs):
    """The profile smoke with the published explainers and data in place of its own."""
    settings = yaml.safe_load((paths.REPO / "params" / "smoke.yaml").read_text())
    explainers = {
        "features": "features_explain_llama3.1_8b_llama3_8b",
        "patching": "act_patch_llama3.1_8b_llama3.1_8b",
    }
    explainers["ablation"] = "input_ablation_qwen3_8b_qwen3_8b_hint"
    for task, name in explainers.items():
        source = theirs / ("archives" if task == "features" else task)
        settings[task] |= {
            "explainers": [str(theirs / name)],
            "conditions": ["full"],
            "published": str(source),
        }
    settings["features"] |= {
        "sizes": [8],
        "n_test": 2,
        "n_act": 2,
        "context": 6,
        "n_top": 4,
        "n_random": 0,
    }
    settings["features"]["simulator"]["checkpoint"] = str(theirs / "simulator")
    settings["patching"]["sizes"], settings["ablation"]["sizes"] = [16], [2]
    settings["explainer"] |= {"vector_center": False, "vector_scale": "raw"}
    (theirs / "theirs.yaml").write_text(yaml.safe_dump(settings | {"joint": False}))
    return load_profile(theirs / "theirs.yaml")


def test_from_published_files_to_tables(profile, theirs, monkeypatch, one_thread):
    for module in (paths, record):
        monkeypatch.setattr(module, "ROOT", theirs)
    *runs, tables = plan(profile)
    for run in (*runs, tables):
        execute(run)
        # the page is made of the executed notebook
        own = [path for path in run.outputs if path.name != "report.html"]
        assert all(path.stat().st_size for path in own), run.id
    made = {run.id: read_run(run.outputs[0].parent) for run in runs}
    tested = {name: found for name, found in made.items() if "full-n" in name}
    assert len(made) == 7 and len(tested) == 3
    for name, (run, predictions) in tested.items():
        assert (run["trained_parameters"], run["statistics"]["losses"]) == (0, []), name
        assert run["checkpoint_sha256"] == gates.file_sha256(theirs / run["explainer"]) and len(
            predictions
        ), name
    patched, hinted = (
        made[f"data-{task}-tiny-llama"][0]["statistics"] for task in ("patching", "ablation")
    )
    assert patched["also_in_training"] > 0 and (
        hinted["asked_about"],
        hinted["also_in_training"],
    ) == (3, 2)  # refused of ours
    assert {line["token_type"] for line in patched["table6"]} == {"not published"}

    records = json.loads(tables.outputs[0].read_text())
    by_table = {table: {r["explainer"] for r in records if r["table"] == table} for table in "123"}
    assert {"published llama-3-8b", "nn-all", "nn-layer", "selfie", "gold"} <= by_table["1"]
    assert by_table["2"] == {"published llama-3.1-8b", "lookup", "majority", "no-effect"}
    assert {"published qwen3-8b", "unchanged", "logistic", "oracle"} <= by_table["3"]
    assert "no-effect" in by_table["3"]
    assert all(r["n_train"] is None for r in records if r["explainer"].startswith("published"))
    assert sum(r["value"] for r in records if r["table"] == "7") == 5
    for table, name in (
        ("table1", "llama-3-8b"),
        ("table2", "llama-3.1-8b"),
        ("table3", "qwen3-8b"),
    ):
        assert (
            f"{name}, as published"
            in (theirs / "figures" / "theirs" / "tables" / f"{table}.md").read_text()
        )


def test_the_archives_become_directions_exemplars_and_descriptions(profile, theirs, monkeypatch):
    for module in (paths, record):
        monkeypatch.setattr(module, "ROOT", theirs)
    run = next(run for run in plan(profile) if run.id == "data-features-tiny-llama")
    execute(run)
    directions, exemplars = Directions.load(run.outputs[1]), Exemplars.load(run.outputs[2])
    described = pd.read_parquet(run.outputs[3])
    held_out = directions.where(split="test")
    assert (
        held_out == list(range(12)) and len(directions) == 20 and len(exemplars) == 12
    )  # those that have exemplars come first
    assert Counter(directions.data[i] for i in held_out) == {"sae": 4, "act": 4, "dact": 4}
    assert exemplars.activations.shape == (12, 4, 6)
    texts = dict(zip(described["feature"], described["description"], strict=True))
    assert texts["sae/2/0"] == "label (2, 0)" and len(texts) == 12
    ids = np.load(theirs / "archives" / ARCHIVES["dact"] / "train" / "layer2" / "max_seq_ids.npy")
    row = directions.names.index("dact/2/3")  # the second of layer 2
    shown = exemplars.tokens[exemplars.sequences[row, 0]].tolist()
    assert any(
        shown == ids[1, k, start : start + 6].tolist() for k in range(4) for start in range(4)
    )
