"""Where things are. Everything a run writes lies under `ROOT`; what the package only reads lies under `REPO`."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent  # notebooks/, params/, Snakefile
ROOT = Path(os.environ.get("INTROSPECT_ROOT", REPO)).resolve()  # artifacts/, figures/
ASSET_CACHE = Path(os.environ.get("INTROSPECT_CACHE", Path.home() / ".cache" / "introspect_utils")).resolve()


def artifacts_dir(profile: str) -> Path:
    """Heavy, git-ignored results of a profile: data, checkpoints, executed notebooks, logs."""
    return ROOT / "artifacts" / profile


def figures_dir(profile: str) -> Path:
    """Small results of a profile, committed for the reference profiles: tables, figures, `results.json`."""
    return ROOT / "figures" / profile


def run_dir(profile: str, run_id: str) -> Path:
    """Small results of one run: `run.json` (written last, so it means "finished") and `predictions.parquet`."""
    return figures_dir(profile) / "runs" / run_id
