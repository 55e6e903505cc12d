"""Execute one run's notebook: `python -m introspect_utils.runs.run_notebook --profile mini --run
tables`.

Prints the notebook's output as it comes. The executed notebook is kept as
artifacts/<profile>/notebooks/<run id>.ipynb.
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

from introspect_utils.runs.due import made_from, mark_done, mark_unfinished
from introspect_utils.runs.export import export_page
from introspect_utils.runs.plan import find_run, plan
from introspect_utils.runs.run import Run
from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.paths import REPO, ROOT, artifacts_dir
from introspect_utils.settings.profile import Profile, load_profile

TRACEBACK_LINES = 12
IOPUB_SECONDS = 600  # a cell may be busy in one call for long before its outputs can be read
START_SECONDS = 180  # of a kernel, on a slow disk


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m introspect_utils.runs.run_notebook")
    parser.add_argument("--profile", required=True, help="name of a profile, or a .yaml file")
    parser.add_argument("--run", required=True, help="as listed by ./run_all.sh PROFILE --dry-run")
    parser.add_argument("--step", default="1/1", help="which run of how many this is")
    parser.add_argument(
        "--so-far", action="store_true", help="of tables: of the runs that are done"
    )
    arguments = parser.parse_args()
    profile, step = load_profile(arguments.profile), arguments.step
    runs = plan(profile)
    run = find_run(arguments.run, runs, profile)
    # Ctrl-C ends it at once, and the kernel with it.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    start = time.time()
    elapsed = start - float(os.environ.get("INTROSPECT_STARTED", start))
    print(f"[{step}] {run.id}   (elapsed {clock(elapsed)}{left(elapsed, step)})", flush=True)
    made = made_from(run, runs)
    mark_unfinished(profile, run)
    before = {path: path.stat().st_mtime_ns for path in run.outputs if path.is_file()}
    executed = execute(profile, run, margin=f"{step.partition('/')[0]:>5} | ")
    if report := next((path for path in run.outputs if path.name == "report.html"), None):
        export_page(executed, report, code=False)
    if not arguments.so_far:
        check_written(profile, run, before)
        mark_done(profile, run, made)
    print(f"[{step}] done in {clock(time.time() - start)}", flush=True)


def left(elapsed: float, step: str) -> str:
    """About how long all runs will still take, if those to come take as long as those before."""
    number, _, of = step.partition("/")
    done, to_come = int(number) - 1, int(of) - int(number) + 1
    return f", about {elapsed * to_come / done / 60:.0f} min left" if done and elapsed > 60 else ""


def check_written(profile: Profile, run: Run, before: dict[Path, int]) -> None:
    """This execution has written every output. A checkpoint may be older: an interrupted run goes
    on from it, and `run.json` holds its hash. Raises `UserError` naming those that are not."""
    kept, absent = artifacts_dir(profile.name) / "checkpoints", []
    for path in run.outputs:
        old = path.is_file() and path.stat().st_mtime_ns == before.get(path)
        if not path.is_file() or (old and not path.is_relative_to(kept)):
            absent.append(str(path))
    if absent:
        raise UserError(
            f"notebook {run.notebook} ended without writing {', '.join(absent)}: does a cell end "
            "it early?"
        )


def execute(profile: Profile, run: Run, margin: str) -> Path:
    """Execute the notebook of `run` in a kernel of this very Python, its output behind a `margin`;
    return the executed notebook. Raises `UserError` with what went wrong."""
    # jsonschema's checker of IRIs takes three seconds to load, and a notebook has none.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    executed = artifacts_dir(profile.name) / "notebooks" / f"{run.id}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    # A kernel "python3" that the user installed elsewhere must not take this one's place, and the
    # user's IPython start-up files stay out too.
    os.environ["JUPYTER_PATH"] = os.path.join(sys.prefix, "share", "jupyter")
    os.environ["IPYTHONDIR"] = str(artifacts_dir(profile.name) / "ipython")
    try:
        papermill.execute_notebook(
            _braces(REPO / "notebooks" / f"{run.notebook}.ipynb"),
            _braces(executed),
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
            config=Config(  # without these the kernel warns at its start and calls its end an error
                KernelManager={"transport_encryption": "auto"},
                NotebookClient={"extra_arguments": ["--log-level=CRITICAL"]},
            ),
        )
    except papermill.PapermillExecutionError as error:
        reason = _cell_error(error, margin)
    except DeadKernelError:
        reason = "the kernel died, most likely for want of memory"
    except CellTimeoutError as error:
        reason = str(error)
    else:
        return executed
    raise UserError(f"{run.id}: {reason}\n      executed notebook: {executed}")


def _braces(path: Path) -> str:
    """A path as papermill takes it, which formats it."""
    return str(path).replace("{", "{{").replace("}", "}}")


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
    """End this process, and with it the kernel, when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    command(main)
