# The runs of a profile as Snakemake rules, started by ./run_all.sh.
# Which runs are due is decided by introspect_utils.runs.due, from records that are committed with the results: Snakemake's own
# memory (.snakemake, file times) is not in a fresh clone, and Snakemake deletes the outputs of a job that fails. So what
# Snakemake sees of a run is one empty ticket, there when the run is not due; results and checkpoints are never its outputs.
# A ticket is named by the run's number: Snakemake reads braces in a path as a pattern.
# A "core" here is a slot for one run; the runs at work share the machine's real cores between them.
import sys
from math import inf
from pathlib import Path

from snakemake.utils import available_cpu_count

from introspect_utils.runs.cost import resources as needed
from introspect_utils.runs.due import due, upstream
from introspect_utils.runs.plan import plan
from introspect_utils.settings.profile import load_profile

PROFILE = load_profile(config["profile"])
RUNS = plan(PROFILE)
DUE = due(PROFILE, forced=config["forced"])


def trained_on(run):  # rows; what reads other runs' results comes with the smallest of them
    return min(other.parameters.get("n_train", inf) for other in [run, *upstream(run, RUNS)])


# Data first, then what trains on most rows, so that no long run is left alone at the end.
ORDER = sorted((run for run in RUNS if run.id in DUE), key=trained_on, reverse=True)
ORDER = [run.id for run in ORDER]
NUMBERS = {run.id: number for number, run in enumerate(RUNS)}
CPUS_PER_RUN = max(1, available_cpu_count() // (workflow.cores or 1))


def ticket(run):  # from the folder that ./run_all.sh names with --directory
    return f"artifacts/{PROFILE.name}/tickets/{NUMBERS[run.id]}"


for run in RUNS if workflow.is_main_process else []:  # a job of a cluster reads this file too
    path = Path(ticket(run))
    path.parent.mkdir(parents=True, exist_ok=True)
    if run.id in DUE:
        path.unlink(missing_ok=True)
    else:
        path.touch()


rule all:
    input:
        [ticket(run) for run in RUNS],


for run in RUNS:

    rule:
        name:
            run.id
        input:
            [ticket(other) for other in upstream(run, RUNS)] if run.id in DUE else [],
        output:
            touch(ticket(run)),
        params:
            python=sys.executable,
            profile=PROFILE.source,
            run=run.id,
            step=f"{ORDER.index(run.id) + 1}/{len(ORDER)}" if run.id in DUE else "1/1",
            cpus=CPUS_PER_RUN,
        resources:
            **needed(PROFILE, run),
        priority: len(ORDER) - ORDER.index(run.id) if run.id in DUE else 0
        message:
            "{rule}"
        shell:
            "export OMP_NUM_THREADS={params.cpus} MKL_NUM_THREADS={params.cpus}; exec {params.python:q} -m"
            " introspect_utils.runs.run_notebook --profile {params.profile:q} --run {params.run:q} --step {params.step} 2>&1"
