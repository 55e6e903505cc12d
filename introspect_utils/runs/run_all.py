"""All runs of a profile, in order, skipping what is done: `./run_all.sh [PROFILE] [extra Snakemake
arguments]`."""

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from introspect_utils.runs.cost import estimate
from introspect_utils.runs.due import ASKED, due, upstream
from introspect_utils.runs.plan import asset_names, plan
from introspect_utils.runs.preflight import missing, shown, to_download, total
from introspect_utils.runs.run import Run
from introspect_utils.runs.run_notebook import clock
from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.paths import REPO, ROOT, artifacts_dir
from introspect_utils.settings.profile import Profile, load_profile

LOCK_WAIT = 10  # seconds; what a killed run left behind is gone by then


def main() -> int:
    name, *extra = (
        sys.argv[1:]
        if sys.argv[1:] and not sys.argv[1].startswith("-")
        else ["mini", *sys.argv[1:]]
    )
    if {"-h", "--help"} & set(extra):
        print(
            "usage: ./run_all.sh [PROFILE] [extra Snakemake arguments, e.g. --dry-run, --jobs 2, "
            "--forcerun RUN]"
        )
        return 0
    profile = load_profile(name)
    if profile.source.startswith(f"{profile.name}/"):
        raise UserError(
            f"{profile.source} is a part of the profile {profile.name}: run that, with --until for "
            "some of its runs"
        )
    options = snakemake_options(extra)
    forced = {run.id for run in plan(profile)} if options.forceall else options.forcerun
    if options.dryrun:
        return dry_run(profile, due(profile, forced), extra)
    if not extra and not due(profile):
        print(up_to_date(profile))
        return 0
    with only_one(profile):
        return run(profile, due(profile, forced), extra)


def snakemake_options(extra: list[str]) -> argparse.Namespace:
    """The extra arguments as Snakemake reads them. Raises `UserError` for one that it does not
    know."""
    from snakemake.cli import get_argument_parser

    def refuse(message: str):
        raise UserError(f"{message} (extra arguments go to Snakemake)")

    parser = get_argument_parser()
    parser.error = refuse
    options = parser.parse_args(extra)
    if options.profile:  # a folder with a config.yaml of such arguments
        parser = get_argument_parser(options.profile)
        parser.error = refuse
        options = parser.parse_args(extra)
    return options


def up_to_date(profile: Profile) -> str:
    runs = plan(profile)
    return f"Profile {profile.name}: all {len(runs)} runs are up to date, nothing to do. Results: {_short(runs[-1].outputs[0])}"


def dry_run(profile: Profile, reasons: dict[str, str], extra: list[str]) -> int:
    """List the runs, and which of them Snakemake would start."""
    status, log = snakemake(profile, reasons, extra)
    text = log.read_text(encoding="utf-8")
    if status:
        raise UserError(f"Snakemake stopped:\n{_tail(text)}")
    starting = re.findall(r"^Job \d+: (\S+)$", text, re.MULTILINE)
    runs = plan(profile)
    to_do = [each for each in runs if each.id in starting]
    estimates, new = (
        {each.id: estimate(profile, each) for each in to_do},
        to_download(profile, to_do),
    )
    print(f"Profile {profile.name}: {len(runs)} runs, {len(starting)} to do")
    for number, each in enumerate(runs, 1):
        state = f"to do: {reasons[each.id]}" if each.id in starting else "up to date"
        print(f"{number:4}  {each.id:<64}  {state}")
        if estimates.get(each.id):
            print(f"      {shown(estimates[each.id], new[each.id])}")
    made = list(filter(None, estimates.values()))
    if made:
        everything = {name: size for wanted in new.values() for name, size in wanted.items()}
        print(
            f"All together {shown(total(made), everything)}: estimates, none measured "
            "(introspect_utils/runs/cost.py)."
        )
    for line in missing(profile, to_do, snakemake_options(extra).executor in (None, "local")):
        print(f"Missing here: {line}")
    return 0


def run(profile: Profile, reasons: dict[str, str], extra: list[str]) -> int:
    """Fetch what the due runs need, run them, and say where the tables and figures are."""
    start = time.time()
    os.environ["INTROSPECT_STARTED"] = str(start)
    runs = plan(profile)
    print(f"Profile {profile.name}: {len(runs)} runs, {len(reasons)} to do", flush=True)
    starting = [
        each
        for each in runs
        if each.id in upstream_of(snakemake_options(extra).until, runs) and each.id in reasons
    ]
    lacking = missing(profile, starting, snakemake_options(extra).executor in (None, "local"))
    if lacking:
        raise UserError(
            f"profile {profile.name} cannot be run here:"
            + "".join(f"\n  {line}" for line in lacking)
        )
    names = asset_names([each for each in runs if each.id in reasons])
    if (
        names
        and subprocess.run(
            [sys.executable, "-m", "introspect_utils.data.assets", *names]
        ).returncode
    ):
        return 1  # it has said why
    status, log = snakemake(profile, reasons, extra)
    text = log.read_text(encoding="utf-8")
    if "Terminating processes on user request" in text:
        raise UserError(
            "interrupted. Finished runs are kept, and the one at work has its checkpoints: start "
            "./run_all.sh again"
        )
    if status:
        failed = list(dict.fromkeys(re.findall(r"^Error in rule (.+):$", text, re.MULTILINE)))
        if not failed:
            raise UserError(f"Snakemake stopped:\n{_tail(text)}\n  its log: {_short(log)}")
        raise UserError(
            f"failed: {', '.join(failed)} (see above). Finished runs are kept: start ./run_all.sh "
            "again when the cause is "
            f"mended. Snakemake's log: {_short(log)}"
        )
    if "Nothing to be done" in text:
        print(up_to_date(profile))
        return 0
    print(f"Finished in {clock(time.time() - start)}. Tables and figures:")
    for path in runs[-1].outputs:
        print(f"  {_short(path)}")
    print(f"Executed notebooks: {_short(artifacts_dir(profile.name) / 'notebooks')}")
    return 0


def upstream_of(until: Collection[str], runs: list[Run]) -> set[str]:
    """The runs named by --until, and those that they need; all where none is named."""
    chosen = set(until) or {each.id for each in runs}
    for each in reversed(runs):
        if each.id in chosen:
            chosen |= {other.id for other in upstream(each, runs)}
    return chosen


def snakemake(profile: Profile, reasons: dict[str, str], extra: list[str]) -> tuple[int, Path]:
    """Run Snakemake in this process, its own words going to a log file; return its exit status and
    the log. The notebooks' words, printed by processes of their own, go to the terminal."""
    from snakemake.cli import main as snakemake_main

    options = snakemake_options(extra)
    log = artifacts_dir(profile.name) / "logs" / f"{datetime.now():%Y-%m-%dT%H%M%S}.snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    forced = ",".join(run_id for run_id, reason in reasons.items() if reason == ASKED)
    slots = [] if options.jobs or options.cores else ["--cores", str(at_once(profile))]
    fixed = ["--snakefile", str(REPO / "Snakefile"), "--directory", str(ROOT)]
    fixed += [
        "--config",
        f"profile={profile.source}",
        f"forced={forced}",
        "--rerun-triggers",
        "mtime",
        "--rerun-incomplete",
    ]
    fixed += ["--scheduler", "greedy", *slots, "--nolock"]
    with log.open("w", encoding="utf-8") as file, _sent_to(file, [1, 2] if options.dryrun else [2]):
        try:
            snakemake_main([*fixed, *extra])
        except SystemExit as end:
            return int(end.code or 0), log
    return 0, log


def at_once(profile: Profile) -> int:
    """How many runs work at the same time where the user does not say: one has a GPU to itself; of
    a small model on a CPU, two runs with half of the cores each are done sooner than one after the
    other with all."""
    on_gpu = profile.device == "cuda" or (profile.device == "auto" and shutil.which("nvidia-smi"))
    return 1 if on_gpu else min(2, os.cpu_count() or 1)


@contextlib.contextmanager
def _sent_to(file, descriptors: list[int]) -> Iterator[None]:
    """Send stdout (1) or stderr (2), of Python and of everything it starts, to `file`."""
    sys.stdout.flush()
    kept = {number: os.dup(number) for number in descriptors}
    for number in descriptors:
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def only_one(profile: Profile) -> Iterator[None]:
    """Hold the profile's lock, which ends with this process however that ends. Raises `UserError`
    if another holds it."""
    path = artifacts_dir(profile.name) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        for attempt in range(LOCK_WAIT + 1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if attempt == LOCK_WAIT:
                    file.seek(0)
                    raise UserError(
                        f"profile {profile.name} is being run by process {file.read().strip()} "
                        "already; wait for it to end"
                    ) from None
                time.sleep(1)
        file.seek(0)
        file.truncate()
        print(os.getpid(), file=file, flush=True)
        yield


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _tail(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-15:])


if __name__ == "__main__":
    command(main)
