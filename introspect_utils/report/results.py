"""`results.json`, the one flat list of records that every table is drawn from."""

import json

import pandas as pd

from introspect_utils.report.records import records
from introspect_utils.runs.record import read_runs
from introspect_utils.settings.paths import figures_dir, replaced
from introspect_utils.settings.profile import load_profile


def results(profile: str) -> list[dict]:
    """The records of the finished runs of a profile (name or .yaml file)."""
    runs, folder = read_runs(profile), figures_dir(load_profile(profile).name)
    files = {folder / "runs" / run["id"] / "descriptions.parquet": run["target"] for run, _ in runs}
    described = {target: pd.read_parquet(f) for f, target in files.items() if f.exists()}
    return records(runs, described)


def write_results(profile: str) -> list[dict]:
    """Write `results.json` of a profile, a record a line; same runs, same bytes. Returns it."""
    found = results(profile)
    lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in found]
    with replaced(figures_dir(load_profile(profile).name) / "results.json") as path:
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return found


def read_results(profile: str) -> list[dict]:
    """The records of `figures/<profile>/results.json`."""
    path = figures_dir(load_profile(profile).name) / "results.json"
    return json.loads(path.read_text("utf-8"))
