"""One explainer trained on every task at once, beside those that are trained on one task each
(notebook 14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.chat import Endpoint
from introspect_utils.models.load import load_model
from introspect_utils.scores.descriptions import scored
from introspect_utils.scores.judge import load_judge
from introspect_utils.scores.simulator import chosen_descriptions, load_simulator
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import ablation_questions, describing, outcome, patching_questions
from introspect_utils.tasks.question import Example
from introspect_utils.tasks.rows import ABLATION, read_splits

SCORED_AS = ("self", "joint")  # the explainer and the condition of its predictions


@dataclass(frozen=True)
class Part:
    """One task's share. `train` and `test` are worded as the task's own explainers are asked.

    `score` makes of the test answers their predictions, and what the run's statistics say of the
    scoring.
    """

    task: str
    train: list[Example]
    test: list[Example]
    score: Callable[[Sequence[str]], tuple[pd.DataFrame, dict]]


def parts(profile: Profile, target: str, seed: int) -> list[Part]:
    """The shares of the tasks that a profile has for a target, each with the training rows of its
    largest self-explainer."""
    made = {"features": _features, "patching": _patching, "ablation": _ablation}
    of_target = [
        task for task in made if (section := getattr(profile, task)) and target in section.targets
    ]
    found = [made[task](profile, target, seed) for task in of_target]
    return [
        replace(
            part, train=_asked(profile, part, part.train), test=_asked(profile, part, part.test)
        )
        for part in found
    ]


def _asked(profile: Profile, part: Part, examples: list[Example]) -> list[Example]:
    """The examples in the form, chat or base, of the task's own explainers."""
    form = profile.explainer_for(part.task).prompt
    return [
        replace(example, question=replace(example.question, prompt=form)) for example in examples
    ]


def _features(profile: Profile, target: str, seed: int) -> Part:
    folder = artifacts_dir(profile.name) / "features" / folder_name(target)
    directions, exemplars = (
        Directions.load(folder / "directions.safetensors"),
        Exemplars.load(folder / "exemplars.safetensors"),
    )
    gold = chosen_descriptions(profile, target)
    rows = describing.split(directions, gold, max(profile.features.sizes), seed)
    taken = {split: directions.take(part) for split, part in rows.items()}
    labels = {split: [gold.get(name, "") for name in part.names] for split, part in taken.items()}
    examples = {
        split: describing.examples(part, labels[split], "full", seed)
        for split, part in taken.items()
    }

    def score(generations: Sequence[str]) -> tuple[pd.DataFrame, dict]:
        judge = load_judge(
            profile.features.judge, Endpoint(profile.features.chat_model), profile.device
        )
        simulator = load_simulator(profile, load_model(target, profile.device, profile.dtype))
        said, scoring = (
            [describing.description(text) for text in generations],
            exemplars.take(rows["test"]).scoring(),
        )
        table = scored(taken["test"], {SCORED_AS: said}, labels["test"], judge, simulator, scoring)
        by = {
            "judge": f"{judge.name}: {judge.model}",
            "simulator": simulator.sha256()[:16],
            "token_match": {},
        }
        return table, by

    return Part("features", examples["train"], examples["test"], score)


def _patching(profile: Profile, target: str, seed: int) -> Part:
    rows = read_splits(
        artifacts_dir(profile.name) / "patching" / folder_name(target), max(profile.patching.sizes)
    )
    examples = {
        split: patching_questions.examples(part, "full", seed) for split, part in rows.items()
    }

    def score(generations: Sequence[str]) -> tuple[pd.DataFrame, dict]:
        return _with_unparseable(outcome.predictions(rows["test"], generations, *SCORED_AS))

    return Part("patching", examples["train"], examples["test"], score)


def _ablation(profile: Profile, target: str, seed: int) -> Part:
    folder = artifacts_dir(profile.name) / "ablation" / folder_name(target)
    read = read_splits(folder, max(profile.ablation.sizes), ABLATION)
    rows = {
        split: ablation_questions.checked(part, f"{split}.parquet") for split, part in read.items()
    }
    examples = {split: ablation_questions.examples(part, "full") for split, part in rows.items()}

    def score(generations: Sequence[str]) -> tuple[pd.DataFrame, dict]:
        return _with_unparseable(
            ablation_questions.predictions(rows["test"], generations, *SCORED_AS)
        )

    return Part("ablation", examples["train"], examples["test"], score)


def _with_unparseable(predictions: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    return predictions, {"unparseable": int(predictions["predicted_changed"].isna().sum())}
