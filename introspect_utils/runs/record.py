"""What made a number: commit, versions, machine, time, memory and settings, as `run.json` holds
them."""

import dataclasses
import platform
import resource
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from introspect_utils.explainer.gates import check_checkpoint
from introspect_utils.settings.paths import REPO, ROOT
from introspect_utils.settings.profile import Profile

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "scikit-learn",
)  # what the numbers depend on


def commit() -> str:
    """The commit of the code, with "+" where the working tree differs from it; "unknown" outside a
    git checkout."""
    git = ["git", "-C", str(REPO)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    code = ["introspect_utils", "notebooks", "params"]
    changed = subprocess.run([*git, "status", "--porcelain", *code], capture_output=True, text=True)
    return (
        head.stdout.strip() + "+" * bool(changed.stdout.strip())
        if head.returncode == 0
        else "unknown"
    )


def peak_memory_mb() -> int:
    """The most resident memory this process has had."""
    unit = 1024**2 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def device_name(device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def run_record(
    run_id: str, profile: Profile, device, checkpoint: Path | None = None, **fields
) -> dict:
    """A `run.json`: the fields given, and what made them. Raises `UserError` when the checkpoint is
    not the one of the hash."""
    if checkpoint:
        check_checkpoint(checkpoint, fields["checkpoint_sha256"])
    return {
        "id": run_id,
        "checkpoint": str(checkpoint.relative_to(ROOT)) if checkpoint else None,
        "commit": commit(),
        "device": device_name(device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_memory_mb": peak_memory_mb(),
        "settings": dataclasses.asdict(profile),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        **fields,
    }
