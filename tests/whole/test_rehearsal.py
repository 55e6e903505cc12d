"""The rehearsal: its profile is derived from the real one, its hub and its chat model behave as
theirs do, and it ends in every table (slow)."""

import json
import os
import subprocess
import sys

import httpx
import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from whole_paper import PAPER

from introspect_utils.runs.cost import downloads, estimate
from introspect_utils.runs.plan import plan
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile

sys.path.insert(0, str(REPO / "scripts" / "rehearsal"))
import chat  # noqa: E402
import files  # noqa: E402
import hub  # noqa: E402
from verify import verify  # noqa: E402

RUN = "figures/rehearsal/runs/patching-llama"
PROFILES = {"rehearsal": "paper", "rehearsal-published": "published"}
PROFILES |= {"rehearsal-paper-lite": "paper-lite"}


@pytest.mark.parametrize(("name", "of"), PROFILES.items())
def test_its_runs_are_those_of_the_profile(name, of):
    small, real = load_profile(name), PAPER if of == "paper" else load_profile(of)
    rehearsed, runs = plan(small), plan(real)

    def asked(run):
        keys = ("target", "explainer", "condition", "seed")
        return run.notebook, *(run.parameters.get(key) for key in keys)

    assert list(map(asked, rehearsed)) == list(map(asked, runs))
    assert max(run.parameters.get("n_train") or 0 for run in rehearsed) < 100
    assert {file.training.sharded for file in (small, *small.parts)} == {
        file.training.sharded for file in (real, *real.parts)
    }
    assert not any(estimate(small, run) or downloads(small, run) for run in rehearsed)
    theirs = {part.source.split("/")[-1]: part for part in real.parts}
    of_parts = [(part, theirs[part.source.split("/")[-1]]) for part in small.parts]
    for number in ("n_test", "n_random", "n_top", "candidates"):  # not more: 0 stays 0
        for rehearsing, whole in ((small, real), *of_parts):
            most = getattr(whole.features, number, 0)
            assert getattr(rehearsing.features, number, 0) <= most


def test_only_profiles_are_rehearsed():
    with pytest.raises(UserError, match="there is no profile 'papr'"):
        load_profile("rehearsal-papr")


@pytest.fixture
def served(tmp_path):
    files.table(tmp_path / "datasets/o/texts", "all", "train", [{"text": "one"}, {"text": "two"}])
    (tmp_path / "models/o/m").mkdir(parents=True)
    (tmp_path / "models/o/m/config.json").write_text("{}")
    with hub.Hub(tmp_path) as server:
        yield server


def test_the_hub_serves_models_and_data_sets_as_the_real_one(served, tmp_path):
    script = (
        "import datasets, huggingface_hub as h; "
        "print(open(h.hf_hub_download('o/m', 'config.json')).read()); "
        "print(h.HfApi().model_info('o/m').siblings[0].rfilename); "
        "print(datasets.load_dataset('o/texts', 'all', split='train')['text'][:]); "
        "print([r['text'] for r in "
        "datasets.load_dataset('o/texts', 'all', split='train', streaming=True)])"
    )
    given = {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    given |= {"HF_DATASETS_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | given, capture_output=True, text=True
    )
    expected = ["{}", "config.json", "['one', 'two']", "['one', 'two']"]
    assert done.stdout.split("\n")[:4] == expected, done.stderr


def test_the_chat_model_misbehaves():
    with chat.Chat() as server:
        for number in range(300):
            messages = [{"role": "user", "content": f"describe {number}"}]
            httpx.post(f"{server.url}/chat/completions", json={"messages": messages})
    wanted = {"plain", "in bold", "with a sentence", "thinking", "busy", "failed", "refused"}
    assert wanted | {"cut short"} == server.said.keys()


@pytest.fixture
def rehearsed(tmp_path, monkeypatch):
    """A function that leaves what a rehearsal of patching leaves."""
    monkeypatch.setattr("introspect_utils.settings.paths.ROOT", tmp_path)

    def leave(tokens, asked, losses):
        data = tmp_path / "artifacts/rehearsal/patching/llama"
        notebooks, run = tmp_path / "artifacts/rehearsal/notebooks", tmp_path / RUN
        for folder in (data, notebooks, run):
            folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([{"input_tokens": tokens}]), data / "test.parquet")
        printed = nbformat.v4.new_output("stream", text=asked)
        cell = nbformat.v4.new_code_cell(outputs=[printed])
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebooks / "patching-llama.ipynb")
        record = {"settings": {"training": {"sharded": True}}, "statistics": {"losses": losses}}
        (run / "run.json").write_text(json.dumps(record))

    return leave


def test_a_silent_fault_of_a_rehearsal_is_named(rehearsed):
    asked = "If feature v at layer {} is added to tokens <{}> when processing"
    rehearsed(["W", "ich", " is"], asked.format("0, 1, 2, 3", " is"), [7.5178, 7.25])
    assert verify("rehearsal") == []
    rehearsed(["W", "Ġis"], asked.format("0, 1, ..., 7", "Ġis"), [7.5, 7.25])
    raw, asks, layers, losses = verify("rehearsal")
    assert "test.parquet has a tokenizer's own strings" in raw
    assert asks == "patching-llama asks with a tokenizer's own strings"
    assert layers == "patching-llama does not write out layers: 0, 1, ..., 7"
    assert losses == "patching-llama: all 2 losses are bfloat16 numbers"


@pytest.mark.slow
@pytest.mark.parametrize("name", PROFILES)
def test_it_ends_in_every_table(name, tmp_path):
    line = [str(REPO / "run_all.sh"), name]
    environment = os.environ | {"INTROSPECT_ROOT": str(tmp_path)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    figures = tmp_path / "figures" / name
    runs = plan(load_profile(name))
    assert len(list(figures.glob("runs/*/run.json"))) >= len(runs) - 1
    records = json.loads((figures / "results.json").read_text())
    assert {"1", "2", "3", "6", "7"} <= {record["table"] for record in records}
    assert any(record["paper"] is not None for record in records if record["table"] == "2")
