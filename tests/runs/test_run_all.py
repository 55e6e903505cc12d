"""./run_all.sh without failures: what is done stays done, and one at a time."""

import io
import os
import random
import shutil
import time

import pytest

from introspect_utils.runs import run_all
from introspect_utils.runs.options import snakemake_options
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
    found = snakemake_options(["--profile", str(tmp_path)])
    assert (found.executor, found.jobs, found.latency_wait) == ("local", 8, 60)
    assert snakemake_options([]).executor is None


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


def test_the_margin_keeps_the_last_state_of_a_progress_bar():
    stream = io.StringIO()
    margin = Margin(stream, "    1 | ")
    for text in ("one\ntw", "o\n\r 10%|#   ", "\r 90%|### ", "\r100%|####\n", "\n", "left"):
        margin.write(text)
    assert stream.getvalue() == "    1 | one\n    1 | two\n    1 | 100%|####\n    1 | \n"


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


def test_the_time_left_is_said_after_a_minute():
    assert left(30.0, "3/5") == "" == left(600.0, "1/5")
    assert left(600.0, "3/5") == ", about 15 min left"  # two took ten minutes, three are to come
