"""What this machine lacks for runs, looked for before anything starts and said all at once."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from introspect_utils.runs.beside import ARCHIVES, archive
from introspect_utils.runs.cost import Estimate, downloads, estimate
from introspect_utils.runs.run import PUBLISHED, Run
from introspect_utils.settings.names import MODELS
from introspect_utils.settings.paths import ROOT
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS


def free_disk() -> int:
    """Free bytes where the results are, or will be."""
    return shutil.disk_usage(next(p for p in (ROOT, *ROOT.parents) if p.exists())).free


def gpu_memory() -> list[int]:
    """Bytes of each GPU."""
    from torch import cuda

    return [cuda.get_device_properties(i).total_memory for i in range(cuda.device_count())]


def has_hub_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def is_cached(hub_id: str) -> bool:
    """Whether a model is on this machine already, a folder or fetched before."""
    from huggingface_hub import try_to_load_from_cache

    return Path(hub_id).is_dir() or isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def to_download(profile: Profile, runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """{run id: {name: bytes}}: what of the hub is not here, beside the first run that needs it."""
    seen, new = set(), {}
    for run in runs:
        needed = downloads(profile, run).items()
        new[run.id] = {name: n for name, n in needed if name not in seen and not is_cached(name)}
        seen |= set(new[run.id])
    return new


def missing(profile: Profile, runs: Sequence[Run], here: bool = True) -> list[str]:
    """What this machine lacks for these runs, a line for each thing, with what to do about it. Jobs
    of a cluster, which do not run `here`, find their GPUs there."""
    costs = {run.id: cost for run in runs if (cost := estimate(profile, run))}
    new = {name: n for of_run in to_download(profile, runs).values() for name, n in of_run.items()}
    lines = []
    needed = sum(cost.disk for cost in costs.values()) + sum(new.values())
    needed += max((cost.scratch for cost in costs.values()), default=0)
    if costs and needed > (free := free_disk()):
        largest = max(costs, key=lambda run_id: costs[run_id].disk)
        lines.append(
            f"disk: about {gigabytes(needed)} are needed, {gigabytes(free)} are free at {ROOT} "
            f"(most for {largest}, {gigabytes(costs[largest].disk)}): set INTROSPECT_ROOT to a "
            "larger disk, or lower what the profile asks for"
        )
    lines += _gpus(costs) if costs and here else []
    gated = sorted(set(new) & {model.hub for model in MODELS.values() if model.gated})
    if gated and not has_hub_token():
        lines.append(
            f"hub token: {', '.join(gated)} are gated: accept their licences and set HF_TOKEN"
        )
    paid = {"descriptions": "chat", "judge": "openai"}.items()
    asking = [run.id for run in runs if any(run.settings.get(key) == by for key, by in paid)]
    if asking and not os.environ.get("OPENAI_API_KEY"):
        lines.append(
            f"OpenAI key: {len(asking)} runs ask a chat model, {asking[0]} first: set "
            "OPENAI_API_KEY (and OPENAI_BASE_URL for a server of your own), or take judge: "
            "embedding and descriptions: rules"
        )
    folders = [
        run.settings["published"]
        for run in runs
        if run.notebook == PUBLISHED and TASKS[run.parameters["task"]].simulated
    ]
    paths = [archive(folder, data) for folder in folders for data in ARCHIVES]
    if absent := [str(path) for path in paths if not path.is_dir()]:
        lines.append(
            f"archives: there is no {', no '.join(absent)}: download what the README of the "
            "authors' code links to and unpack it there, or name another folder in "
            "features.published"
        )
    return lines


def _gpus(costs: dict[str, Estimate]) -> list[str]:
    """A run uses as many GPUs as it trains in processes."""
    gpus, most = gpu_memory(), max(cost.gpus for cost in costs.values())
    largest = max(gpus, default=0)
    over = sorted((cost.memory, run_id) for run_id, cost in costs.items() if cost.memory > largest)
    if over:
        has = f"the largest GPU here has {gigabytes(largest)}" if gpus else "there is no GPU here"
        return [
            f"GPU memory: {has}, and {len(over)} runs need more, at most {over[-1][1]} about "
            f"{gigabytes(over[-1][0])}: set training.sharded and more processes, "
            "gradient_checkpointing: true, a smaller batch_size or tuning: lora, or name the runs "
            "that fit with --until"
        ]
    if len(gpus) < most:
        processes = f"some runs train in {most} processes: lower training.processes"
        return [f"GPUs: {len(gpus)} are here, and {processes}"]
    return []


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.0f} GB"


def shown(cost: Estimate, new: float) -> str:
    """An estimate, and bytes to download, as a line for people."""
    each = f" on each of {cost.gpus}" if cost.gpus > 1 else ""
    parts = [f"{cost.hours:,.1f} H100 hours", f"{gigabytes(cost.memory)} of GPU memory{each}"]
    parts += [f"{gigabytes(cost.disk)} of disk"]
    parts += [f"{gigabytes(new)} to download"] if new else []
    if cost.dollars > 0:
        parts.append(f"${cost.dollars:,.2f}")
    elif cost.dollars != 0:
        parts.append("a chat model whose price is not known here")
    return "about " + ", ".join(parts)


def total(costs: Sequence[Estimate]) -> Estimate:
    """One run after the other: hours, disk and dollars of all, the rest of the largest."""
    columns = zip(*map(astuple, costs), strict=True)
    ways = (sum, max, sum, max, sum, max)
    return Estimate(*(way(column) for way, column in zip(ways, columns, strict=True)))
