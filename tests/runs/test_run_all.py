import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from introspect_utils.runs import run_all
from introspect_utils.runs.run_notebook import Margin, left
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile


def test_what_is_done_stays_done_until_what_it_is_made_from_changes(
    toy_repo, tmp_path, monkeypatch
):
    foreign = (
        tmp_path / "kernels" / "python3"
    )  # a kernel of this name that the user has from elsewhere must not be taken
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(
        '{"argv": ["false"], "display_name": "Python 3", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    status, out = toy_repo.run_all("toy", "--dry-run")
    assert status == 0 and "4 runs, 4 to do" in out and out.count("not run yet") == 4, out
    assert toy_repo.ran() == [] and not (toy_repo.root / "figures").exists()

    status, out = toy_repo.run_all("toy", "--jobs", "1")
    assert status == 0, out
    assert toy_repo.ran() == toy_repo.ALL
    assert f"[2/4] {toy_repo.FULL}   (elapsed 00:" in out
    assert f" | working on {toy_repo.FULL}\n" in out
    assert "figures/toy/tables/table2.md\n" in out and "Finished in " in out
    assert "rule" not in out and "Snakemake" not in out and "WARNING" not in out
    for files in ("notebooks/*.ipynb", "html/*.html"):
        found = sorted(path.stem for path in toy_repo.root.glob(f"artifacts/toy/{files}"))
        assert found == sorted(toy_repo.ALL)

    toy_repo.edit("06_train_activation_patching", "# A toy", "# Another heading")
    toy_repo.set_profile(("checkpoint_minutes: 0", "checkpoint_minutes: 7"))
    status, out = toy_repo.run_all("toy")
    assert status == 0 and out.count("\n") == 1 and "nothing to do" in out
    assert toy_repo.ran() == []

    toy_repo.edit("12_tables_and_figures", "working on", "working at")
    status, out = toy_repo.run_all("toy", "--dry-run")
    assert "4 runs, 1 to do" in out
    assert "the code of notebook 12_tables_and_figures has changed" in out

    status, out = toy_repo.run_all("toy", "--jobs", "2", "--forcerun", toy_repo.UNTRAINED)
    assert status == 0, out
    assert toy_repo.ran() == [toy_repo.UNTRAINED, "tables"]


def test_arguments_for_snakemake_may_lie_in_a_profile_of_its_own(tmp_path):
    """Slurm's needs a plugin that is not installed here; its other settings are known to
    Snakemake."""
    slurm = (REPO / "params" / "snakemake" / "slurm" / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(slurm.replace("executor: slurm", "executor: local"))
    found = run_all.snakemake_options(["--profile", str(tmp_path)])
    assert (found.executor, found.jobs, found.latency_wait) == ("local", 8, 60)
    assert run_all.snakemake_options([]).executor is None


def test_a_clone_with_committed_results_makes_only_what_is_missing(toy_repo):
    toy_repo.pretend_done(*toy_repo.ALL)
    shutil.rmtree(toy_repo.root / "artifacts")
    files = [path for path in toy_repo.root.glob("figures/**/*") if path.is_file()]
    for path in files:
        moment = time.time() - random.randrange(100000)
        os.utime(path, (moment, moment))
    status, out = toy_repo.run_all("toy")
    assert status == 0 and "nothing to do" in out
    status, out = toy_repo.run_all("toy", "--cores", "1")  # Snakemake is of the same opinion
    assert status == 0 and "nothing to do" in out
    assert toy_repo.ran() == []

    (toy_repo.root / "figures" / "toy" / "runs" / toy_repo.UNTRAINED / "run.json").unlink()
    status, out = toy_repo.run_all("toy", "--dry-run")
    assert "its data is not on this machine" in out and "run.json is missing" in out
    status, out = toy_repo.run_all("toy")
    assert status == 0, out
    assert toy_repo.ran() == [toy_repo.DATA, toy_repo.UNTRAINED, "tables"]
    assert "[1/3] data" in out


def test_a_failed_run_says_why_and_keeps_what_is_done(toy_repo):
    failing = toy_repo.root / f"fail-{toy_repo.FULL}"
    failing.write_text("the facts are too few: 3, needed 16; raise patching.max_pairs")
    toy_repo.pretend_done(toy_repo.DATA)
    checkpoint = toy_repo.root / "artifacts" / "toy" / "checkpoint"
    checkpoint.touch()
    status, out = toy_repo.run_all("toy", "--cores", "1")
    assert status == 1
    assert (
        f"error: {toy_repo.FULL}: the facts are too few: 3, needed 16; raise patching.max_pairs\n"
        in out
    )
    assert "Traceback" not in out and "| UserError" not in out
    executed = toy_repo.root / "artifacts" / "toy" / "notebooks" / f"{toy_repo.FULL}.ipynb"
    assert f"executed notebook: {executed}\n" in out and executed.exists()
    assert f"failed: {toy_repo.FULL} (see above)" in out
    assert checkpoint.exists()
    assert toy_repo.ran() == [toy_repo.FULL]

    failing.rename(toy_repo.root / f"crash-{toy_repo.FULL}")
    status, out = toy_repo.run_all("toy", "--cores", "1")
    assert status == 1
    assert (
        "KeyError in cell" in out
        and "'no such key'" in out
        and "    1 | " in out
        and "\x1b" not in out
    )
    assert toy_repo.ran() == [toy_repo.FULL]

    status, out = toy_repo.run_all("toy", "--bogus")
    assert status == 1 and "unrecognized arguments: --bogus" in out


def test_a_notebook_that_ends_early_is_not_done_whatever_lies_there(toy_repo):
    toy_repo.pretend_done(*toy_repo.ALL)
    (toy_repo.root / f"early-{toy_repo.FULL}").touch()
    status, out = toy_repo.run_all("toy", "--forcerun", toy_repo.FULL)
    assert status == 1 and "ended without writing" in out, out
    folder = toy_repo.root / "figures" / "toy" / "runs" / toy_repo.FULL
    assert f"{folder / 'run.json'}" in out and "explainer.json" not in out  # from a checkpoint
    status, out = toy_repo.run_all("toy", "--dry-run")
    assert "4 runs, 2 to do" in out and "to do: not finished" in out


def test_a_notebook_edited_at_work_is_due_again(toy_repo):
    toy_repo.pretend_done(toy_repo.DATA, toy_repo.UNTRAINED)
    hang = toy_repo.root / f"hang-{toy_repo.FULL}"
    hang.touch()
    line, environment = toy_repo.command("toy", "--until", toy_repo.FULL)
    with subprocess.Popen(line, env=environment, cwd=toy_repo.path) as at_work:
        while not (toy_repo.root / "hanging").exists():
            time.sleep(0.1)
        toy_repo.edit("06_train_activation_patching", "working on", "working at")
        hang.unlink()
    assert at_work.returncode == 0
    status, out = toy_repo.run_all("toy", "--dry-run")
    assert "the code of notebook 06_train_activation_patching has changed" in out


def test_what_is_left_out_stays_out_and_the_tables_are_of_what_is_done(toy_repo):
    status, out = toy_repo.run_all("toy", "--until", toy_repo.FULL)
    assert status == 0 and toy_repo.ran() == [toy_repo.DATA, toy_repo.FULL, "tables"], out
    assert "Tables and figures of the 2 of 4 runs that are done:\n" in out
    status, out = toy_repo.run_all("toy", "--dry-run")
    assert "4 runs, 2 to do" in out


def test_a_killed_run_is_taken_up_again_and_leaves_nothing_at_work(toy_repo):
    hang = toy_repo.root / f"hang-{toy_repo.FULL}"
    hang.touch()
    toy_repo.pretend_done(toy_repo.DATA, toy_repo.UNTRAINED)
    line, environment = toy_repo.command("toy")
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, cwd=toy_repo.path)
    wait_for(lambda: (toy_repo.root / "hanging").exists())
    process.send_signal(signal.SIGKILL)  # this process alone: its children must notice
    process.wait()
    wait_for(lambda: not _working_in(toy_repo.root))
    assert not (toy_repo.root / "figures" / "toy" / "runs" / toy_repo.FULL / "run.json").exists()
    hang.unlink()
    toy_repo.ran()
    status, out = toy_repo.run_all("toy")
    assert status == 0, out
    assert toy_repo.ran() == [toy_repo.FULL, "tables"]


def test_the_margin_keeps_the_last_state_of_a_progress_bar():
    stream = io.StringIO()
    margin = Margin(stream, "    1 | ")
    for text in ("one\ntw", "o\n\r 10%|#   ", "\r 90%|### ", "\r100%|####\n", "\n", "left"):
        margin.write(text)
    assert stream.getvalue() == "    1 | one\n    1 | two\n    1 | 100%|####\n    1 | \n"


def wait_for(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.1)


def _working_in(root):
    """The processes, other than the asking one, whose environment names `root`."""
    found = []
    for folder in os.listdir("/proc") if os.path.isdir("/proc") else []:
        try:
            if (
                folder.isdigit()
                and str(root).encode() in open(f"/proc/{folder}/environ", "rb").read()
            ):
                found.append(folder)
        except OSError:
            continue
    return found


def test_two_at_once_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "LOCK_WAIT", 0)
    monkeypatch.setattr(run_all, "artifacts_dir", lambda name: tmp_path / name)
    profile = load_profile("smoke")
    with run_all.only_one(profile):
        with pytest.raises(UserError, match="is being run by another process already"):
            with run_all.only_one(profile):
                pass
    with run_all.only_one(profile):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise NotImplementedError("no flock")

    monkeypatch.setattr(run_all, "artifacts_dir", lambda name: tmp_path / name)
    monkeypatch.setattr(run_all.FileLock, "acquire", acquire)
    with pytest.raises(UserError, match=r"cannot lock .*lock \(no flock\)"):
        with run_all.only_one(load_profile("smoke")):
            pass


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
    *run_all*) exit ${{RUN_STATUS:-0}} ;;
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


def test_the_time_left_is_said_after_a_minute():
    assert left(30.0, "3/5") == "" == left(600.0, "1/5")
    assert left(600.0, "3/5") == ", about 15 min left"  # two took ten minutes, three are to come
