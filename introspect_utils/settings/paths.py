"""Where things are. Everything a run writes lies under `ROOT`; what the package only reads lies
under `REPO`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from introspect_utils.settings.errors import UserError

REPO = Path(__file__).resolve().parent.parent.parent  # notebooks/, params/, Snakefile
ROOT = Path(os.environ.get("INTROSPECT_ROOT", REPO)).resolve()  # artifacts/, figures/
ASSET_CACHE = Path(
    os.environ.get("INTROSPECT_CACHE", Path.home() / ".cache" / "introspect_utils")
).resolve()
MEANS = "means.safetensors"  # of the layers, beside the residuals that are stored


def artifacts_dir(profile: str) -> Path:
    """Heavy, git-ignored results of a profile: data, checkpoints, executed notebooks, logs."""
    return ROOT / "artifacts" / profile


def figures_dir(profile: str) -> Path:
    """Small results of a profile, committed for the reference profiles: tables, figures,
    `results.json`."""
    return ROOT / "figures" / profile


def run_dir(profile: str, run_id: str) -> Path:
    """Small results of one run: `run.json` (written last, so it means "finished") and
    `predictions.parquet`."""
    return figures_dir(profile) / "runs" / run_id


@contextmanager
def opened(path: Path, maker: str) -> Iterator:
    """A safetensors file, read lazily. Raises `UserError` naming its `maker` when it is missing or
    damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path} is missing: {maker} makes it")
    try:
        with safe_open(path, "pt") as saved:
            yield saved
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run {maker} again") from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; put in its place when the block ends well, and
    removed when it does not.

    So a file is there whole or not at all, whatever interrupts its writing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
