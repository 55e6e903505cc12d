"""One call opens the run of a notebook, one finishes it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from introspect_utils.explainer.make import make_explainer
from introspect_utils.models.load import choose_device, choose_dtype, load_model
from introspect_utils.runs.plan import explainer_run, plan
from introspect_utils.runs.record import run_record, write_run
from introspect_utils.runs.run import Run
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import artifacts_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile, load_profile
from introspect_utils.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

    from introspect_utils.explainer.explainer import Explainer
    from introspect_utils.explainer.train import Trained
    from introspect_utils.models.language_model import LanguageModel
    from introspect_utils.settings.profile import Training
    from introspect_utils.tasks.question import Example

DESCRIPTIONS = next(task for task in TASKS.values() if task.simulated)  # of notebooks 04, 08 to 13


def open_run(profile: str, notebook: str, **parameters: Any) -> Session:
    """The run of a notebook with its parameters, its clock started.

    Raises `UserError` if the profile has no such run and it is not one explainer more.
    """
    return Session(settings := load_profile(profile), _run(settings, notebook, parameters))


def _run(profile: Profile, notebook: str, parameters: dict[str, Any]) -> Run:
    """The planned run; an explainer of another size, seed, name or condition is one beside them."""
    runs = [run for run in plan(profile) if run.notebook == notebook]
    asked = {"profile": profile.source, **parameters}
    for run in runs:
        if run.parameters == asked:
            return run
    alike = [run for run in runs if run.parameters["target"] == parameters.get("target")]
    trains = [task.name for task in TASKS.values() if task.train == notebook]
    if not (alike and trains):
        raise UserError(
            f"profile {profile.source} has no run of notebook {notebook} with {parameters}; it has "
            + ("; ".join(str(run.parameters) for run in runs[:3]) or "none of this notebook")
        )
    return explainer_run(profile, trains[0], inputs=alike[0].inputs, **parameters)


class Session:
    """An open run: where its files lie and what it is about."""

    def __init__(self, settings: Profile, run: Run):
        self.settings, self.run, self.id = settings, run, run.id
        self.start = time.monotonic()
        name = run.parameters.get("task", DESCRIPTIONS.name)
        of_notebook = [t for t in TASKS.values() if run.notebook in (t.data, t.train)]
        self.task = of_notebook[0] if of_notebook else TASKS[name]
        self.section = settings.section(self.task.name)  # the task's own settings
        self.target = run.parameters["target"]
        self.explainer = run.parameters.get("explainer", "")
        self.seed = run.parameters.get("seed", settings.seeds[0])
        self.n_train = run.parameters.get("n_train", max(self.section.sizes))
        self.is_largest = self.n_train == max(self.section.sizes)
        self.data = self.task.folder(settings, self.target)  # questions and answers; not in git
        self.results = run_dir(settings.name, self.id)  # small results; in git
        self.checkpoint = artifacts_dir(settings.name) / "checkpoints" / self.id

    @cached_property
    def rows(self) -> dict[str, Any]:
        """The task's training and test rows; which notebook makes them is in the error if they are
        missing."""
        return self.task.read(self.settings, self.target, self.n_train, self.seed)

    @cached_property
    def target_lm(self) -> LanguageModel:
        """The target M, loaded when it is first asked for."""
        return load_model(self.target, self.settings.device, self.settings.dtype, self.seed)

    @property
    def training(self) -> Training:
        """How the task's explainers are trained."""
        return self.settings.training_for(self.task.name)

    @property
    def generation(self) -> dict[str, int]:
        """What `generate` is given: batch size and number of new tokens."""
        return vars(self.settings.generation)

    @property
    def tolerance(self) -> dict[str, float]:
        """How near two computations of one number come in the run's dtype, for `assert_close`."""
        dtype = choose_dtype(self.settings.dtype, self.settings.device)
        error = 1e-4 if dtype == torch.float32 else 3e-2
        return {"rtol": error, "atol": error}

    def examples(self, split: str, condition: str = "full") -> list:
        """The rows of a split as questions and explanations, worded under a condition."""
        return self.task.examples(self.rows[split], condition, self.seed)

    def make_explainer(self, examples: Iterable[Example]) -> Explainer:
        """The run's explainer before its training, for the vectors of these examples."""
        asked = [e.question for e in examples if e.question.vector is not None]
        layers = sorted({question.layers for question in asked})
        width = len(asked[0].vector) if asked else 0
        condition = self.run.parameters.get("condition", "full")
        about = (self.task.name, self.explainer, condition, self.target, width, layers, self.seed)
        return make_explainer(self.settings, *about)

    def save(self, table: pd.DataFrame, path: Path) -> None:
        """Write a table as Parquet, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as part:
            table.to_parquet(part)

    def finish(
        self,
        predictions: pd.DataFrame | None = None,
        statistics: dict[str, Any] | None = None,
        trained: Trained | None = None,
        **fields: Any,
    ) -> None:
        """Write the predictions and `run.json`, and name all files of the run. `fields` stand in
        place of those that follow from the run's parameters.

        Raises `UserError` if they are not as the task says, or a file of the run is missing.
        """
        said = [] if predictions is None else predictions["condition"].unique().tolist()
        losses = {"losses": trained.losses} if trained else {}
        record = {
            "task": self.task.name,
            "target": self.target,
            "explainer": self.explainer,
            "condition": said,
            "n_train": self.n_train,
            "seed": self.seed,
            "checkpoint_sha256": trained.sha256 if trained else None,
            "trained_parameters": trained.trained_parameters if trained else 0,
            "seconds": time.monotonic() - self.start,
            "statistics": losses | (statistics or {}),
        } | fields
        folder = trained.checkpoint if trained else None
        device = torch.device(choose_device(self.settings.device))
        write_run(
            self.results, run_record(self.id, self.settings, device, folder, **record), predictions
        )
        self._name_files(self.run.outputs)

    @staticmethod
    def _name_files(outputs: Sequence[Path]) -> None:
        missing = [str(path) for path in outputs if not path.is_file()]
        if missing:
            raise UserError(f"the notebook ended without writing {', '.join(missing)}")
        print(*(path.relative_to(paths.ROOT) for path in outputs), sep="\n")
