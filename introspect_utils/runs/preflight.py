"""What this machine lacks for runs, looked for before anything starts and said all at once."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from introspect_utils.runs.beside import ARCHIVES, archive
from introspect_utils.runs.cost import Estimate, downloads, estimate, machine_memory
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


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def has_hub_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def is_cached(hub_id: str) -> bool:
    """Whether a model is on this machine already, a folder or fetched before."""
    from huggingface_hub import try_to_load_from_cache

    return Path(hub_id).is_dir() or isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def to_download(profile: Profile, runs: Sequence[Run]) -> dict[str, float]:
    """{name: bytes} of what of the hub is not here."""
    needed = {name: n for run in runs for name, n in downloads(profile, run).items()}
    return {name: n for name, n in needed.items() if not is_cached(name)}


def missing(profile: Profile, runs: Sequence[Run], here: bool = True) -> list[str]:
    """What this machine lacks for these runs, a line for each thing, with what to do about it. Jobs
    of a cluster, which do not run `here`, find their GPUs there."""
    costs = {run.id: cost for run in runs if (cost := estimate(profile, run))}
    new = to_download(profile, runs)
    lines = _disk(costs, sum(new.values())) if costs else []
    if costs and here:
        lines += [*lacking_gpus(costs, runs, profile.source, gpu_memory()), *_memory(costs)]
    gated = sorted(new.keys() & {model.hub for model in MODELS.values() if model.gated})
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
    published = [run for run in runs if run.notebook == PUBLISHED]
    simulated = [run for run in published if TASKS[run.parameters["task"]].simulated]
    paths = [archive(run.settings["published"], data) for run in simulated for data in ARCHIVES]
    if absent := [str(path) for path in paths if not path.is_dir()]:
        lines.append(
            f"archives: there is no {', no '.join(absent)}: unpack there what the README of the "
            "authors' code links to, or name another folder in features.published"
        )
    return lines


def _disk(costs: dict[str, Estimate], new: float) -> list[str]:
    """All that stays, and the most that one run holds besides."""
    needed = sum(cost.disk for cost in costs.values()) + new
    needed, free = needed + max(cost.scratch for cost in costs.values()), free_disk()
    if needed <= free:
        return []
    largest = max(costs, key=lambda run_id: costs[run_id].disk)
    return [
        f"disk: about {gigabytes(needed)} are needed, {gigabytes(free)} are free at {ROOT} (most "
        f"for {largest}, {gigabytes(costs[largest].disk)}): set INTROSPECT_ROOT to a larger disk, "
        "or lower what the profile asks for"
    ]


def lacking_gpus(
    costs: dict[str, Estimate], runs: Sequence[Run], profile: str, gpus: Sequence[float]
) -> list[str]:
    """What of these runs does not fit on `gpus`, the bytes of each. A run uses as many as it trains
    in processes. Parts that do not fit can be left out."""
    largest = max(gpus, default=0)
    over = {i: cost for i, cost in costs.items() if cost.memory > largest or cost.gpus > len(gpus)}
    if not over:
        return []
    worst = max(over, key=lambda run_id: over[run_id].memory * over[run_id].gpus)
    there = f"{len(gpus)} of {gigabytes(largest)}" if gpus else "none"
    parts = sorted({run.parameters["profile"] for run in runs if run.id in over} - {profile})
    mend = "set training.sharded and more processes, gradient_checkpointing: true, a smaller "
    mend += "batch_size or tuning: lora, or name the runs that fit with --until"
    if parts:
        mend = f"leave out what does not fit with --without {' '.join(parts)}, or {mend}"
    return [
        f"GPUs: {there}, and {len(over)} runs need more, {worst} most: {over[worst].gpus} of "
        f"{gigabytes(over[worst].memory)}; {mend}"
    ]


def _memory(costs: dict[str, Estimate]) -> list[str]:
    """The machine's memory: what a cluster is asked for, too."""
    needed, run_id = max((machine_memory(cost), run_id) for run_id, cost in costs.items())
    if needed <= (there := memory()):
        return []
    return [
        f"memory: {gigabytes(there)} are here, and {run_id} needs about {gigabytes(needed)}: name "
        "the runs that fit with --until"
    ]


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.0f} GB"


def shown(cost: Estimate, new: float = 0) -> str:
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
    return Estimate(
        hours=sum(cost.hours for cost in costs),
        memory=max(cost.memory for cost in costs),
        disk=sum(cost.disk for cost in costs),
        dollars=sum(cost.dollars for cost in costs),
        gpus=max(cost.gpus for cost in costs),
    )
