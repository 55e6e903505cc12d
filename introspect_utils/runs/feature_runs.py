"""The runs that feature descriptions have besides their data and explainers."""

import dataclasses
from pathlib import Path

from introspect_utils.explainer.published import is_published
from introspect_utils.runs.run import Run
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import ROOT, artifacts_dir, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks.conditions import UNTRAINED

SIMULATOR, BASELINES, SCALING, SIMILARITY, ERRORS = (
    "04_simulator",
    "08_baselines",
    "09_scaling",
    "10_similarity",
    "11_error_analysis",
)

# of the authors, by what they hold: the folders that they unpack to (of the last two that is
# assumed)
ARCHIVES = {
    "sae": "SAE_feature_explanations_llama3.1_8b",
    "act": "fineweb_llama_3.1_8b_95seqlen_fineweb_acts_grads_-1.0",
    "dact": "fineweb_llama_3.1_8b_95seqlen_counterfact_subsampled_2000_activation_difference",
}


def archive(published: str, data: str) -> Path:
    """Where one of the `ARCHIVES` lies, in the folder that a profile names (from `ROOT`)."""
    return ROOT / published / ARCHIVES[data]


def simulator(profile: Profile, target: str, data: Run) -> Run:
    """The simulator of a target, and the descriptions that it chooses (T_feat, eq. 2)."""
    run_id = f"simulator-{folder_name(target)}"
    folder, trained = (
        run_dir(profile.name, run_id),
        profile.features.simulator.checkpoint == "trained",
    )
    weights = artifacts_dir(profile.name) / "checkpoints" / run_id / "simulator.json"
    return Run(
        id=run_id,
        notebook=SIMULATOR,
        parameters={"profile": profile.source, "target": target},
        inputs=data.outputs,
        outputs=(
            folder / "run.json",
            folder / "descriptions.parquet",
            *([weights] if trained else []),
        ),
        summary=f"simulator · {target}",
        settings={"target": target, "dtype": profile.dtype, "seed": profile.seeds[0]}
        | {"simulator": dataclasses.asdict(profile.features.simulator)},
    )


def beside(
    profile: Profile, target: str, data: Run, inputs: tuple[Path, ...], explained: list[Run]
) -> list[Run]:
    """What stands beside the explainers of a target: baselines of each size, scaling where there
    are several sizes, similarity, and the analysis of errors."""
    *smaller, largest = (
        baselines(profile, target, n_train, inputs) for n_train in sorted(profile.features.sizes)
    )
    compared, similar = (
        [*smaller, largest, *explained],
        similarity(profile, target, data, explained),
    )
    found = [
        *smaller,
        largest,
        *([scaling(profile, target, compared)] if smaller else []),
        *([similar] if similar.settings["compared"] else []),
    ]
    return found + error_analysis(profile, target, explained, data.outputs + largest.outputs)


def baselines(profile: Profile, target: str, n_train: int, inputs: tuple[Path, ...]) -> Run:
    """Nearest neighbours and the most frequent description among `n_train`; at the largest size
    SelfIE and the gold ones too."""
    largest = n_train == max(profile.features.sizes)
    run_id = f"features-baselines-{folder_name(target)}" + ("" if largest else f"-n{n_train}")
    folder = run_dir(profile.name, run_id)
    return Run(
        id=run_id,
        notebook=BASELINES,
        parameters={"profile": profile.source, "target": target, "n_train": n_train},
        inputs=inputs,
        outputs=(folder / "run.json", folder / "predictions.parquet"),
        summary=f"baselines · {target} · n={n_train}",
        settings={"target": target, "dtype": profile.dtype, "rows": n_train}
        | {
            name: getattr(profile.features, name)
            for name in ("judge", "chat_model", "selfie_scales")
        },
    )


def scores(run: Run) -> tuple[Path, ...]:
    """The outputs of a run that are read for its scores: not the checkpoint, which a clone of the
    results lacks."""
    return tuple(path for path in run.outputs if path.name in ("run.json", "predictions.parquet"))


def scaling(profile: Profile, target: str, compared: list[Run]) -> Run:
    """How scores grow with the training directions (section 4)."""
    run_id = f"scaling-{folder_name(target)}"
    return Run(
        id=run_id,
        notebook=SCALING,
        parameters={"profile": profile.source, "target": target},
        inputs=tuple(output for run in compared for output in scores(run)),
        outputs=(run_dir(profile.name, run_id) / "run.json",),
        summary=f"scaling · {target}",
        settings={"target": target},
    )


def similarity(profile: Profile, target: str, data: Run, explained: list[Run]) -> Run:
    """How similar every explainer is to the target before its training (section B.2); published
    ones have theirs behind them."""
    run_id = f"similarity-{folder_name(target)}"
    compared = [(run.parameters["explainer"], run.parameters["condition"]) for run in explained]
    return Run(
        id=run_id,
        notebook=SIMILARITY,
        parameters={"profile": profile.source, "target": target},
        inputs=data.outputs,
        outputs=(run_dir(profile.name, run_id) / "run.json",),
        summary=f"similarity · {target}",
        settings={"target": target, "dtype": profile.dtype, "seed": profile.seeds[0]}
        | {
            "compared": [
                pair
                for pair in dict.fromkeys(compared)
                if pair[1] not in UNTRAINED and not is_published(pair[0])
            ]
        }
        | {
            "variants": dataclasses.asdict(profile.variants),
            "explainer_settings": dataclasses.asdict(profile.explainer),
        },
    )


def error_analysis(
    profile: Profile, target: str, explained: list[Run], inputs: tuple[Path, ...]
) -> list[Run]:
    """What is to blame where the judge scores 0 (B.5): of the self-explainer of the largest size
    and the first seed, if any."""
    question = {
        "target": target,
        "explainer": "self",
        "n_train": max(profile.features.sizes),
        "seed": profile.seeds[0],
    }
    run_id = (
        f"features-errors-{folder_name(target)}-self-n{question['n_train']}-seed{question['seed']}"
    )
    folder = run_dir(profile.name, run_id)
    return [
        Run(
            id=run_id,
            notebook=ERRORS,
            parameters={"profile": profile.source, **question},
            inputs=(*inputs, *scores(run)),
            outputs=(folder / "run.json", folder / "cases.parquet"),
            summary=f"error analysis · {target}",
            settings={
                **question,
                "judge": "embedding",
            },  # it looks at the cases whatever judge scored them
        )
        for run in explained
        if run.parameters.items() >= {**question, "condition": "full"}.items()
    ]
