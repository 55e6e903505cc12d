"""The shell scripts and what GitHub runs of them, without installing anything."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from introspect_utils.settings.paths import REPO

WORKFLOWS = sorted((REPO / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_scripts_that_are_here(path):
    [job] = yaml.safe_load(path.read_text())["jobs"].values()
    commands = [step["run"].split()[0] for step in job["steps"] if "run" in step]
    assert commands and all(os.access(REPO / command, os.X_OK) for command in commands)


def test_the_published_pages_are_those_that_the_list_names(tmp_path):
    made = ("figures/small/report.html", "figures/mini/report.html", "artifacts/mini/html/a.html")
    for name in (*made, "figures/small/hero.png", "figures/mini/hero.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(REPO / "scripts/site.sh", tmp_path / "scripts")
    subprocess.run([script, "site"], cwd=tmp_path, check=True, timeout=60)
    links = re.findall(r'href="([^"]+)"', (tmp_path / "site/index.html").read_text())
    assert links == ["small/report.html", "mini/report.html", "notebooks/a.html"]
    assert all((tmp_path / "site" / link).is_file() for link in links)


def script(*command, **environment):
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def bare_repo(tmp_path):
    """The scripts alone, and a stand-in for Python that notes what it is asked to do and makes a
    .venv with itself in it."""
    root = tmp_path / "a bare repo"
    shutil.copytree(REPO / "scripts", root / "scripts", ignore=shutil.ignore_patterns("*.py"))
    for name in ("run_all.sh", "requirements.lock"):
        shutil.copy(REPO / name, root)
    python = root / "python"
    python.write_text(
        f"""#!/usr/bin/env bash
case "$*" in
    *"import sys"*) exit ${{TOO_OLD:-0}} ;;
    -V) echo Python 3.10.2 ;;
    *" venv "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    *" pip "*) exit ${{BROKEN:-0}} ;;
    *run_all*) [ -z "${{PYTHONDONTWRITEBYTECODE:-}}" ] || exit 77; exit ${{RUN_STATUS:-0}} ;;
esac
echo "$*" >>'{root}/asked'
"""
    )
    python.chmod(0o755)
    return root


def test_set_up_is_done_once_and_begun_again_when_cut_short(bare_repo):
    run = bare_repo / "run_all.sh"
    python = str(bare_repo / "python")
    status, _, err = script(run, PYTHON=python, TOO_OLD="1")
    assert (
        status == 1
        and err.count("\n") == 1
        and "Python 3.11 or newer is needed" in err
        and "Python 3.10.2" in err
    )

    status, out, err = script(run, PYTHON=python, BROKEN="1")
    assert status == 1 and "the installation failed" in err

    status, out, err = script(run, PYTHON=python)
    assert status == 0 and "Installing into" in out
    assert (bare_repo / "asked").read_text().count(" venv --clear ") == 2

    status, out, err = script(run, PYTHON=python, RUN_STATUS="3")
    assert status == 3 and "Installing" not in out

    with (bare_repo / "requirements.lock").open("a") as file:
        print("another==1.0", file=file)
    assert "Installing into" in script(run, PYTHON=python)[1]


def test_a_run_may_write_bytecode_where_the_machine_forbids_it(bare_repo):
    run, python = bare_repo / "run_all.sh", str(bare_repo / "python")
    assert script(run, PYTHON=python, PYTHONDONTWRITEBYTECODE="1")[0] == 0


def test_the_environment_of_another_folder_is_not_emptied_through_a_link(bare_repo, tmp_path):
    """`venv --clear` follows a link: a clone whose .venv is a link once emptied its owner's."""
    other = tmp_path / "other"
    other.mkdir()
    (other / ".installed").write_text("of another folder\n")
    (bare_repo / ".venv").symlink_to(other)
    status, _, err = script(bare_repo / "run_all.sh", PYTHON=str(bare_repo / "python"))
    assert status == 1 and "remove the link" in err
    assert (other / ".installed").read_text() == "of another folder\n"


def test_the_scripts_are_whole():
    for name in ("run_all.sh", "run_tests.sh", ".ci/run"):
        assert os.access(REPO / name, os.X_OK)
        assert script("bash", "-n", str(REPO / name))[0] == 0


def test_the_conda_environment_is_what_the_package_asks_for_in_the_versions_of_the_lock():
    locked = dict(
        line.split("==")
        for line in (REPO / "requirements.lock").read_text().lower().splitlines()
        if "==" in line
    )
    pinned = re.findall(
        r"^ +- ([\w-]+)==?([\d.]+)$", (REPO / "environment.yml").read_text(), re.MULTILINE
    )
    found = {
        {"pytorch": "torch"}.get(name, name): version
        for name, version in pinned
        if name != "python"
    }
    assert {name: locked[name] for name in found} == found
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = [
        extra for name, extra in project["optional-dependencies"].items() if name != "bench"
    ]  # peers are no part of it
    asked = sum(extras, project["dependencies"])
    assert {re.match(r"[\w-]+", requirement)[0].lower() for requirement in asked} <= found.keys()


def test_jupyter_lab_is_there():
    assert (Path(sys.prefix) / "bin" / "jupyter-lab").is_file()
