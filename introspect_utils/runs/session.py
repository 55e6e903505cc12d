"""One call opens the run of a notebook, one finishes it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from introspect_utils.explainer.make import make_explainer
from introspect_utils.explainer.published import prompt_form
from introspect_utils.models.load import choose_device, choose_dtype, load_model
from introspect_utils.runs.plan import explainer_run, plan
from introspect_utils.runs.record import read_run, run_record, write_run
from introspect_utils.runs.run import Run
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import artifacts_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile, load_profile
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.conditions import few_shot

if TYPE_CHECKING:
    import pandas as pd

    from introspect_utils.explainer.explainer import Explainer
    from introspect_utils.explainer.train import Trained
    from introspect_utils.models.language_model import LanguageModel
    from introspect_utils.tasks.question import Example


def open_run(profile: str, notebook: str, **parameters: Any) -> Session:
    """The run of a notebook with its parameters, its clock started.

    Raises `UserError` if the profile has no such run and it is not one explainer more.
    """
    settings = load_profile(profile)
    return Session(settings, _run(settings, notebook, parameters, profile=settings.source))


def _run(settings: Profile, notebook: str, asked: dict[str, Any], **beside: Any) -> Run:
    """The planned run; an explainer of another size, seed, name or condition is one beside them."""
    runs = [run for run in plan(settings) if run.notebook == notebook]
    for run in runs:
        if run.parameters.items() >= {**asked, **beside}.items():
            return run
    alike = [run for run in runs if run.parameters["target"] == asked.get("target")]
    trains = [task for task in TASKS.values() if task.train == notebook]
    if alike and trains:
        return explainer_run(settings, trains[0], inputs=alike[0].inputs, **asked)
    planned = "; ".join(str(run.parameters) for run in runs[:3]) or "none"
    raise UserError(
        f"profile {settings.source} has no run of {notebook} with {asked}; it has {planned}"
    )


class Session:
    """An open run: what it is about, and where its files lie."""

    def __init__(self, settings: Profile, run: Run):
        self.settings, self.run, self.id, self.start = settings, run, run.id, time.monotonic()
        asked = run.parameters
        planned = next(task for task in TASKS.values() if settings.section(task.name))
        own = (task for task in TASKS.values() if run.notebook in (task.data, task.train))
        self.task = next(own, TASKS[asked.get("task", planned.name)])
        self.section = settings.section(self.task.name)  # the task's own settings
        self.target, self.explainer = asked["target"], asked.get("explainer", "")
        self.seed = asked.get("seed", settings.seeds[0])
        self.n_train = asked.get("n_train", max(self.section.sizes))
        self.is_largest = self.n_train == max(self.section.sizes)
        self.training = settings.training_for(self.task.name)
        self.generation = vars(settings.generation)  # what `generate` is given
        self.data = self.task.folder(settings, self.target)  # questions and answers; not in git
        self.results = run_dir(settings.name, self.id)  # small results; in git
        self.checkpoint = artifacts_dir(settings.name) / "checkpoints" / self.id
        exact = choose_dtype(settings.dtype, settings.device) == torch.float32
        # how near two ways to compute one number come, for `assert_close`
        self.tolerance = dict.fromkeys(("rtol", "atol"), 1e-4 if exact else 3e-2)

    @cached_property
    def rows(self) -> dict[str, Any]:
        """The task's training and test rows. If they are missing, the error names the notebook that
        makes them."""
        return self.task.read(self.settings, self.target, self.n_train, self.seed)

    @cached_property
    def target_lm(self) -> LanguageModel:
        """The target M, loaded when it is first asked for."""
        return load_model(self.target, self.settings.device, self.settings.dtype, self.seed)

    def examples(self, split: str, condition: str = "full") -> list[Example]:
        """The rows of a split as questions and explanations, worded under a condition, in the form
        in which the explainer is asked. "few-shot" shows the training rows, solved."""
        if condition == "few-shot":
            return few_shot(self.examples(split), self.examples("train"))
        form = prompt_form(self.explainer) or self.settings.explainer_for(self.task.name).prompt
        return self.task.examples(self.rows[split], condition, self.seed, form)

    def make_explainer(self, examples: Iterable[Example]) -> Explainer:
        """The run's explainer before its training, for the vectors of these examples."""
        asked = [e.question for e in examples if e.question.vector is not None]
        layers = sorted({question.layers for question in asked})
        name, condition = self.explainer or "self", self.run.parameters.get("condition", "full")
        about = (self.task.name, name, condition, self.target, len(asked[0].vector) if asked else 0)
        return make_explainer(self.settings, *about, layers, self.seed)

    def predictions_of(self, notebook: str, **parameters: Any) -> pd.DataFrame:
        """The predictions of another run on the same target."""
        other = _run(self.settings, notebook, {"target": self.target, **parameters})
        return read_run(run_dir(self.settings.name, other.id))[1]

    def part(self, task: str) -> Session:
        """The run of one task within a joint one, with the same clock."""
        own = tuple(p for p in self.run.outputs if p.parent.name.startswith(f"{task}-"))
        parameters = self.run.parameters | {"task": task, "explainer": "self"}
        run = replace(self.run, id=own[0].parent.name, outputs=own, parameters=parameters)
        part = Session(self.settings, run)
        part.start = self.start
        return part

    def save(self, table: pd.DataFrame, name: str) -> None:
        """Write the output of this name as Parquet, whole or not at all."""
        [path] = [path for path in self.run.outputs if path.name == name]
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            table.to_parquet(temporary)

    def finish(
        self,
        predictions: pd.DataFrame | None = None,
        statistics: dict[str, Any] | None = None,
        trained: Trained | None = None,
        **fields: Any,
    ) -> None:
        """Write the predictions and `run.json`, and name all files of the run. `fields` replace
        what follows from its parameters. Raises `UserError` if a file of the run is missing."""
        record = {"task": self.task.name, "target": self.target, "explainer": self.explainer}
        said = [] if predictions is None else predictions["condition"]
        record["condition"] = list(dict.fromkeys(said))
        record |= {"n_train": self.n_train, "seed": self.seed}
        record["checkpoint_sha256"] = trained.sha256 if trained else None
        record["trained_parameters"] = trained.trained_parameters if trained else 0
        record["seconds"] = time.monotonic() - self.start
        record["statistics"] = {"losses": trained.losses} if trained else {}
        record["statistics"] |= statistics or {}
        device = torch.device(choose_device(self.settings.device))
        made = (self.id, self.settings, device, trained.checkpoint if trained else None)
        write_run(self.results, run_record(*made, **record | fields), predictions)
        missing = [str(path) for path in self.run.outputs if not path.is_file()]
        if missing:
            raise UserError(f"the notebook ended without writing {', '.join(missing)}")
        print(*(path.relative_to(paths.ROOT) for path in self.run.outputs), sep="\n")
