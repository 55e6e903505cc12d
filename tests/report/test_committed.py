"""The committed results come back from the committed runs, the committed tables and page from
them."""

import json
import re
from html import unescape

import pytest

from introspect_utils.report.claims import CLAIMS
from introspect_utils.report.page import FIGURES
from introspect_utils.report.records import results
from introspect_utils.report.style import LABELS
from introspect_utils.report.tables import SPECS, table
from introspect_utils.settings.paths import REPO, figures_dir


def committed(profile: str) -> list[dict]:
    return json.loads((REPO / "figures" / profile / "results.json").read_text("utf-8"))


@pytest.fixture
def at_home(monkeypatch):
    """The results that are read are the repository's own."""
    monkeypatch.setattr("introspect_utils.settings.paths.ROOT", REPO)


def test_results_come_back_from_the_runs(at_home):
    assert json.loads(json.dumps(results("small"))) == committed("small")


@pytest.mark.parametrize("profile", ["mini", "small"])
def test_tables_come_back_from_the_results(at_home, profile):
    folder = figures_dir(profile) / "tables"
    found = committed(profile)
    made = {name: each.markdown() for name in SPECS if (each := table(name, found))}
    kept = {path.stem: path.read_text("utf-8") for path in folder.glob("*.md")}
    assert made.keys() == kept.keys()
    for name in made:
        assert made[name] == kept[name], name


@pytest.mark.parametrize("profile", ["mini", "small"])
def test_figures_say_what_the_results_say(profile):
    found, folder = committed(profile), figures_dir(profile)
    drawn = {name: figure for name, draw in FIGURES.items() if (figure := draw(found))}
    assert {"hero", "figure_features", "figure_patching"} <= drawn.keys()
    for name, figure in drawn.items():
        text = unescape(re.sub("<[^>]*>", "", (folder / f"{name}.svg").read_text("utf-8")))
        for line in figure.get_suptitle().splitlines():
            assert line in text, (name, line)


def test_the_claims_of_the_page_are_those_of_the_results():
    page = (REPO / "figures/small/report.html").read_text("utf-8")
    rows = [re.findall("<td[^>]*>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    sentences = {claim.sentence for claim in CLAIMS}
    shown = [tuple(map(unescape, row[:4])) for row in rows if row]
    shown = [row for row in shown if row[0] in sentences]
    claims = [r for r in committed("small") if r["table"] == "claims"]
    assert sorted(shown) == sorted(
        (
            CLAIMS[int(r["condition"]) - 1].sentence,
            LABELS.get(r["task"], r["task"]),
            r["reason"],
            f"{r['value']:.0f} of {r['n']}",
        )
        for r in claims
    )
