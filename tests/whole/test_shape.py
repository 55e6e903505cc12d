"""The shape of the package: rooms that import only rooms above them, and code that stays small."""

import ast
import json
import os
import re
import tomllib

import pytest
from importlinter.cli import lint_imports

from introspect_utils.settings.paths import REPO

PACKAGE = REPO / "introspect_utils"
MODULES = {str(path.relative_to(REPO)): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}

LAST_STEP = pytest.mark.skipif(not os.environ.get("SHAPE"), reason="SHAPE=1 until it is reached")


def contracts():
    return tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]


def test_each_room_imports_only_rooms_above_it_and_no_import_is_ignored(monkeypatch):
    """The contracts of pyproject.toml; imports for type checking count."""
    monkeypatch.chdir(REPO)
    settings = contracts()
    assert set(settings) == {"root_package", "contracts"}
    assert not any("ignore_imports" in contract for contract in settings["contracts"])
    assert set(settings["contracts"][0]["layers"]) == ROOMS and len(ROOMS) == 10
    assert lint_imports(no_cache=True) == 0


def test_every_room_says_in_a_line_what_is_in_it():
    for room in ROOMS:
        docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
        assert docstring, room


@LAST_STEP
def test_the_package_is_small():
    lines = {name: len(text.splitlines()) for name, text in MODULES.items()}
    assert {name: n for name, n in lines.items() if n > 300} == {}
    assert sum(lines.values()) <= 11_000


def test_functions_are_short():
    long = {}
    for name, text in MODULES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                long |= {f"{name}: {node.name}": length} if length > 60 else {}
    assert long == {}


def code_cells():
    """(notebook, tags, code) of every code cell."""
    for path in sorted((REPO / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield path.stem, cell["metadata"].get("tags", []), "".join(cell["source"])


@LAST_STEP
def test_lines_are_short():
    code = [(name, line) for name, text in MODULES.items() for line in text.splitlines()]
    code += [(stem, line) for stem, _, text in code_cells() for line in text.splitlines()]
    assert [(name, line) for name, line in code if len(line) > 100] == []


OPENS = re.compile(r"\b(open_run|Report)\(profile")
FINISHES = re.compile(r"\b(run|part)\.finish\(")
FILES = re.compile(r"\brun\.(data|results|checkpoint|load|read)\b|\bfiles\b|\.(save|to_parquet)\(")


def lines_of(text):
    """Lines of code: neither blank nor a comment alone."""
    return [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]


def bookkeeping(tags, text):
    """How many lines of a cell are bookkeeping: all of them in a cell of parameters and in one
    that opens or finishes a run; elsewhere imports, and lines that name a file or folder of the
    run, read or save."""
    if "parameters" in tags or OPENS.search(text) or FINISHES.search(text):
        return len(lines_of(text))
    imports = re.compile(r"^\s*(import|from) ")
    return sum(bool(imports.match(line) or FILES.search(line)) for line in lines_of(text))


def test_a_notebook_is_set_up_in_eight_lines():
    """The cell that opens the run, imports included; all imports are there."""
    opening = {stem: len(lines_of(text)) for stem, _, text in code_cells() if OPENS.search(text)}
    assert opening.keys() == {stem for stem, _, _ in code_cells()}
    assert {stem: n for stem, n in opening.items() if n > 8} == {}


def test_a_fifth_of_the_notebooks_code_is_bookkeeping_at_most():
    lines = sum(len(lines_of(text)) for _, _, text in code_cells())
    kept = sum(bookkeeping(tags, text) for _, tags, text in code_cells())
    print(share := f"{kept} of {lines} lines, {kept / lines:.1%}")
    assert kept <= 0.2 * lines, share
