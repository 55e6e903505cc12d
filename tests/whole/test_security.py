"""Nothing secret is written, and nothing foreign is run."""

import ast
import os
import re
import traceback

import pytest
import torch
from describing import baselines_run
from serving import ChatServer, Fault

from introspect_utils.models.chat import Endpoint
from introspect_utils.runs import record
from introspect_utils.runs.record import write_run
from introspect_utils.runs.run_notebook import Margin
from introspect_utils.scores.judge import load_judge
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile

KEY = "sk-planted-0123456789abcdef"
PAIRS = [(f"words for animal {i}", "names of animals") for i in range(4)]


@pytest.mark.parametrize(
    "reply", ["4", "a long answer in prose", Fault(401), Fault(500), Fault(body="<html>no</html>")]
)
def test_a_planted_key_is_in_nothing_that_a_judge_run_writes(
    tmp_path, monkeypatch, capfd, caplog, reply
):
    """What a run writes: cache, run.json, its printed log; and what an error shows, its whole
    traceback included."""
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("introspect_utils.models.chat.MAX_RETRIES", 1)
    shown = []
    with ChatServer(lambda request: reply) as server:
        judge = load_judge(
            "openai", Endpoint("model-x", server.url, cache_folder=tmp_path / "cache")
        )
        try:
            judge.rate(PAIRS)
        except UserError as error:
            shown += [str(error), repr(error), "".join(traceback.format_exception(error))]
    assert bool(shown) == (reply != "4")
    run, predictions = baselines_run()
    made = record.run_record("x", load_profile("smoke"), torch.device("cpu"))
    run |= {key: value for key, value in made.items() if key in run and key != "checkpoint"} | {
        "checkpoint": None
    }
    run["statistics"] |= {"judge": f"{judge.name}: {judge.model}, {judge}"}
    write_run(tmp_path / "run", run, predictions)
    Margin((tmp_path / "log").open("w"), "    1 | ").write("".join(shown))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.json", "predictions.parquet", "log"} <= {path.name for path in written}
    assert (tmp_path / "cache" / "replies.sqlite").is_file()
    said = capfd.readouterr()
    for text in (
        *shown,
        said.out,
        said.err,
        caplog.text,
        *(path.read_bytes().decode("latin-1") for path in written),
    ):
        assert KEY not in text
    assert os.environ["OPENAI_API_KEY"] == KEY


CODE = sorted(
    path
    for pattern in (
        "introspect_utils/**/*.py",
        "scripts/**/*.py",
        "benchmarks/*.py",
        "notebooks/*.ipynb",
    )
    for path in REPO.glob(pattern)
)


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_no_code_of_others_is_run(path):
    """No `trust_remote_code`; pickles are read by `unpickle` alone; nothing is evaluated."""
    text = path.read_text("utf-8")
    assert "trust_remote_code" not in text
    if path.suffix == ".py":
        called = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call)
        }
        assert not called & {
            "eval",
            "exec",
            "os.system",
            "pickle.load",
            "pickle.loads",
            "yaml.unsafe_load",
            "__import__",
        }
        assert path.stem == "unpickle" or "torch.load" not in called


@pytest.mark.parametrize(
    "path", [path for path in CODE if path.suffix == ".ipynb"], ids=lambda path: path.stem
)
def test_no_key_is_in_a_notebook(path):
    assert not re.search(r"\bsk-|API_KEY =", path.read_text("utf-8"))
