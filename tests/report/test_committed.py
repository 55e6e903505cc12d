"""The committed results come back from the committed runs, and the committed tables from them."""

import json

import pytest

from introspect_utils.report import feature_tables, privileged, similarity_tables, tables
from introspect_utils.report.records import records
from introspect_utils.runs.record import read_runs
from introspect_utils.settings.paths import REPO, figures_dir

TABLES = {
    "table1": feature_tables.table1,
    "table1_paired": feature_tables.table_paired,
    "table1_absolute": feature_tables.table_absolute,
    "section_b4": feature_tables.table_token_match,
    "table2": tables.table2,
    "table2_vector": tables.table_vector,
    "table3": tables.table3,
    "table5": similarity_tables.table5,
    "table6": tables.table6,
    "section_c1": tables.table_locate,
    "table7": tables.table7,
    "privileged_access": privileged.table_privileged,
    "vector_added": privileged.table_vector,
}


def committed(profile: str) -> list[dict]:
    return json.loads((REPO / "figures" / profile / "results.json").read_text("utf-8"))


@pytest.fixture
def at_home(monkeypatch):
    """The results that are read are the repository's own."""
    monkeypatch.setattr("introspect_utils.settings.paths.ROOT", REPO)


def test_results_come_back_from_the_runs(at_home):
    assert json.loads(json.dumps(records(read_runs("small")))) == committed("small")


@pytest.mark.parametrize("profile", ["mini", "small"])
def test_tables_come_back_from_the_results(at_home, profile):
    folder = figures_dir(profile) / "tables"
    found = committed(profile)
    for name, table in TABLES.items():
        assert table(found).markdown() == (folder / f"{name}.md").read_text("utf-8"), name
