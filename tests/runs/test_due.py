"""What of a notebook's code makes a run due."""

import json

import pytest

from introspect_utils.runs import due
from introspect_utils.runs.due import notebook_code
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile

CODE = """
from introspect_utils.scores.metrics import mean

rows = [n * 2 for n in range(10)]
for row in rows:
    import json
    print(json.dumps(mean(row[1:])), f"{row:.3f}")
"""


@pytest.fixture
def code_of(tmp_path, monkeypatch):
    monkeypatch.setattr(due, "REPO", tmp_path)
    (tmp_path / "notebooks").mkdir()

    def tree(code):
        cells = [{"cell_type": "markdown", "source": ["words"]}]
        cells.append({"cell_type": "code", "source": code.splitlines(keepends=True)})
        (tmp_path / "notebooks" / "01.ipynb").write_text(json.dumps({"cells": cells}))
        return notebook_code("01")

    return tree


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("introspect_utils.scores.metrics", "introspect_utils.report.statistics"),
        ("    import json\n", "    import json, sys  # twice\n"),
        ("rows = [", "# the rows\nrows = ["),
        ("rows = [", '"""The rows."""\n\nrows = ['),
        ("[n * 2 for n in range(10)]", "[\n    (n * 2)\n    for n in range(10)\n]"),
        ('f"{row:.3f}"', "f'{row:.3f}'"),
    ],
)
def test_imports_comments_and_layout_do_not_count(code_of, old, new):
    before = code_of(CODE)
    assert code_of(CODE.replace(old, new)) == before
    assert CODE.replace(old, new) != CODE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("* 2", "* 3"),
        ("10", "10.0"),
        ("[1:]", "[:1]"),
        (".3f", ".2f"),
        ("mean(", "median("),
        ("    print", "print"),
    ],
)
def test_everything_else_does(code_of, old, new):
    before = code_of(CODE)
    assert code_of(CODE.replace(old, new)) != before


def test_a_cell_with_a_line_of_ipythons_counts_as_it_is_written(code_of):
    magic = "%matplotlib inline\nx = 1"
    assert code_of(magic) == [magic] != code_of("%matplotlib inline\nx = 2")


def test_a_notebook_that_cannot_be_read_is_named(code_of, tmp_path):
    code_of("")
    (tmp_path / "notebooks" / "01.ipynb").write_text("{}")
    with pytest.raises(UserError, match="cannot read the notebook .*01.ipynb"):
        notebook_code("01")


def test_each_notebook_is_read_once(monkeypatch):
    """A dry run of small took 22 s when each run read those of all runs before it."""
    read = []
    monkeypatch.setattr(due, "notebook_code", lambda stem: read.append(stem) or [stem])
    due._code_digest.cache_clear()
    due.due(load_profile("small"))
    due._code_digest.cache_clear()
    assert len(read) == len({*read}) > 8
