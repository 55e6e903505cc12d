"""The recipes of docs/adding.md, followed to the letter in a copy of the package: each on models of
four layers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from introspect_utils.models.load import load_model
from introspect_utils.settings.paths import REPO

CHAPTER = (REPO / "docs" / "adding.md").read_text("utf-8")


def blocks(recipe):
    """(where it goes, the code) of each block of a recipe; its first line says where."""
    part = CHAPTER.split(f"## {recipe}\n")[1].split("\n## ")[0]
    return [
        tuple(code.removeprefix("# ").split("\n", 1))
        for code in re.findall(r"```\w+\n(.*?)```", part, re.DOTALL)
    ]


class Copy:
    """A copy of the package in which a recipe is followed."""

    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(
            REPO / "introspect_utils",
            root / "introspect_utils",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copytree(REPO / "params", root / "params")

    def follow(self, recipe: str, *changes: tuple[str, str]) -> str:
        """Put the code of a recipe where it goes; the code of its notebook, if it has one."""
        cells = ""
        for place, code in blocks(recipe):
            for old, new in changes:
                code = code.replace(old, new)
            name, _, anchor = place.partition(", ")
            path = self.root / name
            if name == "a notebook":
                cells += code
            elif not anchor:
                path.write_text(code)
            else:
                path.write_text(self._changed(path.read_text(), anchor, code))
        return cells

    @staticmethod
    def _changed(text: str, anchor: str, code: str) -> str:
        if anchor == "behind the last line":
            return f"{text}\n\n{code}"
        how, _, line = anchor.partition(": ")
        assert text.count(line) == 1 or (line in text and how == "in place of"), line
        return text.replace(line, f"{line}\n{code}" if how == "behind" else code.strip())

    def run(self, code: str) -> str:
        environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "INTROSPECT_ROOT": str(self.root),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_a_task_is_a_module_and_a_notebook(copy):
    cells = copy.follow("A task")
    assert re.search(r"^\d of 8 right$", copy.run(cells), re.MULTILINE)
    assert (
        copy.root / "artifacts" / "smoke" / "checkpoints" / "next-token" / "explainer.json"
    ).is_file()


def test_a_model_is_a_line(copy, tmp_path):
    lm, folder = load_model("tiny-qwen3", "cpu"), tmp_path / "models" / "my-llama"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    copy.follow("A model", ("/models/my-llama", str(folder)))
    said = copy.run(
        "from introspect_utils.models.load import load_model; from "
        "introspect_utils.settings.profile import load_profile\n"
        "from introspect_utils.runs.plan import plan\n"
        "print(load_model('my-llama').width, *(run.id for run in plan(load_profile('smoke'))))"
    )
    assert (
        said.split()[0] == str(lm.width) and "patching-my-llama-self-full-n16-seed0" in said.split()
    )


def test_an_explainer_is_a_name_or_a_function(copy):
    copy.follow("An explainer")
    said = copy.run(
        "from introspect_utils.explainer.make import make_explainer; from "
        "introspect_utils.settings.profile import load_profile\n"
        "from introspect_utils.runs.plan import plan\n"
        "profile = load_profile('smoke')\n"
        "for name in (*profile.ablation.explainers, 'noisy@0.5'):\n"
        "    lm = make_explainer(profile, 'patching', name, 'full', 'tiny-llama', 32, [(0,)], "
        "0).lm\n"
        "    print(lm.name, float(lm.model.get_input_embeddings().weight.abs().sum()), sep=': ')\n"
        "print(*(run.id for run in plan(profile)))"
    )
    *models, planned = said.strip().splitlines()
    names, sums = zip(*(line.split(": ") for line in models if ": " in line), strict=True)
    assert names[-5:] == (
        "tiny-llama",
        "tiny-llama sibling",
        "tiny-llama rotated@0.5",
        "tiny-gemma3",
        "tiny-llama noisy@0.5",
    )
    assert len(set(sums[-5:])) == 5
    assert "ablation-tiny-llama-rotated@0.5-full-n16-seed0" in planned.split()
