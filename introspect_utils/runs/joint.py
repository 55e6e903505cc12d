"""One explainer trained on every task at once, beside those that are trained on one task each
(notebook 14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from introspect_utils.models.chat import Endpoint
from introspect_utils.models.load import load_model
from introspect_utils.scores.descriptions import scored
from introspect_utils.scores.judge import load_judge
from introspect_utils.scores.simulator import load_simulator
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.question import Example
from introspect_utils.tasks.task import Task

SCORED_AS = ("self", "joint")  # the explainer and the condition of its predictions


@dataclass(frozen=True)
class Part:
    """One task's share. `train` and `test` are worded as the task's own explainers are asked."""

    profile: Profile
    target: str
    own: Task
    train: list[Example]
    test: list[Example]
    test_rows: Any

    @property
    def task(self) -> str:
        return self.own.name

    def score(self, generations: Sequence[str]) -> tuple[pd.DataFrame, dict]:
        """The predictions of the test answers, and what the run's statistics say of the scoring."""
        rate, statistics = _rating(self.profile, self.target) if self.own.simulated else (None, {})
        table = self.own.predictions(self.test_rows, list(generations), *SCORED_AS, rate)
        if "predicted_changed" in table:
            statistics = {"unparseable": int(table["predicted_changed"].isna().sum())}
        return table, statistics


def parts(profile: Profile, target: str, seed: int) -> list[Part]:
    """The shares of the tasks that a profile has for a target, each with the training rows of its
    largest self-explainer."""
    found = []
    for task in TASKS.values():
        section = profile.section(task.name)
        if section and target in section.targets:
            rows = task.read(profile, target, max(section.sizes), seed)
            form = profile.explainer_for(task.name).prompt
            train, test = (
                task.examples(rows[split], "full", seed, form) for split in ("train", "test")
            )
            found.append(Part(profile, target, task, train, test, rows["test"]))
    return found


def _rating(profile: Profile, target: str) -> tuple[Callable, dict]:
    """The judge and the simulator of descriptions as one function, and their names."""
    endpoint = Endpoint(profile.features.chat_model)
    judge = load_judge(profile.features.judge, endpoint, profile.device)
    simulator = load_simulator(profile, load_model(target, profile.device, profile.dtype))
    names = {
        "judge": f"{judge.name}: {judge.model}",
        "simulator": simulator.sha256()[:16],
        "token_match": {},
    }

    def rate(directions, said, gold, scoring):
        return scored(directions, said, gold, judge, simulator, scoring)

    return rate, names
