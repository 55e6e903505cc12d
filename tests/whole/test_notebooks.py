import ast
import importlib
import json

import nbformat
import pandas as pd
import pytest

from introspect_utils.report import records as results
from introspect_utils.runs import record as run_files
from introspect_utils.runs.plan import plan
from introspect_utils.runs.run import PUBLISHED
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO, ROOT
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import TASKS

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
FULL = "patching-tiny-llama-self-full-n16-seed0"
AGAIN = ("data-patching-tiny-llama", FULL)  # run twice
RECORD = {
    *(
        "table",
        "task",
        "data",
        "target",
        "explainer",
        "condition",
        "metric",
        "value",
        "stderr",
        "n",
    ),
    *("low", "high", "clusters", "n_clusters", "error_by", "p", "reason"),
    *("seeds", "n_train", "trained_parameters", "paper", "artifact"),
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    found = nbformat.read(request.param, as_version=4)
    nbformat.validate(found)
    return found


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_a_notebook_for_every_run_and_a_run_for_every_notebook():
    used = {run.notebook for name in ("smoke", "published") for run in plan(load_profile(name))}
    assert used == {path.stem for path in NOTEBOOKS}


def test_a_notebook_is_stripped_short_and_begins_with_words(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))
    assert len(notebook.cells) <= 24
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


def test_a_notebook_has_one_cell_of_parameters_the_ones_its_runs_get(notebook, request):
    stem = request.node.callspec.params["notebook"].stem
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell is code(notebook)[0]
    defaults = {}
    for line in ast.parse(cell.source).body:
        assert isinstance(line, ast.Assign)
        defaults[line.targets[0].id] = ast.literal_eval(line.value)
    # Notebook 13 opens with what comes trained; `mini` trains no joint explainer.
    others = {"13_ask_the_explainer": "small", "14_joint_training": "small"}
    name = (others | {PUBLISHED: "published"}).get(stem, "mini")
    runs = [run for run in plan(load_profile(name)) if run.notebook == stem]
    assert runs and all(run.parameters.keys() == defaults.keys() for run in runs)
    assert defaults in [
        run.parameters for run in runs
    ]  # opened by hand, it is a run of that profile


def test_a_notebook_parses_and_imports_what_there_is(notebook):
    imported = 0
    for cell in code(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                modules = [(alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [(node.module, alias.name) for alias in node.names]
            else:
                continue
            for module, name in modules:
                imported += 1
                if name is None or not hasattr(importlib.import_module(module), name):
                    importlib.import_module(f"{module}.{name}" if name else module)
    assert imported


INPUT_MAKERS = {  # of each notebook that reads what others make: the first that it asks for
    "04_simulator": "01_data_features",
    "05_train_features": "01_data_features",
    "06_train_activation_patching": "02_data_activation_patching",
    "07_train_input_ablation": "03_data_input_ablation",
    "08_baselines": "01_data_features",
    "09_scaling": "01 to 08",
    "10_similarity": "01_data_features",
    "11_error_analysis": "01_data_features",
    "12_tables_and_figures": "01 to 08",
    "13_ask_the_explainer": "01_data_features",
    "14_joint_training": "01_data_features",
}


def test_a_notebook_opened_without_its_inputs_says_which_notebook_makes_them(
    notebook, request, tmp_path, monkeypatch
):
    stem = request.node.callspec.params["notebook"].stem
    if stem not in INPUT_MAKERS:
        assert stem in {
            PUBLISHED,
            *(task.data for task in TASKS.values()),
        }  # the first of their task
        return
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    run = next(run for run in plan(load_profile("smoke")) if run.notebook == stem)
    found = dict(run.parameters)
    with pytest.raises(UserError, match=f"notebooks/{INPUT_MAKERS[stem]}"):
        for cell in code(notebook)[1:]:
            exec(cell.source, found)
    assert list(tmp_path.iterdir()) == []  # and leaves nothing behind


def figures(root):
    return root / "figures" / "smoke"


def test_smoke_writes_every_table_and_figure(smoke, start):
    root, out = smoke
    runs = plan(load_profile("smoke"))
    assert f"Profile smoke: {len(runs)} runs, {len(runs)} to do" in out and "Finished in" in out
    for run in runs:
        assert (root / "artifacts" / "smoke" / "notebooks" / f"{run.id}.ipynb").is_file()
        for path in run.outputs:
            assert (root / path.relative_to(ROOT)).stat().st_size > 0
    assert "nothing to do" in start("run_all", "smoke", root=root)

    tables = figures(root) / "tables"
    for name in ("table2", "table2_vector", "table6", "section_c1"):
        for form, mark in (("md", "|"), ("csv", ","), ("tex", r"\toprule")):
            assert mark in (tables / f"{name}.{form}").read_text(), (name, form)
    heads = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for form, head in heads.items():
        for name in (
            "figure_patching",
            "figure_1",
            "figure_2",
            "figure_4",
        ):  # random weights seldom have a patch to draw
            assert (figures(root) / f"{name}.{form}").read_bytes().startswith(head)


def test_smoke_writes_results_in_the_agreed_form(smoke):
    root, _ = smoke
    records = json.loads((figures(root) / "results.json").read_text())
    assert all(record.keys() == RECORD for record in records)
    of_table_2 = [record for record in records if record["table"] == "2"]
    for record in of_table_2:
        assert 0 <= record["value"] <= 1 and record["stderr"] >= 0 and record["n"] == 8
    rows = {(record["explainer"], record["condition"]) for record in of_table_2}
    conditions = ("full", "no-vector", "no-layer", "no-token", "joint")
    conditions += ("zero-vector", "shuffled-vector")
    assert rows == {("self", condition) for condition in conditions} | {
        (name, "full") for name in ("untrained", "lookup", "majority", "no-effect")
    }
    metrics = {"exact_match", "has_changed_f1", "content_match", "unparseable"}
    named = {(r["explainer"], r["condition"], r["metric"]) for r in of_table_2}
    assert named == {(*row, metric) for row in rows for metric in metrics}
    of_features = {"1", "1-paired", "1-vector", "5", "B.4", "fig8", "scaling", "scored-by", "sec4"}
    of_outcomes = {"2", "2-paired", "2-vector", "3", "3-paired", "6", "7", "C.1", "hints", "sec5.2"}
    tables = {record["table"] for record in records}
    assert of_features | of_outcomes | {"answers", "claims"} <= tables
    counts = [record for record in records if record["table"] == "6"]
    for data, n in (("train", 16), ("test", 8)):
        assert sum(record["value"] for record in counts if record["data"] == data) == n
    for record in of_table_2:
        if (record["explainer"], record["condition"]) == ("self", "full"):
            assert record["artifact"] == f"artifacts/smoke/checkpoints/{FULL}"
            assert (root / record["artifact"] / "explainer.json").is_file()


def test_a_trained_run_is_a_checkpoint_that_gives_its_predictions(smoke):
    from introspect_utils.explainer.explainer import Explainer
    from introspect_utils.tasks.rows import read_rows
    from introspect_utils.tasks.task_patching import examples

    root, _ = smoke
    run, predictions = run_files.read_run(figures(root) / "runs" / FULL)
    assert len(run["statistics"]["losses"]) == 2 and run["n_train"] == 16 and run["seed"] == 0
    rows = read_rows(root / "artifacts" / "smoke" / "patching" / "tiny-llama" / "test.parquet")
    explainer = Explainer.load(root / run["checkpoint"], "cpu")
    questions = [example.question for example in examples(rows, "full", 0)]
    said = predictions[predictions["condition"] == "full"].sort_values("row")["generation"].tolist()
    assert explainer.explain(questions, **run["settings"]["generation"]) == said


def test_a_second_run_with_one_seed_gives_the_same_results(smoke, start, tmp_path):
    root, _ = smoke
    for run_id in AGAIN:
        start("run_notebook", "--profile", "smoke", "--run", run_id, root=tmp_path)

    def found(place):
        runs = [run_files.read_run(figures(place) / "runs" / run_id) for run_id in AGAIN]
        return json.dumps(results.records(runs)), runs

    first, second = found(root), found(tmp_path)
    assert second[0] == first[0] and json.loads(first[0])
    for (run, predictions), (run_again, predictions_again) in zip(first[1], second[1], strict=True):
        pd.testing.assert_frame_equal(predictions, predictions_again)
        for key in ("statistics", "checkpoint_sha256", "settings"):
            assert run[key] == run_again[key], (run["id"], key)
