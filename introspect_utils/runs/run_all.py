"""All runs of a profile, in order, skipping what is done: `./run_all.sh [PROFILE] [extra Snakemake
arguments]`."""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from introspect_utils.runs.cost import estimate
from introspect_utils.runs.due import ASKED, due, upstream
from introspect_utils.runs.export import export_page
from introspect_utils.runs.options import chosen_parts, described_gpus, snakemake_options
from introspect_utils.runs.plan import asset_names, find_run, plan
from introspect_utils.runs.preflight import lacking_gpus, missing, shown, to_download, total
from introspect_utils.runs.pretrained import restore
from introspect_utils.runs.run import Run
from introspect_utils.runs.run_notebook import clock
from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.paths import REPO, ROOT, artifacts_dir
from introspect_utils.settings.profile import Profile, load_profile

LOCK_WAIT = 10  # seconds; what a killed run left behind is gone by then
USAGE = (
    "usage: ./run_all.sh [PROFILE] [--with PART ...] [--without PART ...] [extra Snakemake "
    "arguments, e.g. --dry-run, --jobs 2, --forcerun RUN]\n"
    "       ./run_all.sh PROFILE --dry-run --gpus 2x80    plan for two GPUs of 80 GB elsewhere"
)


def main() -> int:
    arguments = sys.argv[1:]
    named = arguments and not arguments[0].startswith("-")
    name, *extra = arguments if named else ["mini", *arguments]
    if {"-h", "--help"} & set(extra):
        print(USAGE)
        return 0
    profile = load_profile(name)
    if profile.source.startswith(f"{profile.name}/"):
        raise UserError(
            f"{profile.source} is a part of the profile {profile.name}: run that, with --until for "
            "some of its runs"
        )
    profile, extra = chosen_parts(profile, extra)
    gpus, extra = described_gpus(extra)
    options, runs = snakemake_options(extra), plan(profile)
    if gpus and not options.dryrun:
        raise UserError("--gpus describes another machine: use it with --dry-run")
    known = [run.id for run in runs]
    for run_id in {*options.forcerun, *options.until, *options.omit_from, *options.targets}:
        find_run(run_id, runs, profile)
    forced = known if options.forceall else options.forcerun
    restore(profile)
    if options.dryrun:
        return dry_run(profile, due(profile, forced), options, gpus)
    if not starting(due(profile, forced), options, runs):
        everything = f"Profile {profile.name}: all {len(runs)} runs are up to date, nothing to do."
        print(f"{everything} Results: {_short(runs[-1].outputs[0])}")
        return 0
    with only_one(profile):
        return run(profile, due(profile, forced), options, extra)


def starting(reasons: dict[str, str], options: argparse.Namespace, runs: list[Run]) -> list[Run]:
    """The due runs that Snakemake's --until, --omit-from and targets leave."""
    wanted = {*options.until, *options.targets} or {run.id for run in runs}
    for run in reversed(runs):
        if run.id in wanted:
            wanted |= {other.id for other in upstream(run, runs)}
    omitted = set(options.omit_from)
    for run in runs:
        if any(other.id in omitted for other in upstream(run, runs)):
            omitted.add(run.id)
    return [run for run in runs if run.id in reasons and run.id in wanted - omitted]


def dry_run(
    profile: Profile, reasons: dict[str, str], options: argparse.Namespace, gpus: list[float]
) -> int:
    """List the runs, which of them would start and why, and what they take by estimate; whether
    `gpus` elsewhere are enough, if some are described."""
    runs = plan(profile)
    to_do = starting(reasons, options, runs)
    costs = {run.id: cost for run in to_do if (cost := estimate(profile, run))}
    print(f"Profile {profile.name}: {len(runs)} runs, {len(to_do)} to do")
    for number, run in enumerate(runs, 1):
        state = "up to date"
        if run.id in reasons:
            state = f"to do: {reasons[run.id]}" if run in to_do else "left out"
        print(f"{number:4}  {run.id:<64}  {state}")
        if run.id in costs:
            print(f"      {shown(costs[run.id])}")
    if costs:
        together = shown(total(costs.values()), sum(to_download(profile, to_do).values()))
        print(f"All together {together}: none of it measured (introspect_utils/runs/cost.py).")
    if gpus:
        lines = lacking_gpus(costs, to_do, profile.source, gpus)
        print(*lines or ["GPUs: enough for every run"])
        return 0
    for line in missing(profile, to_do, here=options.executor in (None, "local")):
        print(f"Missing here: {line}")
    return 0


def run(
    profile: Profile, reasons: dict[str, str], options: argparse.Namespace, extra: list[str]
) -> int:
    """Fetch what the due runs need, run them, and say where the tables and figures are."""
    start, runs = time.time(), plan(profile)
    os.environ["INTROSPECT_STARTED"] = str(start)
    print(f"Profile {profile.name}: {len(runs)} runs, {len(reasons)} to do", flush=True)
    to_do = starting(reasons, options, runs)
    if lacking := missing(profile, to_do, here=options.executor in (None, "local")):
        lines = "".join(f"\n  {line}" for line in lacking)
        raise UserError(f"profile {profile.name} cannot be run here:{lines}")
    if names := asset_names(to_do):
        fetch = [sys.executable, "-m", "introspect_utils.data.assets", *names]
        if subprocess.run(fetch).returncode:
            return 1  # it has said why
    status, log = snakemake(profile, reasons, options, extra)
    text = log.read_text(encoding="utf-8")
    if "Terminating processes on user request" in text:
        raise UserError(
            "interrupted. Finished runs are kept, and the one at work has its checkpoints: start "
            "./run_all.sh again"
        )
    if status:
        failed = list(dict.fromkeys(re.findall(r"^Error in rule (.+):$", text, re.MULTILINE)))
        last = "".join(f"\n  {line}" for line in text.strip().splitlines()[-15:])
        raise UserError(
            f"failed: {', '.join(failed)} (see above). Finished runs are kept: start ./run_all.sh "
            f"again when the cause is mended. Snakemake's log: {_short(log)}"
            if failed
            else f"Snakemake stopped:{last}\n  its log: {_short(log)}"
        )
    left = due(profile)
    tables, done = runs[-1], len(runs) - len(left)
    if tables.id in left and done:  # some runs were left out
        line = f"-m introspect_utils.runs.run_notebook --run {tables.id} --so-far --profile"
        if subprocess.run([sys.executable, *line.split(), profile.source]).returncode:
            return 1
    export_pages(profile)
    print(f"Finished in {clock(time.time() - start)}. Tables and figures", end="")
    print(f" of the {done} of {len(runs)} runs that are done:" if left else ":")
    print(*(f"  {_short(path)}" for path in tables.outputs if path.is_file()), sep="\n")
    print(f"Executed notebooks: {_short(artifacts_dir(profile.name) / 'notebooks')}")
    return 0


def export_pages(profile: Profile) -> None:
    """The executed notebooks as pages, those without one that is newer: here and not by each run,
    for to load what writes them takes seconds."""
    artifacts = artifacts_dir(profile.name)
    for executed in sorted((artifacts / "notebooks").glob("*.ipynb")):
        page = artifacts / "html" / f"{executed.stem}.html"
        if not page.is_file() or page.stat().st_mtime_ns < executed.stat().st_mtime_ns:
            export_page(executed, page)


def snakemake(
    profile: Profile, reasons: dict[str, str], options: argparse.Namespace, extra: list[str]
) -> tuple[int, Path]:
    """Run Snakemake in this process, its own words going to a log file; return its exit status and
    the log. The notebooks' words, printed by processes of their own, go to the terminal."""
    from snakemake.cli import main as snakemake_main

    log = artifacts_dir(profile.name) / "logs" / f"{datetime.now():%Y-%m-%dT%H%M%S}.snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    forced = [run_id for run_id, reason in reasons.items() if reason == ASKED]
    slots = [] if options.jobs or options.cores else ["--cores", str(at_once(profile))]
    # As a file: on the command line Snakemake reads braces and quotes in a path as YAML.
    config = artifacts_dir(profile.name) / "snakemake.json"
    config.write_text(json.dumps({"profile": profile.source, "forced": forced}), encoding="utf-8")
    fixed = ["--snakefile", str(REPO / "Snakefile"), "--directory", str(ROOT)]
    fixed += ["--configfile", str(config), "--rerun-triggers", "mtime", "--rerun-incomplete"]
    fixed += ["--scheduler", "greedy", *slots, "--nolock"]
    with log.open("w", encoding="utf-8") as file, _stderr_to(file):
        try:
            snakemake_main([*fixed, *extra])
        except SystemExit as end:
            return int(end.code or 0), log
    return 0, log


def at_once(profile: Profile) -> int:
    """How many runs work at the same time unless the user says it: one if they use a GPU. On a CPU
    two small runs with half of the cores each are done sooner than one after the other."""
    on_gpu = profile.device == "cuda" or (profile.device == "auto" and shutil.which("nvidia-smi"))
    return 1 if on_gpu else min(2, os.cpu_count() or 1)


@contextlib.contextmanager
def _stderr_to(file) -> Iterator[None]:
    """Send stderr, of Python and of everything it starts, to `file`."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def only_one(profile: Profile) -> Iterator[None]:
    """Hold the profile's lock, which ends with this process however that ends. Raises `UserError`
    if another holds it, or if the file system has no locks."""
    path = artifacts_dir(profile.name) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=LOCK_WAIT)
    except Timeout:
        raise UserError(
            f"profile {profile.name} is being run by another process already: wait for it to end"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"cannot lock {path} ({error}), so two starts could write the same files: set "
            "INTROSPECT_ROOT to a folder on a local disk"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    command(main)
