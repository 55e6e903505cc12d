"""Execute one run's notebook: `python -m introspect_utils.runs.run_notebook --profile mini --run
tables`.

Prints what it is doing, the notebook's own output as it comes, and how long it took. The executed
notebook is kept as artifacts/<profile>/notebooks/<run id>.ipynb.
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

from introspect_utils.runs.due import mark_done, mark_unfinished
from introspect_utils.runs.export import export_page
from introspect_utils.runs.plan import Run, plan
from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.paths import REPO, ROOT, artifacts_dir
from introspect_utils.settings.profile import Profile, load_profile
from introspect_utils.settings.reading import nearest

TRACEBACK_LINES = 12
IOPUB_SECONDS = 600  # a cell may be busy in one call for long before its outputs can be read
START_SECONDS = 180  # of a kernel, on a slow disk


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m introspect_utils.runs.run_notebook",
        description="Execute one run's notebook.",
    )
    parser.add_argument("--profile", required=True, help="name of a profile, or a .yaml file")
    parser.add_argument(
        "--run", required=True, help="id of a run, as listed by ./run_all.sh PROFILE --dry-run"
    )
    parser.add_argument("--step", default="1/1", help="which run of how many this is")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    runs = {run.id: run for run in plan(profile)}
    if arguments.run not in runs:
        raise UserError(
            f"profile {profile.name} has no run {arguments.run!r}; "
            f"{nearest(arguments.run, list(runs))}"
        )
    run = runs[arguments.run]
    signal.signal(
        signal.SIGINT, lambda *_: os._exit(130)
    )  # Ctrl-C ends it at once, and the kernel with it
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    start = time.time()
    elapsed = clock(start - float(os.environ.get("INTROSPECT_STARTED", start)))
    print(f"[{arguments.step}] {run.summary}   (elapsed {elapsed})", flush=True)
    # whose line it is, where several runs are at work
    margin = f"{arguments.step.partition('/')[0]:>5} | "
    mark_unfinished(profile, run)
    executed = execute(profile, run, margin)
    report = next((path for path in run.outputs if path.name == "report.html"), None)
    page = report or artifacts_dir(profile.name) / "html" / f"{run.id}.html"
    export_page(executed, page, code=not report)
    absent = [str(path) for path in run.outputs if not path.is_file()]
    if absent:
        raise UserError(f"notebook {run.notebook} ended without writing {', '.join(absent)}")
    mark_done(profile, run, list(runs.values()))
    print(f"[{arguments.step}] done in {clock(time.time() - start)}", flush=True)


def execute(profile: Profile, run: Run, margin: str) -> Path:
    """Execute the notebook of `run` in a kernel of this very Python, its output behind a `margin`;
    return the executed notebook. Raises `UserError` with what went wrong, as the person at the
    terminal needs it."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    executed = artifacts_dir(profile.name) / "notebooks" / f"{run.id}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    # The kernel "python3" is looked up here first, so that one that the user installed elsewhere
    # cannot take its place; the user's IPython start-up files stay out too.
    os.environ["JUPYTER_PATH"] = os.path.join(sys.prefix, "share", "jupyter")
    os.environ["IPYTHONDIR"] = str(artifacts_dir(profile.name) / "ipython")
    try:
        papermill.execute_notebook(
            REPO / "notebooks" / f"{run.notebook}.ipynb",
            executed,
            parameters=run.parameters,
            cwd=ROOT,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            log_output=False,
            stdout_file=Margin(sys.stdout, margin),
            stderr_file=Margin(sys.stdout, margin),
            start_timeout=START_SECONDS,
            iopub_timeout=IOPUB_SECONDS,
            config=Config(
                KernelManager={
                    "transport_encryption": "auto"
                },  # else the kernel warns at every start
                NotebookClient={
                    "extra_arguments": ["--log-level=CRITICAL"]
                },  # and calls its own end an error
            ),
        )
    except papermill.PapermillExecutionError as error:
        raise UserError(
            f"{run.id}: {_cell_error(error, margin)}\n      executed notebook: {executed}"
        ) from None
    except (DeadKernelError, CellTimeoutError) as error:
        reason = (
            "the kernel died, most likely for want of memory"
            if isinstance(error, DeadKernelError)
            else str(error)
        )
        raise UserError(f"{run.id}: {reason}\n      executed notebook: {executed}") from None
    return executed


def _cell_error(error, margin: str) -> str:
    """What a failed cell says: a `UserError` its one line, anything else its last traceback lines
    too."""
    if error.ename == "UserError":
        return error.evalue
    lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
    shown = "\n".join(margin + line for line in lines[-TRACEBACK_LINES:])
    return f"{error.ename} in cell {error.exec_count}: {error.evalue}\n{shown}"


class Margin:
    """A text stream that writes whole lines to `stream` behind a margin. Of a progress bar, which
    rewrites its line with carriage returns, a terminal shows every state and a file the last
    one."""

    def __init__(self, stream, margin: str):
        self.stream, self.margin, self.line, self.live = stream, margin, "", stream.isatty()

    def write(self, text: str) -> None:
        *whole, self.line = (self.line + text.replace("\r\n", "\n")).split("\n")
        for line in whole:
            self._show(line, "\n")
        if self.live and "\r" in self.line:
            self._show(self.line, "")

    def _show(self, line: str, end: str) -> None:
        states = [state for state in line.split("\r") if state.strip()]
        if states or end:
            start = "\r\x1b[K" if self.live else ""
            self.stream.write(f"{start}{self.margin}{states[-1] if states else ''}{end}")

    def flush(self) -> None:
        self.stream.flush()


def clock(seconds: float) -> str:
    """Seconds as 02:13, or 1:02:13 from an hour on."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def _end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, so that a killed run leaves nothing at
    work (the kernel watches this process in the same way)."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    command(main)
