"""What the README and docs/ say is so: links lead somewhere, commands are taken, tables are whole,
and every number of a result is that of a record."""

import re
import shlex
import sys

import pytest
from whole_paper import PAPER

from introspect_utils.runs.cost import estimate
from introspect_utils.runs.options import chosen_parts, described_gpus, snakemake_options
from introspect_utils.runs.plan import plan
from introspect_utils.settings.names import VARIANTS
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import WITH, WITHOUT, load_profile
from introspect_utils.settings.sections import PROJECTED, STARTED

sys.path.insert(0, str(REPO / "scripts"))
import page_numbers  # noqa: E402

PAGES = {
    str(path.relative_to(REPO)): path.read_text("utf-8")
    for pattern in ("*.md", "docs/*.md", "figures/*.md", "benchmarks/*.md", "pretrained/*.md")
    for path in REPO.glob(pattern)
}
NOTEBOOKS = {path.stem for path in (REPO / "notebooks").glob("*.ipynb")}


def test_every_link_leads_to_a_file():
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in link or ((REPO / page).parent / link).exists(), (page, link)


def test_every_command_is_one_that_run_all_takes(monkeypatch):
    for name in (WITH, WITHOUT):
        monkeypatch.setenv(name, "")
    lines = [line for text in PAGES.values() for line in text.splitlines()]
    commands = {line.split(" # ")[0].strip() for line in lines if line.startswith("    ./run_all")}
    assert len(commands) >= 8
    for command in commands:
        _, *arguments = shlex.split(command)
        name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "mini"
        if name == "ask":  # opens a notebook and runs none
            assert "\nask) exec" in (REPO / "run_all.sh").read_text()
            continue
        profile = load_profile("mini" if name.endswith(".yaml") else name)
        ids = {run.id for run in plan(profile)}
        _, arguments = chosen_parts(profile, arguments)
        _, arguments = described_gpus(arguments)
        options = snakemake_options([argument.replace("RUN", "tables") for argument in arguments])
        assert set(options.forcerun) <= ids


def first_cells(page, header):
    """The first cells of the table that begins with `header`."""
    body = PAGES[page].split(header)[1].split("\n\n")[0]
    return [line.split("|")[1] for line in body.splitlines() if line.startswith("|")]


def test_the_tables_of_notebooks_profiles_explainers_and_conditions_are_whole():
    assert set(re.findall(r"notebooks/(\w+)\.ipynb", PAGES["README.md"])) == NOTEBOOKS
    named = first_cells("docs/notebooks.md", "| notebook | what it does |")
    assert set(re.findall(r"`(\w+)`", "".join(named))) == NOTEBOOKS
    profiles = {"rehearsal", *(path.stem for path in (REPO / "params").glob("*.yaml"))}
    of_table = "".join(first_cells("docs/scale.md", "| profile | for |"))
    assert set(re.findall(r"`([\w-]+)`", of_table)) == profiles
    explainers = "".join(first_cells("docs/explainers.md", "| explainer | what it is |"))
    assert set(VARIANTS) <= set(re.findall(r"`(\w+)`", explainers))
    conditions = "".join(first_cells("docs/explainers.md", "| condition | what it is |"))
    assert {*PROJECTED, *STARTED} <= set(re.findall(r"`([\w-]+)`", conditions))


@pytest.mark.parametrize("name", ["paper", "paper-lite", "published"])
def test_the_hours_of_a_profile_are_those_that_a_dry_run_estimates(name):
    profile = load_profile(name)
    hours = sum(made.hours for run in plan(profile) if (made := estimate(profile, run)))
    (said,) = re.findall(rf"\| `{name}` \|.*about ([\d,.]+) H100 hours", PAGES["docs/scale.md"])
    assert float(said.replace(",", "")) == pytest.approx(hours, rel=0.15)


def test_the_memory_of_each_stage_is_that_of_the_estimate():
    profile = PAPER
    rows = re.findall(r"`([\w.-]+)` \| (\d+) \| (\d+) \|", PAGES["docs/scale.md"])
    made = {run.id: estimate(profile, run) for run in plan(profile)}
    assert len(rows) > 8
    assert [(i, str(made[i].gpus), f"{made[i].memory / 1e9:.0f}") for i, _, _ in rows] == rows


@pytest.mark.parametrize("page", page_numbers.PAGES)
def test_every_number_is_that_of_a_record(page):
    right, wrong = page_numbers.read(PAGES[page])
    assert not wrong
    assert PAGES[page] == right, "run python scripts/page_numbers.py"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("Self scores 12.3 by the judge.", "belongs to no record"),
        ("Self scores 12.3<!--= 1, sae, nobody, judge-->.", "0 records"),
        ("Self scores 12.3<!--= 1, sae, self-->.", "records of small have"),
        ("| a | b<!--= 1, sae, judge--> |\n|---|---|\n| self | 12.3 |", "belongs to no record"),
    ],
)
def test_a_number_without_a_record_is_found(line, fault):
    _, wrong = page_numbers.read(line)
    assert wrong and all(fault in each for each in wrong)


def test_a_wrong_number_is_replaced_in_text_and_tables():
    key = "1, sae, self, full, judge"
    right, _ = page_numbers.read(f"Self scores 12.3 ± 0.4<!--= {key}-->, it says.")
    number = re.search(r"[\d.]+ ± [\d.]+", right)[0]
    assert number != "12.3 ± 0.4"
    table = "| | judge<!--= 1, sae, judge--> | n |\n|---|---|---|\n| me<!--= self, full--> | {} | |"
    assert page_numbers.read(table.format("12.3 ± 0.4"))[0] == table.format(number) + "\n"
