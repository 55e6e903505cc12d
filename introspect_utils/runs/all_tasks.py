"""The runs that rest on the explainers of several tasks: one explainer trained on all of them, and
one token put to them."""

import dataclasses
from pathlib import Path

from introspect_utils.runs.run import Run
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS, task_features, task_patching

ASK, JOINT = "13_ask_the_explainer", "14_joint_training"


def checkpoint(profile: Profile, run_id: str) -> Path:
    """The file that a trained explainer's folder is known by (`explainer.SETTINGS`)."""
    return artifacts_dir(profile.name) / "checkpoints" / run_id / "explainer.json"


def self_explainer(runs: list[Run], task: str, target: str) -> Run | None:
    """The largest self-explainer of `target` that `runs` train, with the first seed; None where
    there is none."""
    wanted = {"target": target, "explainer": "self", "condition": "full"}
    trained = [
        run
        for run in runs
        if run.notebook == TASKS[task].train and run.parameters.items() >= wanted.items()
    ]
    return max(
        trained, key=lambda run: (run.parameters["n_train"], -run.parameters["seed"]), default=None
    )


def joint(profile: Profile, runs: list[Run]) -> list[Run]:
    """For each target of several tasks one self-explainer trained on them all, on the rows that the
    largest of each task has."""
    found = []
    for target in dict.fromkeys(run.parameters["target"] for run in runs) if profile.joint else ():
        single = {task: own for task in TASKS if (own := self_explainer(runs, task, target))}
        if len(single) > 1:
            sizes = {task: run.parameters["n_train"] for task, run in single.items()}
            name = f"{folder_name(target)}-self-joint"
            folders = [
                run_dir(profile.name, f"{task}-{name}-n{n}-seed{profile.seeds[0]}")
                for task, n in sizes.items()
            ]
            found.append(
                Run(
                    id=f"joint-{folder_name(target)}-seed{profile.seeds[0]}",
                    notebook=JOINT,
                    parameters={
                        "profile": profile.source,
                        "target": target,
                        "seed": profile.seeds[0],
                    },
                    inputs=tuple(
                        dict.fromkeys(path for run in single.values() for path in run.inputs)
                    ),
                    outputs=tuple(
                        folder / file
                        for folder in folders
                        for file in ("run.json", "predictions.parquet")
                    ),
                    summary=f"joint · {target}",
                    settings={
                        **{
                            "target": target,
                            "sizes": sizes,
                            "seed": profile.seeds[0],
                            "dtype": profile.dtype,
                        },
                        "training": profile.training.deciding(),
                        **({"as_released": True} if profile.as_released else {}),
                        "explainer_settings": {
                            task: dataclasses.asdict(profile.explainer_for(task)) for task in single
                        },
                        "max_new_tokens": profile.generation.max_new_tokens,
                    },
                )
            )
    return found


def asked(profile: Profile, runs: list[Run]) -> list[Run]:
    """One token put to the explainers (notebook 13): for each target that a self-explainer of
    features is trained of."""
    found = []
    for target in dict.fromkeys(run.parameters["target"] for run in runs):
        explained, patching = (
            self_explainer(runs, task.name, target)
            for task in (task_features.TASK, task_patching.TASK)
        )
        if explained:
            run_id = f"ask-{folder_name(target)}"
            found.append(
                Run(
                    id=run_id,
                    notebook=ASK,
                    parameters={"profile": explained.parameters["profile"], "target": target},
                    inputs=(
                        *explained.inputs,
                        *explained.outputs,
                        *(patching.outputs if patching else ()),
                    ),
                    outputs=(run_dir(profile.name, run_id) / "run.json",),
                    summary=f"ask the explainer · {target}",
                    settings={
                        "target": target,
                        "dtype": profile.dtype,
                        "max_new_tokens": profile.generation.max_new_tokens,
                    },
                )
            )
    return found
