"""`results.json`, the one flat list of records that every table is drawn from."""

import json

from introspect_utils.report.records import records
from introspect_utils.runs.record import read_runs
from introspect_utils.settings.paths import figures_dir, replaced
from introspect_utils.settings.profile import load_profile


def write_results(profile: str) -> list[dict]:
    """Write `results.json` of a profile (name or .yaml file) from its finished runs; same runs,
    same bytes. Returns it."""
    found = records(read_runs(profile))
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    with replaced(figures_dir(load_profile(profile).name) / "results.json") as path:
        path.write_text(text)
    return found


def read_results(profile: str) -> list[dict]:
    """The records of `figures/<profile>/results.json`."""
    return json.loads((figures_dir(load_profile(profile).name) / "results.json").read_text())
