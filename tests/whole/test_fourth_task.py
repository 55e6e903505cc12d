"""A fourth task, the recipe of docs/adding.md, goes through plan, run, `results.json`, a table and
the report with one new module and one new notebook."""

import json
import re
import shutil

import pandas as pd
import pytest
from recipes import Copy, blocks

from introspect_utils.settings.paths import REPO

TABLES = "12_tables_and_figures.ipynb"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with the recipe followed and run, its profile smoke without the other
    tasks."""
    copy = Copy(tmp_path_factory.mktemp("a fourth task"))
    smoke = copy.root / "params" / "smoke.yaml"
    task = r"^(features|patching|ablation):.*\n(  .*\n)+"
    smoke.write_text(re.sub(task, "", smoke.read_text(), flags=re.MULTILINE))
    (copy.root / "notebooks").mkdir()
    shutil.copy(REPO / "notebooks" / TABLES, copy.root / "notebooks")
    shutil.copy(REPO / "Snakefile", copy.root)
    copy.follow("A task")
    copy.printed = copy.run("-m", "introspect_utils.runs.run_all", "smoke", "--jobs", "2")
    return copy


def test_the_recipe_is_one_module_and_one_notebook():
    code = {place.partition(", ")[0] for place, _ in blocks("A task")}
    assert code == {
        "introspect_utils/tasks/task_next_token.py",
        "notebooks/16_next_token.ipynb",
        "params/smoke.yaml",
    }


def test_its_runs_are_planned_and_done(copy):
    runs = copy.root / "figures" / "smoke" / "runs"
    for run in ("self-full-n16", "self-untrained-n0"):
        path = runs / f"next_token-tiny-llama-{run}-seed0" / "predictions.parquet"
        said = pd.read_parquet(path)
        assert len(said) == 8 and said["content"].str.startswith("<<<").all()
    assert "nothing to do" in copy.run("-m", "introspect_utils.runs.run_all", "smoke")


def test_its_numbers_are_records_a_table_and_in_the_report(copy):
    figures = copy.root / "figures" / "smoke"
    records = json.loads((figures / "results.json").read_text())
    of_table = [r for r in records if r["table"] == "8"]
    assert {(r["task"], r["metric"], r["n"]) for r in of_table} == {
        ("next_token", "exact_match", 8)
    }
    assert {r["explainer"] for r in of_table} == {"self", "untrained"}
    table = (figures / "tables" / "table8.md").read_text()
    assert "The target's next token" in table and "Self" in table
    assert "next_token" in (figures / "report.html").read_text()
