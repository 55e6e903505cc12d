"""What the README says is so: its links lead somewhere, its commands are taken, its tables are
whole."""

import re
import shlex
import sys

import pytest

from introspect_utils.runs.cost import estimate
from introspect_utils.runs.plan import plan
from introspect_utils.runs.run_all import snakemake_options
from introspect_utils.settings.names import VARIANTS
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import PROJECTED, load_profile

sys.path.insert(0, str(REPO / "scripts"))
import page_numbers  # noqa: E402

README = (REPO / "README.md").read_text("utf-8")
PAGES = (REPO / "README.md", REPO / "figures" / "README.md", REPO / "benchmarks" / "README.md")
LINKS = [
    (page, link)
    for page in PAGES
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
]
COMMANDS = [
    line.split(" # ")[0].strip()
    for line in README.splitlines()
    if line.startswith("    ") and "./run_all.sh" in line
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_to_a_file(page, link):
    assert "://" in link or (page.parent / link).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_run_all_takes(command):
    _, *arguments = shlex.split(command)
    profile = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "mini"
    ids = {run.id for run in plan(load_profile("mini" if profile.endswith(".yaml") else profile))}
    options = snakemake_options([argument.replace("RUN", "tables") for argument in arguments])
    assert set(options.forcerun) <= ids


def table(header):
    """The first cells of the table that begins with `header`, without backquotes."""
    body = README.split(header)[1].split("\n\n")[0]
    return [
        line.split("|")[1].strip()
        for line in body.splitlines()
        if line.startswith("|") and "---" not in line
    ]


def test_the_table_of_notebooks_has_them_all():
    named = [
        cell.strip("`") for cell in table("| notebook | what it does | reads | writes | minutes |")
    ]
    assert named == sorted(path.stem for path in (REPO / "notebooks").glob("*.ipynb"))


def test_the_tables_of_profiles_explainers_and_conditions_are_whole():
    assert {cell.split("`")[1] for cell in table("| profile | for |")} == {
        path.stem for path in (REPO / "params").glob("*.yaml")
    }
    assert set(VARIANTS) <= set(
        re.findall(r"`(\w+)`", " ".join(table("| explainer | what it is |")))
    )
    assert set(PROJECTED) <= set(
        re.findall(r"`([\w-]+)`", " ".join(table("| condition | what it is |")))
    )


def test_it_is_run_by_two_scripts_that_are_there():
    for name in ("run_all.sh", "run_tests.sh"):
        assert f"./{name}" in README and (REPO / name).stat().st_mode & 0o111


@pytest.mark.parametrize("name", ["paper", "published"])
def test_the_hours_of_a_profile_are_those_that_a_dry_run_estimates(name):
    profile = load_profile(name)
    hours = sum(made.hours for run in plan(profile) if (made := estimate(profile, run)))
    (said,) = re.findall(rf"\| `{name}` \|.*about ([\d,.]+) H100 hours", README)
    assert float(said.replace(",", "")) == pytest.approx(hours, rel=0.15)


def test_every_number_is_that_of_a_record():
    page = (REPO / "figures" / "README.md").read_text("utf-8")
    right, wrong = page_numbers.read(page)
    assert not wrong
    assert page == right, "run python scripts/page_numbers.py"


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
