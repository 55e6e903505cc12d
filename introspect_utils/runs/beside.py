"""The runs beside data and explainers: of a task with a simulator, and over several tasks."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from introspect_utils.runs.run import Run, checkpoint, new_run, scores
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import ROOT, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS, task_features, task_patching

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


def beside(profile: Profile, target: str, made: list[Run], explained: list[Run]) -> list[Run]:
    """Baselines of each size, scaling if there are several sizes, similarity if there is anything
    to compare, and the analysis of errors (B.5) of the self-explainer of the largest size and the
    first seed, if there is one."""
    name, asked, sizes = folder_name(target), {"target": target}, sorted(profile.features.sizes)
    data, inputs = made[0].outputs, [path for run in made for path in run.outputs]
    runs = [baselines(profile, target, n_train, inputs) for n_train in sizes]
    analysed = data + runs[-1].outputs
    if len(sizes) > 1:  # how scores grow with the training directions (section 4)
        read = [path for run in [*runs, *explained] for path in scores(run)]
        runs.append(new_run(profile, f"scaling-{name}", SCALING, asked, asked, read))
    # before their training (B.2), which published ones have behind them
    trained = [run.parameters for run in explained if run.settings["training"]]
    if compared := list(dict.fromkeys((of["explainer"], of["condition"]) for of in trained)):
        settings = _common(profile, target) | {"compared": compared}
        settings |= {"variants": asdict(profile.variants)}
        settings |= {"explainer_settings": asdict(profile.explainer)}
        run_id = f"similarity-{name}"
        runs.append(new_run(profile, run_id, SIMILARITY, asked, settings, data))
    asked = asked | {"explainer": "self", "n_train": sizes[-1], "seed": profile.seeds[0]}
    settings = asked | {"judge": "embedding"}  # whatever judge scored the cases
    run_id = f"features-errors-{name}-self-n{sizes[-1]}-seed{profile.seeds[0]}"
    for run in explained:
        if run.parameters.items() >= {**asked, "condition": "full"}.items():
            read, files = (*analysed, *scores(run)), ["cases.parquet"]
            runs.append(new_run(profile, run_id, ERRORS, asked, settings, read, files))
    return runs


def baselines(profile: Profile, target: str, n_train: int, inputs: Iterable[Path]) -> Run:
    """Nearest neighbours and the most frequent description among `n_train`; at the largest size
    SelfIE and the gold ones too."""
    size = "" if n_train == max(profile.features.sizes) else f"-n{n_train}"
    names = (*task_features.TASK.scoring_settings, "selfie_scales")
    settings = {"target": target, "dtype": profile.dtype, "rows": n_train}
    settings |= {name: getattr(profile.features, name) for name in names}
    run_id = f"features-baselines-{folder_name(target)}{size}"
    asked = {"target": target, "n_train": n_train}
    return new_run(profile, run_id, BASELINES, asked, settings, inputs, ["predictions.parquet"])


def self_explainer(runs: list[Run], task: str, target: str) -> Run | None:
    """The largest self-explainer of `target` that `runs` train, with the first seed; None if there
    is none."""
    of_self = {"target": target, "explainer": "self", "condition": "full"}.items()
    notebook = TASKS[task].train
    own = [run for run in runs if run.notebook == notebook and run.parameters.items() >= of_self]
    return max(own, key=lambda r: (r.parameters["n_train"], -r.parameters["seed"]), default=None)


def joint(profile: Profile, target: str, single: dict[str, Run]) -> Run:
    """A self-explainer of all tasks, trained on the rows that the `single` one of each has."""
    name, seed = folder_name(target), profile.seeds[0]
    sizes = {task: run.parameters["n_train"] for task, run in single.items()}
    settings = _common(profile, target) | {"sizes": sizes}
    settings |= {"explainer_settings": {t: asdict(profile.explainer_for(t)) for t in single}}
    settings |= {"training": profile.training.deciding()}
    settings |= {"max_new_tokens": profile.generation.max_new_tokens}
    settings |= {"as_released": True} if profile.as_released else {}
    inputs = dict.fromkeys(path for run in single.values() for path in run.inputs)
    asked = {"target": target, "seed": seed}
    run = new_run(profile, f"joint-{name}-seed{seed}", JOINT, asked, settings, inputs)
    folders = [
        run_dir(profile.name, f"{task}-{name}-self-joint-n{n}-seed{seed}")
        for task, n in sizes.items()
    ]
    files = ("run.json", "predictions.parquet")
    return replace(run, outputs=tuple(folder / file for folder in folders for file in files))


def over_tasks(profile: Profile, runs: list[Run]) -> list[Run]:
    """Of each target: one explainer of all tasks, if it has several and the profile asks for it;
    and one token put to the explainers (notebook 13), if one of features is trained."""
    more = []
    for target in dict.fromkeys(run.parameters["target"] for run in runs):
        single = {task: run for task in TASKS if (run := self_explainer(runs, task, target))}
        if profile.joint and len(single) > 1:
            more.append(joint(profile, target, single))
        if described := single.get(task_features.TASK.name):
            settings = {"target": target, "dtype": profile.dtype}
            settings |= {"max_new_tokens": profile.generation.max_new_tokens}
            patched = single.get(task_patching.TASK.name)
            inputs = (*described.inputs, *described.outputs, *(patched.outputs if patched else ()))
            asked = {"target": target, "profile": described.parameters["profile"]}
            run_id = f"ask-{folder_name(target)}"
            more.append(new_run(profile, run_id, ASK, asked, settings, inputs))
    return more
