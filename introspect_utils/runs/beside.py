"""The runs beside data and explainers: of a task with a simulator, and over several tasks."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from introspect_utils.explainer.published import is_published
from introspect_utils.runs.run import Run, checkpoint, new_run, scores
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import ROOT, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS, task_features, task_patching
from introspect_utils.tasks.conditions import UNTRAINED

SIMULATOR, BASELINES, SCALING = "04_simulator", "08_baselines", "09_scaling"
SIMILARITY, ERRORS = "10_similarity", "11_error_analysis"
ASK, JOINT = "13_ask_the_explainer", "14_joint_training"
# The authors' archives by what they hold: the folders that they unpack to (the last two assumed).
ARCHIVES = {
    "sae": "SAE_feature_explanations_llama3.1_8b",
    "act": "fineweb_llama_3.1_8b_95seqlen_fineweb_acts_grads_-1.0",
    "dact": "fineweb_llama_3.1_8b_95seqlen_counterfact_subsampled_2000_activation_difference",
}


def archive(published: str, data: str) -> Path:
    """Where one of the `ARCHIVES` lies, in the folder that a profile names (from `ROOT`)."""
    return ROOT / published / ARCHIVES[data]


def _common(profile: Profile, target: str) -> dict:
    return {"target": target, "dtype": profile.dtype, "seed": profile.seeds[0]}


def simulator(profile: Profile, target: str, data: Run) -> Run:
    """The simulator of a target, and the descriptions that it chooses (T_feat, eq. 2)."""
    run_id, settings = f"simulator-{folder_name(target)}", profile.features.simulator
    trained = settings.checkpoint == "trained"
    return new_run(
        profile,
        run_id,
        SIMULATOR,
        inputs=data.outputs,
        files=["descriptions.parquet"],
        heavy=[checkpoint(profile, run_id, "simulator.json")] if trained else [],
        settings=_common(profile, target) | {"simulator": dataclasses.asdict(settings)},
        parameters={"target": target},
    )


def beside(
    profile: Profile, target: str, data: Run, inputs: tuple[Path, ...], explained: list[Run]
) -> list[Run]:
    """Baselines of each size, scaling if there are several sizes, similarity if there is anything
    to compare, and the analysis of errors."""
    sizes = sorted(profile.features.sizes)
    compared = [baselines(profile, target, n_train, inputs) for n_train in sizes]
    runs = list(compared)
    if len(sizes) > 1:
        runs.append(scaling(profile, target, [*compared, *explained]))
    similar = similarity(profile, target, data, explained)
    if similar.settings["compared"]:
        runs.append(similar)
    read = data.outputs + compared[-1].outputs
    return runs + error_analysis(profile, target, explained, read)


def baselines(profile: Profile, target: str, n_train: int, inputs: Iterable[Path]) -> Run:
    """Nearest neighbours and the most frequent description among `n_train`; at the largest size
    SelfIE and the gold ones too."""
    largest = n_train == max(profile.features.sizes)
    names = (*task_features.TASK.scoring_settings, "selfie_scales")
    settings = {name: getattr(profile.features, name) for name in names}
    return new_run(
        profile,
        f"features-baselines-{folder_name(target)}" + ("" if largest else f"-n{n_train}"),
        BASELINES,
        inputs=inputs,
        files=["predictions.parquet"],
        settings={"target": target, "dtype": profile.dtype, "rows": n_train, **settings},
        parameters={"target": target, "n_train": n_train},
    )


def scaling(profile: Profile, target: str, compared: list[Run]) -> Run:
    """How scores grow with the training directions (section 4)."""
    return new_run(
        profile,
        f"scaling-{folder_name(target)}",
        SCALING,
        inputs=[path for run in compared for path in scores(run)],
        settings={"target": target},
        parameters={"target": target},
    )


def similarity(profile: Profile, target: str, data: Run, explained: list[Run]) -> Run:
    """How similar every explainer is to the target before its training (section B.2). That of
    published ones is over."""
    pairs = [(run.parameters["explainer"], run.parameters["condition"]) for run in explained]
    compared = [
        (explainer, condition)
        for explainer, condition in dict.fromkeys(pairs)
        if condition not in UNTRAINED and not is_published(explainer)
    ]
    return new_run(
        profile,
        f"similarity-{folder_name(target)}",
        SIMILARITY,
        inputs=data.outputs,
        settings={
            **_common(profile, target),
            "compared": compared,
            "variants": dataclasses.asdict(profile.variants),
            "explainer_settings": dataclasses.asdict(profile.explainer),
        },
        parameters={"target": target},
    )


def error_analysis(
    profile: Profile, target: str, explained: list[Run], inputs: tuple[Path, ...]
) -> list[Run]:
    """What is to blame where the judge scores 0 (B.5): of the self-explainer of the largest size
    and the first seed, if there is one."""
    n_train, seed = max(profile.features.sizes), profile.seeds[0]
    asked = {"target": target, "explainer": "self", "n_train": n_train, "seed": seed}
    return [
        new_run(
            profile,
            f"features-errors-{folder_name(target)}-self-n{n_train}-seed{seed}",
            ERRORS,
            inputs=(*inputs, *scores(run)),
            files=["cases.parquet"],
            # It looks at the cases whatever judge scored them.
            settings={**asked, "judge": "embedding"},
            parameters=asked,
        )
        for run in explained
        if run.parameters.items() >= {**asked, "condition": "full"}.items()
    ]


def self_explainer(runs: list[Run], task: str, target: str) -> Run | None:
    """The largest self-explainer of `target` that `runs` train, with the first seed; None if there
    is none."""
    of_self = {"target": target, "explainer": "self", "condition": "full"}.items()
    trained = [
        run
        for run in runs
        if run.notebook == TASKS[task].train and run.parameters.items() >= of_self
    ]
    return max(
        trained, key=lambda run: (run.parameters["n_train"], -run.parameters["seed"]), default=None
    )


def joint(profile: Profile, runs: list[Run]) -> list[Run]:
    """For each target of several tasks one self-explainer trained on them all, on the rows that the
    largest of each task has."""
    joined, seed = [], profile.seeds[0]
    for target in dict.fromkeys(run.parameters["target"] for run in runs) if profile.joint else ():
        single = {task: run for task in TASKS if (run := self_explainer(runs, task, target))}
        if len(single) < 2:
            continue
        sizes = {task: run.parameters["n_train"] for task, run in single.items()}
        name = folder_name(target)
        folders = [f"{task}-{name}-self-joint-n{n}-seed{seed}" for task, n in sizes.items()]
        explainer = {task: dataclasses.asdict(profile.explainer_for(task)) for task in single}
        settings = _common(profile, target) | {
            "sizes": sizes,
            "training": profile.training.deciding(),
            "explainer_settings": explainer,
            "max_new_tokens": profile.generation.max_new_tokens,
        }
        run = new_run(
            profile,
            f"joint-{name}-seed{seed}",
            JOINT,
            inputs=dict.fromkeys(path for run in single.values() for path in run.inputs),
            settings=settings | ({"as_released": True} if profile.as_released else {}),
            parameters={"target": target, "seed": seed},
        )
        outputs = tuple(
            run_dir(profile.name, folder) / file
            for folder in folders
            for file in ("run.json", "predictions.parquet")
        )
        joined.append(dataclasses.replace(run, outputs=outputs))
    return joined


def asked(profile: Profile, runs: list[Run]) -> list[Run]:
    """One token put to the explainers (notebook 13), for each target that a self-explainer of
    features is trained of."""
    asking = []
    for target in dict.fromkeys(run.parameters["target"] for run in runs):
        explained, patching = (
            self_explainer(runs, task.name, target)
            for task in (task_features.TASK, task_patching.TASK)
        )
        if explained is None:
            continue
        file = next(
            f for f in (profile, *profile.parts) if f.source == explained.parameters["profile"]
        )
        run = new_run(
            file,
            f"ask-{folder_name(target)}",
            ASK,
            inputs=(*explained.inputs, *explained.outputs, *(patching.outputs if patching else ())),
            settings={
                "target": target,
                "dtype": profile.dtype,
                "max_new_tokens": profile.generation.max_new_tokens,
            },
            parameters={"target": target},
        )
        asking.append(run)
    return asking
