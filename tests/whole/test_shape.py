"""The shape of the package: rooms that import only rooms above them, and code that stays small."""

import ast
import json
import os
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


@LAST_STEP
def test_lines_are_short():
    code = [(name, line) for name, text in MODULES.items() for line in text.splitlines()]
    for path in (REPO / "notebooks").glob("*.ipynb"):
        cells = [
            c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"
        ]
        code += [(path.name, line) for c in cells for line in "".join(c["source"]).splitlines()]
    assert [(name, line) for name, line in code if len(line) > 100] == []
