"""The profile `paper` against the paper: every row of its tables has its run, and which runs there
are besides."""

import re

import pytest
from whole_paper import PAPER

from introspect_utils.report.paper import lookup
from introspect_utils.runs.plan import plan
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile

RUNS = plan(PAPER)
BASELINES = ("nn-all", "nn-layer", "selfie", "gold")  # rows that notebook 08 makes, all in one run
NOT_RUN = {"selfie-llama-3.1-8b-instruct"}  # SelfIE is run on the target alone
NAMES = {"gemma-2-9b-instruct": "gemma-2-9b-it"}


def run_of(row):
    """The id of the run at the largest size behind a row of Tables 1 to 5."""
    if row.table == "5":
        return f"similarity-{row.target}"
    if row.explainer in BASELINES:
        return f"features-baselines-{row.target}"
    explainer, condition = NAMES.get(row.explainer, row.explainer), row.condition
    if explainer == "untrained":
        explainer, condition = "self", "untrained"
    condition = (
        "full" if condition == "random-projection" else condition
    )  # drawn at random is what `full` means by a projection
    beginning = f"{row.task}-{row.target}-{explainer}-{condition}-n"
    return max(
        (run.id for run in RUNS if run.id.startswith(beginning)),
        key=lambda name: int(re.search(r"-n(\d+)-", name)[1]),
    )


@pytest.mark.parametrize("table", ["1", "2", "3", "4", "5"])
def test_every_row_of_the_paper_has_its_run(table):
    rows = {
        (row.target, row.explainer, row.condition): row
        for row in lookup(table=table)
        if row.explainer not in NOT_RUN
    }
    planned = {run.id for run in RUNS}
    assert len(rows) == {"1": 11, "2": 12, "3": 6, "4": 6, "5": 4}[table]
    assert {run_of(row) for row in rows.values()} <= planned


def test_no_explainer_is_run_that_the_paper_has_not():
    """Besides the rows of its tables there are the points of the scaling curves (section 4) and
    C.1."""
    trained = [run for run in RUNS if run.notebook[:2] in ("05", "06", "07")]
    rows = {
        run_of(row)
        for table in "1234"
        for row in lookup(table=table)
        if row.explainer not in NOT_RUN
    }
    others = {run.id for run in trained} - rows
    sizes = sorted(PAPER.features.sizes)[:-1]
    curves = {
        f"features-llama-3.1-8b-{name}-full-n{n}-seed42"
        for name in ("self", "qwen3-8b")
        for n in sizes
    }
    assert others == curves | {"patching-llama-3.1-8b-self-locate-n13454-seed42"}


def test_similarity_compares_the_explainers_of_table_5():
    [run] = [run for run in RUNS if run.id == "similarity-llama-3.1-8b"]
    rows = {(row.explainer, row.condition) for row in lookup(table="5")}
    assert rows <= set(run.settings["compared"])


@pytest.mark.parametrize(
    ("run_id", "tuning", "batch_size", "learning_rate", "epochs"),
    [  # REFERENCE: training settings in their configs
        ("features-llama-3.1-8b-self-full-n1015808-seed42", "full", 64, 5e-5, 10),
        ("features-llama-3.1-8b-llama-3-8b-full-n1015808-seed42", "full", 64, 5e-5, 10),
        ("features-llama-3.1-8b-self-lora-n1015808-seed42", "lora", 64, 5e-5, 10),
        ("features-llama-3.1-8b-qwen3-8b-full-n7936-seed42", "full", 64, 5e-5, 10),
        (
            "features-llama-3.1-8b-llama-3.1-70b-pretrained-projection-n1015808-seed42",
            "lora",
            24,
            5e-5,
            10,
        ),
        ("patching-llama-3.1-8b-self-no-layer-n13454-seed42", "lora", 32, 5e-5, 20),
        ("patching-qwen3-8b-llama-3.1-8b-full-n120644-seed42", "lora", 32, 5e-5, 20),
        ("patching-llama-3.1-8b-qwen3-8b-full-n13454-seed42", "lora", 32, 5e-5, 10),
        ("ablation-llama-3.1-8b-instruct-qwen3-8b-full-n12642-seed42", "full", 8, 1e-5, 30),
        ("ablation-qwen3-8b-self-full-n12642-seed42", "full", 8, 1e-5, 20),
    ],
)
def test_runs_are_trained_as_the_authors_configs_say(
    run_id, tuning, batch_size, learning_rate, epochs
):
    [run] = [run for run in RUNS if run.id == run_id]
    training = run.settings["training"]
    assert [training[key] for key in ("tuning", "batch_size", "learning_rate", "epochs")] == [
        tuning, batch_size, learning_rate, epochs,
    ]  # fmt: skip
    assert (
        training["lora_r"],
        training["lora_alpha"],
        training["lora_dropout"],
        training["schedule"],
    ) == (128, 16, 0.1, "constant")
    # what the notebook itself reads: the one file of the run
    file, task = load_profile(run.parameters["profile"]), run_id.split("-")[0]
    assert (file.name, file.training_for(task).epochs) == ("paper", epochs)
    assert run.outputs[0] == REPO / "figures" / "paper" / "runs" / run_id / "run.json"


def test_hints_are_worded_as_in_e3():
    worded = {
        run.parameters["target"]: run.settings["hints"]
        for run in RUNS
        if run.id.startswith("data-ablation")
    }
    assert worded == {
        "llama-3.1-8b-instruct": ("Hint: {}",),
        "qwen3-8b": ("Hint: The answer is {}",),
    }


def test_parts_that_disagree_about_a_run_are_refused(tmp_path, monkeypatch):
    alone = [run.id for run in plan(load_profile("smoke"))]
    (tmp_path / "params" / "big").mkdir(parents=True)
    monkeypatch.setattr("introspect_utils.settings.profile.REPO", tmp_path)
    whole = (REPO / "params" / "smoke.yaml").read_text()
    (tmp_path / "params" / "big.yaml").write_text(whole)
    part = tmp_path / "params" / "big" / "more.yaml"
    part.write_text("ablation: {explainers: [tiny-gemma3]}\n")
    ids = [run.id for run in plan(load_profile("big"))]
    assert set(ids) - set(alone) == {
        f"ablation-tiny-llama-tiny-gemma3-{end}-seed0" for end in ("full-n16", "untrained-n0")
    }
    assert len(ids) == len(set(ids)) == len(alone) + 2
    part.write_text("patching: {blocks: 4}\n")
    message = "big and big/more both have the run data-patching-tiny-llama, with different blocks"
    with pytest.raises(UserError, match=message):
        plan(load_profile("big"))
    part.write_text("features: {conditions: [lora], tuning: full}\n")
    message = "big/more: features.conditions names lora, and features.tuning is not lora"
    with pytest.raises(UserError, match=message):
        plan(load_profile("big"))


@pytest.mark.parametrize("name", ["smoke", "mini", "small", "paper", "published"])
def test_a_profile_has_the_runs_of_all_its_files_each_once(name):
    profile = load_profile(name)
    runs = plan(profile)
    sources = {name, *(part.source for part in profile.parts)}
    assert {run.parameters["profile"] for run in runs} == sources
    assert len({run.id for run in runs}) == len(runs)
