"""The recipes of docs/adding.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

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

    def follow(self, recipe: str, *changes: tuple[str, str]) -> None:
        """Put the code of a recipe where it goes."""
        for place, code in blocks(recipe):
            for old, new in changes:
                code = code.replace(old, new)
            name, _, anchor = place.partition(", ")
            path = self.root / name
            if path.suffix == ".ipynb":
                self._add_cell(path, code, ["parameters"] * anchor.endswith("parameters"))
            elif not anchor:
                path.write_text(code)
            else:
                path.write_text(self._changed(path.read_text(), anchor, code))

    @staticmethod
    def _add_cell(path: Path, code: str, tags: list[str]) -> None:
        path.parent.mkdir(exist_ok=True)
        notebook = nbformat.read(path, 4) if path.exists() else nbformat.v4.new_notebook()
        notebook.cells.append(nbformat.v4.new_code_cell(code, metadata={"tags": tags}))
        nbformat.write(notebook, path)

    @staticmethod
    def _changed(text: str, anchor: str, code: str) -> str:
        if anchor == "behind the last line":
            return f"{text}\n\n{code}"
        how, _, line = anchor.partition(": ")
        assert text.count(line) == 1 or (line in text and how == "in place of"), line
        return text.replace(line, f"{line}\n{code}" if how == "behind" else code.strip())

    def run(self, *arguments: str) -> str:
        """What Python prints with these arguments."""
        environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "INTROSPECT_ROOT": str(self.root),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            env=environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
