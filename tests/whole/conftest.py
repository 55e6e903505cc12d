"""One run of the profile smoke for all tests of notebooks."""

import os
import subprocess
import sys

import pytest

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
    """(root, what was printed) of ./run_all.sh smoke."""
    root = tmp_path_factory.mktemp("smoke")
    return root, start("run_all", "smoke", "--jobs", "2", root=root)
