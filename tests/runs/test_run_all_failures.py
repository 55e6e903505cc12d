"""Runs that fail, are killed or are edited at work: what is done stays, the rest is made anew."""

import os
import signal
import subprocess
import time


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
        try:
            begun = toy_repo.root / "hanging"
            wait_for(lambda: begun.exists() or at_work.poll() is not None, seconds=120)
            toy_repo.edit("06_train_activation_patching", "working on", "working at")
        finally:  # else the process, and the test with it, would never end
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
