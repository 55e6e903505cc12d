"""The shell scripts and what GitHub runs of them, without installing anything."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def test_the_environment_of_another_folder_is_not_emptied_through_a_link(tmp_path):
    """`venv --clear` follows a link: a clone whose .venv is a link once emptied its owner's."""
    (tmp_path / "requirements.lock").write_text("torch\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/.installed").write_text("of another folder\n")
    (tmp_path / ".venv").symlink_to(tmp_path / "other")
    script = f"ROOT={tmp_path}; source {ROOT}/scripts/setup.sh"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "remove the link" in ended.stderr
    assert (tmp_path / "other/.installed").read_text() == "of another folder\n"


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_scripts_that_are_here(path):
    [job] = yaml.safe_load(path.read_text())["jobs"].values()
    commands = [step["run"].split()[0] for step in job["steps"] if "run" in step]
    assert commands and all(os.access(ROOT / command, os.X_OK) for command in commands)


def test_the_published_pages_are_those_that_the_list_names(tmp_path):
    made = ("figures/small/report.html", "figures/mini/report.html", "artifacts/mini/html/a.html")
    for name in (*made, "figures/small/hero.png", "figures/mini/hero.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts/site.sh", tmp_path / "scripts")
    subprocess.run([script, "site"], cwd=tmp_path, check=True, timeout=60)
    links = re.findall(r'href="([^"]+)"', (tmp_path / "site/index.html").read_text())
    assert links == ["small/report.html", "mini/report.html", "notebooks/a.html"]
    assert all((tmp_path / "site" / link).is_file() for link in links)
