"""Notebooks 03 and 07 on random models and real questions."""

import json

from introspect_utils.report import tables
from introspect_utils.report.records import records
from introspect_utils.runs.plan import plan
from introspect_utils.runs.record import read_run
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks.rows import ABLATION, read_rows


def execute(run):
    notebook = json.loads((paths.REPO / "notebooks" / f"{run.notebook}.ipynb").read_text())
    assert notebook["cells"][1]["metadata"]["tags"] == ["parameters"]
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    exec("\n".join(code[1:]), {"display": print, **run.parameters})  # a kernel has it


def test_from_questions_to_table_3(smoke):
    root, _ = smoke
    runs = [run for run in plan(load_profile("smoke")) if run.id.startswith("ablation-")]
    read = [read_run(root / run.outputs[0].parent.relative_to(paths.ROOT)) for run in runs]
    folder = root / "figures" / "smoke" / "runs" / "data-ablation-tiny-llama"
    read.insert(0, read_run(folder))
    data = read[0][0]["statistics"]
    assert data["wording"] in load_profile("smoke").ablation.hints and len(data["offset"]) == 4
    folder = root / "artifacts" / "smoke" / "ablation" / "tiny-llama"
    rows = {name: read_rows(folder / f"{name}.parquet", ABLATION) for name in ("train", "test")}
    assert (len(rows["train"]), len(rows["test"])) == (16, 8)
    found = records(read)
    names = [row[1] for row in tables.table("table3", found).rows if "(here)" in row[0]]
    of_models = ["Self", "tiny-qwen3", "Untrained", "Untrained tiny-qwen3"]
    assert names[:4] == of_models and len(names) == 10
    assert [row[2] + row[3] for row in tables.table("table7", found).rows[:2]] == [16, 8]
