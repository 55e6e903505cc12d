"""The runs beside data and explainers: of a task with a simulator, and over several tasks."""

from collections.abc import Iterable
from dataclasses import asdict, replace
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
    run_id, own = f"simulator-{folder_name(target)}", profile.features.simulator
    heavy = [checkpoint(profile, run_id, "simulator.json")] if own.checkpoint == "trained" else []
    settings = _common(profile, target) | {"simulator": asdict(own)}
    asked, files = {"target": target}, ["descriptions.parquet"]
    return new_run(profile, run_id, SIMULATOR, asked, settings, data.outputs, files, heavy)


def beside(
    profile: Profile, target: str, data: Run, inputs: tuple[Path, ...], explained: list[Run]
) -> list[Run]:
    """Baselines of each size, scaling if there are several sizes, similarity if there is anything
    to compare, and the analysis of errors."""
    compared = [baselines(profile, target, n, inputs) for n in sorted(profile.features.sizes)]
    runs, asked = list(compared), {"target": target}
    if len(compared) > 1:  # how scores grow with the training directions (section 4)
        read = [path for run in [*compared, *explained] for path in scores(run)]
        runs.append(new_run(profile, f"scaling-{folder_name(target)}", SCALING, asked, asked, read))
    similar = similarity(profile, target, data, explained)
    runs += [similar] if similar.settings["compared"] else []
    return runs + error_analysis(profile, target, explained, data.outputs + compared[-1].outputs)


def baselines(profile: Profile, target: str, n_train: int, inputs: Iterable[Path]) -> Run:
    """Nearest neighbours and the most frequent description among `n_train`; at the largest size
    SelfIE and the gold ones too."""
    size = "" if n_train == max(profile.features.sizes) else f"-n{n_train}"
    names = (*task_features.TASK.scoring_settings, "selfie_scales")
    settings = {"target": target, "dtype": profile.dtype, "rows": n_train}
    settings |= {name: getattr(profile.features, name) for name in names}
    run_id, asked = f"features-baselines-{folder_name(target)}{size}", {"target": target}
    asked |= {"n_train": n_train}
    return new_run(profile, run_id, BASELINES, asked, settings, inputs, ["predictions.parquet"])


def similarity(profile: Profile, target: str, data: Run, explained: list[Run]) -> Run:
    """How similar every explainer is to the target before its training (section B.2). That of
    published ones is over."""
    pairs = [(run.parameters["explainer"], run.parameters["condition"]) for run in explained]
    compared = [
        (explainer, condition)
        for explainer, condition in dict.fromkeys(pairs)
        if condition not in UNTRAINED and not is_published(explainer)
    ]
    settings = _common(profile, target) | {"compared": compared}
    settings["variants"] = asdict(profile.variants)
    settings["explainer_settings"] = asdict(profile.explainer)
    run_id, asked = f"similarity-{folder_name(target)}", {"target": target}
    return new_run(profile, run_id, SIMILARITY, asked, settings, data.outputs)


def error_analysis(
    profile: Profile, target: str, explained: list[Run], inputs: tuple[Path, ...]
) -> list[Run]:
    """What is to blame where the judge scores 0 (B.5): of the self-explainer of the largest size
    and the first seed, if there is one."""
    n_train, seed = max(profile.features.sizes), profile.seeds[0]
    asked = {"target": target, "explainer": "self", "n_train": n_train, "seed": seed}
    run_id = f"features-errors-{folder_name(target)}-self-n{n_train}-seed{seed}"
    settings = {**asked, "judge": "embedding"}  # whatever judge scored the cases
    return [
        new_run(
            profile, run_id, ERRORS, asked, settings, (*inputs, *scores(run)), ["cases.parquet"]
        )
        for run in explained
        if run.parameters.items() >= {**asked, "condition": "full"}.items()
    ]


def self_explainer(runs: list[Run], task: str, target: str) -> Run | None:
    """The largest self-explainer of `target` that `runs` train, with the first seed; None if there
    is none."""
    of_self = {"target": target, "explainer": "self", "condition": "full"}.items()
    notebook = TASKS[task].train
    own = [run for run in runs if run.notebook == notebook and run.parameters.items() >= of_self]
    return max(own, key=lambda r: (r.parameters["n_train"], -r.parameters["seed"]), default=None)


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
        explainers = {task: asdict(profile.explainer_for(task)) for task in single}
        settings = _common(profile, target) | {"sizes": sizes, "explainer_settings": explainers}
        settings["training"] = profile.training.deciding()
        settings["max_new_tokens"] = profile.generation.max_new_tokens
        settings |= {"as_released": True} if profile.as_released else {}
        inputs = dict.fromkeys(path for run in single.values() for path in run.inputs)
        asked = {"target": target, "seed": seed}
        run = new_run(profile, f"joint-{name}-seed{seed}", JOINT, asked, settings, inputs)
        outputs = [
            run_dir(profile.name, f"{task}-{name}-self-joint-n{n}-seed{seed}") / file
            for task, n in sizes.items()
            for file in ("run.json", "predictions.parquet")
        ]
        joined.append(replace(run, outputs=tuple(outputs)))
    return joined


def ask(profile: Profile, runs: list[Run]) -> list[Run]:
    """One token put to the explainers (notebook 13), for each target that a self-explainer of
    features is trained of."""
    asking = []
    for target in dict.fromkeys(run.parameters["target"] for run in runs):
        described, patched = (
            self_explainer(runs, task.name, target)
            for task in (task_features.TASK, task_patching.TASK)
        )
        if described:
            settings = {"target": target, "dtype": profile.dtype}
            settings["max_new_tokens"] = profile.generation.max_new_tokens
            inputs = (*described.inputs, *described.outputs, *(patched.outputs if patched else ()))
            asked = {"target": target, "profile": described.parameters["profile"]}
            run_id = f"ask-{folder_name(target)}"
            asking.append(new_run(profile, run_id, ASK, asked, settings, inputs))
    return asking
