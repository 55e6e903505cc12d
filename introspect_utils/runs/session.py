"""One call opens the run of a notebook, one finishes it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from introspect_utils.explainer.make import make_explainer
from introspect_utils.explainer.published import prompt_form
from introspect_utils.explainer.train import Trained, train
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.chat import ANSWERED, Endpoint
from introspect_utils.models.load import choose_device, choose_dtype, load_model
from introspect_utils.models.residual_store import open_residuals, store_residuals
from introspect_utils.runs.plan import explainer_run, plan
from introspect_utils.runs.record import read_run, run_record, write_run
from introspect_utils.runs.run import Run
from introspect_utils.scores.descriptions import scored
from introspect_utils.scores.judge import Judge, load_judge
from introspect_utils.scores.simulator import Simulator, load_simulator
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import artifacts_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile, load_profile
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.conditions import few_shot
from introspect_utils.tasks.rows import ABLATION, PATCHING, write_rows
from introspect_utils.tasks.task import Task

if TYPE_CHECKING:
    from introspect_utils.explainer.explainer import Explainer
    from introspect_utils.models.language_model import LanguageModel
    from introspect_utils.tasks.question import Example


def open_run(
    profile: str,
    notebook: str,
    target: str,
    explainer: str | None = None,
    condition: str | None = None,
    n_train: int | None = None,
    seed: int | None = None,
    task: str | None = None,
) -> Session:
    """The run of a notebook with those of the parameters that it has, its clock started. Tables
    are shown with whole texts from here on.

    Raises `UserError` if the profile has no such run and it is not one explainer more.
    """
    pd.set_option("display.max_colwidth", None)
    settings = load_profile(profile)
    asked = {"target": target, "explainer": explainer, "condition": condition}
    asked |= {"n_train": n_train, "seed": seed, "task": task}
    asked = {name: value for name, value in asked.items() if value is not None}
    return Session(settings, _run(settings, notebook, asked))


def _run(settings: Profile, notebook: str, asked: dict[str, Any]) -> Run:
    """The planned run; an explainer of another size, seed, name or condition is one beside them."""
    runs = [run for run in plan(settings) if run.notebook == notebook]
    for run in runs:
        if run.parameters == {"profile": settings.source, **asked}:
            return run
    alike = [run for run in runs if run.parameters["target"] == asked["target"]]
    trains = [task for task in TASKS.values() if task.train == notebook]
    if alike and trains:
        return explainer_run(settings, trains[0], alike[0].inputs, asked)
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
        alone = "sizes" not in run.settings  # else trained on several tasks at once
        self.training = settings.training_for(self.task.name) if alone else settings.training
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

    @property
    def chat_model(self) -> Endpoint:
        return Endpoint(self.section.chat_model)

    @cached_property
    def judge(self) -> Judge:
        return load_judge(self.section.judge, self.chat_model, self.settings.device)

    @cached_property
    def simulator(self) -> Simulator:
        return load_simulator(self.settings, self.target_lm)

    @property
    def scored_by(self) -> dict[str, str]:
        """What rates this task's descriptions, for the statistics of a run."""
        if not self.task.simulated:
            return {}
        judge = f"{self.judge.name}: {self.judge.model}"
        return {"judge": judge, "simulator": self.simulator.sha256()[:16]}

    def load(self, *names: str) -> list[Any]:
        """What notebook 01 wrote about the target: "directions", "exemplars", "candidates" (a
        table)."""
        readers = {"directions": Directions.load, "exemplars": Exemplars.load}
        paths = {name.partition(".")[0]: self.data / name for name in self.task.data_files}
        return [readers.get(name, pd.read_parquet)(paths[name]) for name in names]

    def inputs(self) -> list[pd.DataFrame]:
        """The predictions of the runs that this one reads, in the order of the plan."""
        folders = [path.parent for path in self.run.inputs if path.name == "predictions.parquet"]
        return [read_run(folder)[1] for folder in folders]

    def residuals(self, contexts: torch.Tensor, name: str) -> dict[int, torch.Tensor]:
        """{layer: residual stream of the target [contexts, tokens, width]}, kept on disk under
        `name`."""
        layers, folder = self.section.layers, self.data / name
        batch_size = self.settings.generation.batch_size
        store_residuals(self.target_lm, contexts, layers, folder, batch_size)
        return {layer: open_residuals(folder, layer) for layer in layers}

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

    def train(self, explainer: Explainer, examples: Sequence[Example]) -> Trained:
        """Train with the settings of the run, going on from its checkpoint if there is one."""
        return train(explainer, examples, self.training, self.checkpoint, self.seed)

    def predictions(self, said: Mapping[str, Sequence[str]]) -> pd.DataFrame:
        """What the explainer said of the test rows under each condition, scored: the lines of
        `predictions.parquet`."""
        test, score = self.rows["test"], self._scored if self.task.simulated else None
        tables = [
            self.task.predictions(test, texts, self.explainer, condition, score)
            for condition, texts in said.items()
        ]
        return pd.concat(tables, ignore_index=True)

    def _scored(self, directions, said, gold, scoring) -> pd.DataFrame:
        return scored(directions, said, gold, self.judge, self.simulator, scoring)

    @property
    def parts(self) -> list[Session]:
        """The runs of the tasks within a joint one, with the same clock."""
        parts = []
        for task, n_train in self.run.settings["sizes"].items():
            own = tuple(p for p in self.run.outputs if p.parent.name.startswith(f"{task}-"))
            asked = {"task": task, "explainer": "self", "n_train": n_train}
            parameters = self.run.parameters | asked
            run = replace(self.run, id=own[0].parent.name, outputs=own, parameters=parameters)
            parts.append(Session(self.settings, run))
            parts[-1].start = self.start
        return parts

    def read(self) -> tuple[dict, pd.DataFrame]:
        """The run as it was finished: its `run.json` and its predictions."""
        return read_run(self.results)

    def finish(
        self,
        predictions: pd.DataFrame | None = None,
        statistics: dict[str, Any] | None = None,
        trained: Trained | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the run's other `files` (tables, rows, directions, by their names), the predictions
        and `run.json`, and name them all."""
        for name, content in (files or {}).items():
            [path] = [path for path in self.run.outputs if path.name == name]
            _write(path, content)
        said = [] if predictions is None else predictions["condition"]
        is_sized = predictions is not None or "n_train" in self.run.parameters
        device = torch.device(choose_device(self.settings.device))
        measured = ({"losses": trained.losses} if trained else {}) | (statistics or {})
        record = run_record(
            self.id,
            self.settings,
            device,
            trained.checkpoint if trained else None,
            task=self.task.name,
            target=self.target,
            explainer=self.explainer,
            condition=list(dict.fromkeys(said)),
            n_train=self.n_train if is_sized else 0,
            seed=self.seed,
            checkpoint_sha256=trained.sha256 if trained else None,
            trained_parameters=trained.trained_parameters if trained else 0,
            seconds=time.monotonic() - self.start,
            # with the chat models that wrote or judged, if any did
            statistics=measured | ({"chat": ANSWERED} if ANSWERED else {}),
        )
        write_run(self.results, record, predictions)
        if predictions is not None:
            print(_score(self.task, predictions))
        print(*(path.relative_to(paths.ROOT) for path in self.run.outputs), sep="\n")


def _score(task: Task, predictions: pd.DataFrame) -> str:
    """The means of a run's first explainer and condition, for the terminal."""
    named = predictions[["explainer", "condition"]]
    first = predictions[(named == named.iloc[0]).all(axis=1)]
    scored = [name for name in task.metrics if name in first and first[name].notna().any()]
    means = (f"{name.replace('_', ' ')} {100 * first[name].mean():.1f}" for name in scored)
    return f"{' '.join(named.iloc[0])}: {', '.join(means)} (n = {len(first):,})"


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        shared = {len(content[0].keys() & set(s.names)): s for s in (PATCHING, ABLATION)}
        write_rows(path, content, shared[max(shared)])
    elif isinstance(content, pd.DataFrame):
        with replaced(path) as temporary:
            content.to_parquet(temporary)
    else:
        content.save(path)
