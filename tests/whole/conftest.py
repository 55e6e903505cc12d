"""One run of the profile smoke for all tests of notebooks."""

import os
import subprocess
import sys

import pytest
from filelock import FileLock

from introspect_utils.settings.paths import REPO


@pytest.fixture(scope="session")
def start():
    """Starts a module of the room `runs` with its results below `root`; gives what it printed."""

    def start(module, *arguments, root):
        environment = {**os.environ, "INTROSPECT_ROOT": str(root), "PYTHONPATH": str(REPO)}
        done = subprocess.run(
            [sys.executable, "-P", "-m", f"introspect_utils.runs.{module}", *arguments],
            env=environment | {"OMP_NUM_THREADS": "1"},
            cwd=REPO,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return start


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, start):
    """(root, what was printed) of ./run_all.sh smoke: one run for all processes that test."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    root, said = folder / "smoke", folder / "smoke.txt"
    with FileLock(folder / "smoke.lock"):
        if not said.is_file():
            said.write_text(start("run_all", "smoke", "--jobs", "2", root=root), "utf-8")
    return root, said.read_text("utf-8")
