"""A task as one object: what the plan, the records, the tables, the cost and the joint training
need to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir

if TYPE_CHECKING:
    import pandas as pd

    from introspect_utils.settings.profile import Profile
    from introspect_utils.tasks.question import Example

# Columns of every predictions.parquet: one line for each test row, explainer and condition. Types
# are pyarrow's aliases.
ROW = {"row": "int64", "condition": "string", "explainer": "string", "generation": "string"}


@dataclass(frozen=True)
class Task:
    """An explanation procedure T(M, q) -> E with all that differs between tasks.

    Rows are whatever `read` gives for a split; the other functions take them as they are.
    """

    name: str  # also its section in a profile, and its folder in artifacts/<profile>/
    title: str
    data: str  # stem of the notebook that makes its data
    train: str  # stem of the notebook that trains and tests an explainer
    data_settings: tuple[str, ...]  # settings of its section that its data depend on
    columns: dict[str, str]  # of predictions.parquet, beside `ROW`
    test_row: tuple[str, ...]  # columns that say which test row it is and what is right there
    clusters: tuple[str, ...]  # columns of rows that are not independent; errors use the first
    metrics: tuple[str, ...]  # shares of right answers, and "has_changed_f1"
    table: str  # of its records: "2" is Table 2
    # (profile, target, n_train, seed) -> {"train": rows, "test": rows}
    read: Callable[[Profile, str, int, int], dict[str, Any]]
    # (rows, condition, seed, prompt form) -> one example for each row
    examples: Callable[..., list[Example]]
    # (rows, generations, explainer, condition, score) -> columns of predictions.parquet; `score`
    # rates descriptions where `simulated`, and is None elsewhere
    predictions: Callable[[Any, list[str], str, str, Callable | None], pd.DataFrame]
    # (run.json, predictions) -> what cannot be right in them
    wrong: Callable[[dict, pd.DataFrame], str | None] = lambda run, predictions: None
    later_table: str = ""  # of records of its targets after the first, if another one
    table_files: tuple[str, ...] = ()  # in figures/<profile>/tables/
    data_files: tuple[str, ...] = ("train.parquet", "test.parquet")
    scoring_settings: tuple[str, ...] = ()  # of its section, that scores depend on
    controls: tuple[str, ...] = ()  # conditions asked of an explainer trained under "full"
    simulated: bool = False  # explanations are chosen, and answers scored, by a simulator (eq. 2)
    row_tokens: int = 128  # of a question with its explanation, for estimates
    published_row_bytes: int = 0
    published_adapters: bool = False  # the authors' explainers are adapters, not full models

    @property
    def all_columns(self) -> dict[str, str]:
        return ROW | self.columns

    def folder(self, profile: Profile, target: str) -> Path:
        """Where its data about a target lie."""
        return artifacts_dir(profile.name) / self.name / folder_name(target)
