"""What a real run would lack on this machine, looked for before anything starts and said all at
once."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from introspect_utils.runs.cost import Estimate, downloads, estimate
from introspect_utils.runs.feature_runs import ARCHIVES, archive
from introspect_utils.runs.run import PUBLISHED, Run
from introspect_utils.settings.names import MODELS
from introspect_utils.settings.paths import ROOT
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS


def free_disk(path: Path) -> int:
    """Free bytes where `path` is, or will be."""
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def gpu_memory() -> list[int]:
    """Bytes of each GPU."""
    import torch

    return [
        torch.cuda.get_device_properties(number).total_memory
        for number in range(torch.cuda.device_count())
    ]


def has_hub_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def is_cached(hub_id: str) -> bool:
    """Whether a model is on this machine already, a folder or fetched before."""
    from huggingface_hub import try_to_load_from_cache

    return Path(hub_id).is_dir() or isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def has_openai_key() -> bool:
    return bool(os.environ.get("OPENAI_API_KEY"))


def to_download(profile: Profile, runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """{run id: {name: bytes}}: what of the hub is not here yet, beside the first run that needs
    it."""
    seen, found = set(), {}
    for run in runs:
        wanted = {
            name: size
            for name, size in downloads(profile, run).items()
            if name not in seen and not is_cached(name)
        }
        seen |= set(wanted)
        found[run.id] = wanted
    return found


def missing(profile: Profile, runs: Sequence[Run], here: bool = True) -> list[str]:
    """What this machine lacks for these runs, a line for each thing, with what to do about it.

    Runs that are not to be `here` but jobs of a cluster find their GPUs there.
    """
    estimates = {run.id: made for run in runs if (made := estimate(profile, run))}
    new = to_download(profile, runs)
    lines = (
        _disk(estimates, new),
        _gpu(estimates) if here else None,
        _token(new),
        _chat(runs),
        _archives(runs),
    )
    return [line for line in lines if line]


def _disk(estimates: dict[str, Estimate], new: dict[str, dict[str, float]]) -> str | None:
    """Results and downloads are taken to be on one disk, that of the results."""
    stays = sum(made.disk for made in estimates.values()) + sum(
        size for wanted in new.values() for size in wanted.values()
    )
    needed = stays + max((made.scratch for made in estimates.values()), default=0)
    if not estimates or needed <= (free := free_disk(ROOT)):
        return None
    largest = max(estimates, key=lambda run_id: estimates[run_id].disk)
    return (
        f"disk: about {gigabytes(needed)} are needed, {gigabytes(free)} are free at {ROOT} (most "
        f"for {largest}, "
        f"{gigabytes(estimates[largest].disk)}): set INTROSPECT_ROOT to a larger disk, or lower "
        "what the profile asks for"
    )


def _gpu(estimates: dict[str, Estimate]) -> str | None:
    """A run uses as many GPUs as it trains in processes."""
    gpus = gpu_memory() if estimates else []
    largest, most = max(gpus, default=0), max((made.gpus for made in estimates.values()), default=0)
    over = sorted(
        (made.memory, run_id) for run_id, made in estimates.items() if made.memory > largest
    )
    if not over and len(gpus) >= most:
        return None
    if not over:
        return f"GPUs: {len(gpus)} are here, and some runs train in {most} processes: lower training.processes"
    there = f"the largest GPU here has {gigabytes(largest)}" if largest else "there is no GPU here"
    return (
        f"GPU memory: {there}, and {len(over)} runs need more: {over[0][1]} about "
        f"{gigabytes(over[0][0])}, ..., {over[-1][1]} "
        f"about {gigabytes(over[-1][0])}: set training.sharded and more processes, "
        "gradient_checkpointing: true, a smaller "
        "batch_size or tuning: lora, or name the runs that fit with --until"
    )


def _token(new: dict[str, dict[str, float]]) -> str | None:
    gated = {spec.hub for spec in MODELS.values() if spec.gated}
    asked = sorted({name for wanted in new.values() for name in wanted if name in gated})
    if not asked or has_hub_token():
        return None
    return f"hub token: {', '.join(asked)} are gated: accept their licences on the hub and set HF_TOKEN"


def _chat(runs: Sequence[Run]) -> str | None:
    asking = [
        run.id
        for run in runs
        if run.settings.get("descriptions") == "chat" or run.settings.get("judge") == "openai"
    ]
    if not asking or has_openai_key():
        return None
    return (
        f"OpenAI key: {len(asking)} runs ask a chat model, {asking[0]} first: set OPENAI_API_KEY "
        "(and OPENAI_BASE_URL for a "
        "server of your own), or take judge: embedding and descriptions: rules"
    )


def _archives(runs: Sequence[Run]) -> str | None:
    read = [
        run.settings["published"]
        for run in runs
        if run.notebook == PUBLISHED and TASKS[run.parameters["task"]].simulated
    ]
    paths = [archive(folder, data) for folder in read for data in ARCHIVES]
    absent = [str(path) for path in paths if not path.is_dir()]
    if not absent:
        return None
    return (
        f"archives: there is no {', no '.join(absent)}: download what the README of the authors' "
        "code links to, and unpack it "
        "there, or name another folder in features.published"
    )


def gigabytes(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:,.0f} GB"


def shown(made: Estimate, new: dict[str, float]) -> str:
    """An estimate, and what its run downloads, as a line for people."""
    memory = f"{gigabytes(made.memory)} of GPU memory" + (
        f" on each of {made.gpus}" if made.gpus > 1 else ""
    )
    parts = [f"{made.hours:,.1f} H100 hours", memory, f"{gigabytes(made.disk)} of disk"]
    if new:
        parts.append(f"{gigabytes(sum(new.values()))} to download")
    if made.dollars:  # nan too
        parts.append(
            f"${made.dollars:,.2f}"
            if made.dollars == made.dollars
            else "a chat model whose price is not known here"
        )
    return "about " + ", ".join(parts)


def total(made: Sequence[Estimate]) -> Estimate:
    """One run after the other: the hours, disk and dollars of all, the memory and scratch of the
    largest."""
    return Estimate(
        sum(each.hours for each in made),
        max(each.memory for each in made),
        sum(each.disk for each in made),
        max(each.scratch for each in made),
        sum(each.dollars for each in made),
        max(each.gpus for each in made),
    )
