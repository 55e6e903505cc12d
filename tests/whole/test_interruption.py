"""Interruption of ./run_all.sh smoke: kills at random moments, a full disk, two runs at once. Slow:
`./run_tests.sh --slow`.

KILLS=3 in the environment asks for another number of kills.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from introspect_utils.runs.due import due
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "20"))
SECONDS = 900  # for a whole run on a busy machine


def start(root: Path, *arguments: str) -> subprocess.Popen:
    """./run_all.sh smoke, past its set-up of the virtual environment, in a process group of its
    own; it writes below `root`."""
    environment = {
        **os.environ,
        "INTROSPECT_ROOT": str(root),
        "PYTHONPATH": str(REPO),
        "OMP_NUM_THREADS": "1",
    }
    line = [sys.executable, "-P", "-m", "introspect_utils.runs.run_all", "smoke", *arguments]
    log = (root / "log.txt").open("a")
    return subprocess.Popen(
        line, env=environment, cwd=REPO, stdout=log, stderr=log, start_new_session=True
    )


def finish(root: Path, *arguments: str) -> str:
    process = start(root, *arguments)
    status, said = process.wait(SECONDS), (root / "log.txt").read_text()
    assert status == 0, said[-3000:]
    return said


def records(root: Path) -> list[dict]:
    return json.loads((root / "figures" / "smoke" / "results.json").read_text())


def whole(root: Path) -> None:
    """Whatever has the name of a result can be read. A checkpoint counts as one only with its run's
    `run.json`."""
    import pyarrow.parquet as pq
    from safetensors import safe_open

    for path in (
        path
        for path in root.rglob("*")
        if path.is_file() and not {"ipython", "checkpoints"} & set(path.parts)
    ):
        if path.name.startswith("."):
            continue
        match path.suffix:
            case ".json":
                json.loads(path.read_text())
            case ".parquet":
                pq.read_table(path)
            case ".safetensors":
                with safe_open(path, "pt") as saved:
                    assert list(saved.keys())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(records, seconds) of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("uninterrupted")
    begun = time.monotonic()
    finish(root)
    return records(root), time.monotonic() - begun


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(uninterrupted, tmp_path):
    """SIGKILL to the whole process group, at moments drawn over what is left of the run; each
    restart goes on."""
    expected, seconds = uninterrupted
    draw, kills, at_work = random.Random(0), 0, []
    while kills < KILLS:
        process = start(tmp_path)
        try:
            process.wait(draw.uniform(0.03, 2 / KILLS + 0.1) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            steps = re.findall(
                r"^\[\d+/\d+\] (.*?)   \(elapsed", (tmp_path / "log.txt").read_text(), re.MULTILINE
            )
            at_work += steps[-1:]
            whole(tmp_path)
        # it has ended before the kill: its last runs again, from their checkpoints or from nothing
        else:
            assert process.returncode == 0, (tmp_path / "log.txt").read_text()[-3000:]
            again = draw.choice(["data-patching-tiny-llama", "simulator-tiny-llama", "tables"])
            (tmp_path / "figures" / "smoke" / "runs" / again / "made_from.json").unlink()
            print("done before the kill; again from", again)
    print(f"{kills} kills, of them during: {sorted(set(at_work))}")
    finish(tmp_path)
    assert records(tmp_path) == expected
    assert not due_at(tmp_path)


def due_at(root: Path) -> dict:
    """What is due there, in a process whose ROOT it is."""
    code = f"import json; from {due.__module__} import due; from {load_profile.__module__} import load_profile\n"
    code += "print(json.dumps(due(load_profile('smoke'))))"
    environment = {**os.environ, "INTROSPECT_ROOT": str(root), "PYTHONPATH": str(REPO)}
    return json.loads(
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        ).stdout
    )


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_more_room_lets_the_run_go_on(uninterrupted, small_disk):
    process = start(small_disk)
    assert process.wait(SECONDS) == 1
    assert re.search(
        r"No space left on device|disk full",
        (small_disk / "log.txt").read_text() + notebooks(small_disk),
    )
    whole(small_disk)
    subprocess.run(["mount", "-o", "remount,size=1g", str(small_disk)], check=True)
    finish(small_disk)
    assert records(small_disk) == uninterrupted[0]


def notebooks(root: Path) -> str:
    return "".join(
        path.read_text(errors="replace") for path in root.glob("artifacts/smoke/notebooks/*.ipynb")
    )


def test_two_runs_at_once_do_not_meet(uninterrupted, tmp_path):
    """The second waits a moment, says that another is at work, and leaves everything to it."""
    first, second = start(tmp_path), start(tmp_path)
    ended = {process.wait(SECONDS) for process in (first, second)}
    assert ended == {0, 1}
    assert re.search(
        r"profile smoke is being run by process \d+ already; wait for it to end",
        (tmp_path / "log.txt").read_text(),
    )
    assert records(tmp_path) == uninterrupted[0]
