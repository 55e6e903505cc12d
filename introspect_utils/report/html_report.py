"""The report of a profile: one HTML page that holds all of it and asks the network for nothing.

The page is made from what the runs recorded, never from the moment of rendering: same runs, same
bytes. Everything that a model wrote is escaped, and the page's own policy lets no script run and
nothing be fetched.
"""

import base64
import os
import re
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from introspect_utils.report.claims import CLAIMS
from introspect_utils.report.table import Score, Table
from introspect_utils.report.table_rows import self_explained
from introspect_utils.runs.plan import plan
from introspect_utils.runs.run_notebook import clock
from introspect_utils.settings.paths import REPO, artifacts_dir, figures_dir, replaced
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS

N_PREDICTIONS = 20
NUMBERS = re.compile(r"[-+\d.,e/– ]+")
CAPTIONS = {  # what each figure shows, for those who see it and for those who do not
    "figure_1": "Figure 1: the questions of the three tasks, each on one test row: what the procedure T finds in the target, and "
    "what the self-explainer says. The rows are chosen to be clear, not to be typical; the tables "
    "have the scores.",
    "figure_2": "Figure 2: a feature of the target, where it is active, the description that the simulator chooses, and the one "
    "that the self-explainer gives when the feature is put in the place of a token.",
    "figure_3": "Figure 3: an activation of the run on one sentence is put into the run on another, the target's answer changes, "
    "and the self-explainer says how.",
    "figure_4": "Figure 4: a question with and without a hint, the target's answers, and what the self-explainer says of them.",
    "figure_features": "Tables 1 and 4 as dots with 95% intervals: how well each explainer describes features, by judge and by "
    "simulator; diamonds are the paper's.",
    "figure_5": "Figure 5: the judge's scores of each explainer against the number of training directions of a layer.",
    "figure_6": "Figure 6: how similar each explainer is to the target, and how well it explains the target.",
    "figure_7": "Figure 7: the simulator's scores of each explainer against the number of training directions of a layer.",
    "figure_8": "Figure 8: what is to blame where the judge scores a description 0, as shares of the cases with 95% intervals; "
    "diamonds are the paper's.",
    "figure_patching": "Table 2 as dots with 95% intervals: what each explainer predicts of activation patching; diamonds are "
    "the paper's.",
    "figure_ablation": "How often the target follows a hint to another letter, with 95% intervals, by subject and by whether it "
    "is right without the hint.",
    "figure_privileged": "Privileged access: what the self-explainer scores above every other trained explainer, with 95% "
    "intervals; diamonds are the paper's own gaps.",
}
RUNS = list[tuple[dict, pd.DataFrame]]  # as `record.read_runs` gives them


def write_report(
    profile: Profile, runs: RUNS, records: list[dict], tables: dict[str, Table], pictures: list[str]
) -> Path:
    """Write `figures/<profile>/report.html`.

    `tables`: by the name of their files in tables/. `pictures`: the names of the figures' files,
    each with a line in CAPTIONS.
    """
    path = figures_dir(profile.name) / "report.html"
    with replaced(path) as part:
        part.write_text(report(profile, runs, records, tables, pictures), encoding="utf-8")
    return path


def report(
    profile: Profile, runs: RUNS, records: list[dict], tables: dict[str, Table], pictures: list[str]
) -> str:
    """The page, as `write_report` writes it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "code": _code, "numeric": _numeric, "is_bold": _is_bold}
    folder, files = figures_dir(profile.name), [run for run, _ in runs]
    numbers = {f"runs/{run['id']}": number for number, run in enumerate(files, 1)}
    for number, run in enumerate(files, 1):
        numbers.setdefault(
            run["checkpoint"], number
        )  # the run that made it stands before those that read it
    environment.filters["sources"] = lambda artifact: [
        (numbers.get(name), name) for name in artifact.split(", ")
    ]
    return environment.get_template("report.html").render(
        profile=profile.name,
        tasks=_explained(profile, files),
        runs=files,
        planned=len(plan(profile)) - 1,  # the last is this page's own
        notebooks={
            run["id"]: page for run in files if (page := _notebook_page(profile, run["id"], folder))
        },
        recorded=_recorded(files),
        claims=[(claim, *claim.check(records)) for claim in CLAIMS],
        tables=tables,
        predictions=first_predictions(runs),
        pictures={name: (CAPTIONS[name], _data_url(folder / f"{name}.svg")) for name in pictures},
        settings="\n".join(
            _settings_file(file).read_text(encoding="utf-8") for file in (profile, *profile.parts)
        ),
    )


def export_notebooks(profile: Profile, runs: RUNS) -> list[Path]:
    """Write the executed notebooks of the runs as HTML under artifacts/<profile>/html/, for the
    report to link."""
    from nbconvert import HTMLExporter

    exporter, folder = HTMLExporter(), artifacts_dir(profile.name) / "html"
    pages = []
    for run, _ in runs:
        executed = artifacts_dir(profile.name) / "notebooks" / f"{run['id']}.ipynb"
        if (
            executed.exists()
        ):  # a clone has the results of a reference profile, and not its notebooks
            folder.mkdir(parents=True, exist_ok=True)
            pages.append(folder / f"{run['id']}.html")
            with replaced(pages[-1]) as part:
                part.write_text(exporter.from_filename(str(executed))[0], encoding="utf-8")
    return pages


def first_predictions(runs: RUNS) -> Table | None:
    """What the self-explainer, of the largest training size and the first seed, says of the first
    held-out SAE features; None where no run of feature descriptions has trained one."""
    described = next(task.name for task in TASKS.values() if task.simulated)
    explained = self_explained(runs, described)
    if not explained:
        return None
    run, said = explained
    said = said[said["data"] == "sae"].head(N_PREDICTIONS)
    rows = [
        (row.feature, row.layer, row.gold, row.generation, Score(row.judge), Score(row.simulator))
        for row in said.itertuples()
    ]
    return Table(
        f"The first {len(rows)} held-out SAE features of {run['target']}: what the simulator chose "
        "and what Self says of them.",
        ("Feature", "Layer", "Gold description", "Prediction", "SAE judge", "SAE simulator"),
        tuple(rows),
        artifacts=(run["checkpoint"] or f"runs/{run['id']}",) * len(rows),
    )


def _explained(profile: Profile, files: list[dict]) -> dict[str, dict[str, list]]:
    """Of each task, the targets and the explainers whose runs are finished, their largest size, and
    the explainers to come."""
    finished = {run["id"] for run in files}
    tasks = {}
    for task in (task for task in TASKS if profile.section(task)):
        asked = [run for run in plan(profile) if run.notebook == TASKS[task].train]
        done = [run.parameters for run in asked if run.id in finished]
        coming = [run.parameters["explainer"] for run in asked if run.id not in finished]
        tasks[task] = {
            key: list(dict.fromkeys(each[key] for each in done))
            for key in ("target", "explainer", "n_train")
        }
        tasks[task]["coming"] = list(dict.fromkeys(coming))
    return tasks


def _recorded(files: list[dict]) -> dict[str, list[str]]:
    """What the runs say of their making, each thing once. Runs from before these were recorded say
    no versions and no day."""
    return {
        "commits": sorted({run["commit"] for run in files}),
        "machines": sorted({run["device"] for run in files}),
        "days": sorted({run["finished"][:10] for run in files if "finished" in run}),
        "versions": sorted(
            {
                f"{name} {version}"
                for run in files
                for name, version in run.get("versions", {}).items()
            }
        ),
    }


def _notebook_page(profile: Profile, run_id: str, folder: Path) -> str | None:
    """The address of a run's executed notebook as HTML from the report's folder, where there is
    one."""
    page = artifacts_dir(profile.name) / "html" / f"{run_id}.html"
    return Path(os.path.relpath(page, folder)).as_posix() if page.exists() else None


def _settings_file(profile: Profile) -> Path:
    own = profile.source.endswith((".yaml", ".yml"))
    return Path(profile.source) if own else REPO / "params" / f"{profile.source}.yaml"


def _data_url(svg: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers, counts or lists of them, and are set flush right."""
    return [
        all(isinstance(row[i], Score) or NUMBERS.fullmatch(str(row[i])) for row in table.rows)
        for i in range(len(table.header))
    ]


def _is_bold(cell: object) -> bool:
    return isinstance(cell, Score) and cell.bold


def _code(text: str) -> Markup:
    """Escaped text in which Markdown's backquotes are code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))
