"""What several tests share: a small repository of its own, whose notebooks take no time and need no
model."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import settings

from introspect_utils.settings.paths import REPO

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell that runs the tests in the background has it ignored
settings.register_profile("busy", deadline=None)  # a slow moment of the machine is no failure
settings.load_profile("busy")


def pytest_collection_modifyitems(items):
    """What takes longest may do so. The smoke run takes longest of all: in several processes one
    file begins with it, and the others that need it come last, so that no process waits for it."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))
        elif "smoke" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(1800))
    if "PYTEST_XDIST_WORKER" in os.environ:
        smoke = list(dict.fromkeys(i.path for i in items if "smoke" in i.fixturenames))
        items.sort(key=lambda item: (item.path in smoke[1:]) - (item.path in smoke[:1]))


# What every toy notebook does: note that it ran, then write the outputs that its run promises.
TOY_CODE = """
import pathlib, time
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import ROOT
from introspect_utils.settings.profile import load_profile
from introspect_utils.runs.plan import plan

[run] = [run for run in plan(load_profile(profile)) if run.parameters == {parameters}]
assert run.id == "tables" or all(path.is_file() for path in run.inputs)
with open(ROOT / "ran.txt", "a") as file:
    print(run.id, file=file)
print("working on", run.id)
if (ROOT / f"fail-{run.id}").exists():
    raise UserError((ROOT / f"fail-{run.id}").read_text())
if (ROOT / f"crash-{run.id}").exists():
    {}["no such key"]
if (ROOT / f"early-{run.id}").exists():
    raise SystemExit
while (ROOT / f"hang-{run.id}").exists():
    (ROOT / "hanging").touch()
    time.sleep(0.1)
for path in run.outputs:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
"""
TOY_NOTEBOOKS = {
    "02_data_activation_patching": ("profile", "target"),
    "06_train_activation_patching": (
        "profile",
        "target",
        "explainer",
        "condition",
        "n_train",
        "seed",
    ),
    "12_tables_and_figures": ("profile",),
}


class ToyRepo:
    """A copy of the package with toy notebooks and a profile `toy` of four runs."""

    FULL = "patching-tiny-llama-self-full-n16-seed0"
    UNTRAINED = "patching-tiny-llama-self-untrained-n0-seed0"
    DATA = "data-patching-tiny-llama"
    ALL = [DATA, FULL, UNTRAINED, "tables"]

    def __init__(self, path: Path):
        self.path = self.root = path
        shutil.copytree(
            REPO / "introspect_utils",
            path / "introspect_utils",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copy(REPO / "Snakefile", path)
        for folder in ("params", "notebooks"):
            (path / folder).mkdir()
        self.set_profile()
        for stem, names in TOY_NOTEBOOKS.items():
            parameters = nbformat.v4.new_code_cell(
                "\n".join(f"{name} = None" for name in names), metadata={"tags": ["parameters"]}
            )
            code = TOY_CODE.replace(
                "{parameters}", "{" + ", ".join(f"{name!r}: {name}" for name in names) + "}"
            )
            cells = [
                nbformat.v4.new_markdown_cell("# A toy"),
                parameters,
                nbformat.v4.new_code_cell(code),
            ]
            nbformat.write(
                nbformat.v4.new_notebook(cells=cells), path / "notebooks" / f"{stem}.ipynb"
            )

    def set_profile(self, *changes: tuple[str, str]) -> None:
        """Write `params/toy.yaml`: one task of the profile smoke with two conditions, and with
        these (old, new) replaced."""
        text = (REPO / "params" / "smoke.yaml").read_text().split("\nablation:")[0] + "\n"
        before, _, after = text.partition("features:")
        text = before + "patching:" + after.partition("\npatching:")[2]
        keep = (
            "conditions: [full, no-vector, no-layer, no-token, untrained, locate]",
            "conditions: [full, untrained]",
        )
        for old, new in (keep, *changes):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (self.path / "params" / "toy.yaml").write_text(text)

    def edit(self, notebook: str, old: str, new: str) -> None:
        path = self.path / "notebooks" / f"{notebook}.ipynb"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """The command line of run_all with these arguments, and its environment."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.path),
            "INTROSPECT_ROOT": str(self.root),
        }
        return [sys.executable, "-m", "introspect_utils.runs.run_all", *arguments], environment

    def run_all(self, *arguments: str) -> tuple[int, str]:
        """Exit status and everything printed."""
        line, environment = self.command(*arguments)
        done = subprocess.run(
            line,
            env=environment,
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def pretend_done(self, *ids: str) -> None:
        """Leave everything as after these runs, quickly."""
        code = f"""if True:
            from introspect_utils.settings.profile import load_profile
            from introspect_utils.runs.due import made_from, mark_done
            from introspect_utils.runs.plan import plan
            profile = load_profile("toy")
            for run in [run for run in plan(profile) if run.id in {ids}]:
                for path in run.outputs:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                mark_done(profile, run, made_from(run, plan(profile)))
        """
        subprocess.run(
            [sys.executable, "-c", code], env=self.command()[1], cwd=self.path, check=True
        )

    def ran(self) -> list[str]:
        """The runs executed since the last call, in order."""
        path = self.root / "ran.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture(scope="session")
def smollm2():
    """The real model of the profiles `mini` and `small`, in float32 on the CPU."""
    from introspect_utils.models.load import load_model

    return load_model("smollm2-135m-instruct", "cpu", "float32")


@pytest.fixture
def toy_repo(tmp_path):
    return ToyRepo(tmp_path / "a {b} folder's $name, with 100% spaces")


@pytest.fixture(scope="module")
def tiny():
    """A random model that the tests of a module share, and leave as it is."""
    from introspect_utils.models.load import load_model

    return load_model("tiny-llama", "cpu")


@pytest.fixture(scope="module")
def one_thread():
    """Tiny models are computed faster without a second thread, much faster where the cores are
    busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
