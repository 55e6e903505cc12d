"""A run: one execution of a notebook; and the three tasks whose notebooks are run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    id: str
    notebook: str  # stem in notebooks/
    parameters: dict[str, Any]  # for papermill
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    summary: str  # one line for people
    settings: dict[str, Any]  # all that the results depend on, besides the notebook and the inputs


JUDGING = ("judge", "chat_model")
PUBLISHED = "15_published_data"  # in place of a task's own data notebook


@dataclass(frozen=True)
class Task:
    """A task's notebooks, the settings of its profile section that its data depend on, and the
    tables made of its runs.

    `scoring`: the settings that its explainers' scores depend on besides.
    """

    data: str
    train: str
    settings: tuple[str, ...]
    tables: tuple[str, ...]
    scoring: tuple[str, ...] = ()


TASKS = {
    "features": Task(
        "01_data_features",
        "05_train_features",
        (
            "text",
            "context",
            "n_contexts",
            "layers",
            "dictionaries",
            "d_sae",
            "k",
            "n_samples",
            "n_test",
            "n_act",
            "act_center",
        )
        + ("n_top", "n_random", "descriptions", "candidates"),
        ("table1", "table1_paired", "table5"),
        JUDGING,
    ),
    "patching": Task(
        "02_data_activation_patching",
        "06_train_activation_patching",
        (
            "n_test",
            "facts",
            "known_only",
            "max_facts",
            "max_pairs",
            "demonstrations",
            "options",
            "blocks",
        ),
        ("table2", "table6"),
    ),
    "ablation": Task(
        "03_data_input_ablation",
        "07_train_input_ablation",
        (
            "n_test",
            "questions",
            "max_words",
            "excluded_subjects",
            "hints",
            "n_tried",
            "answer_prefix",
            "calibrated",
        ),
        ("table3", "table7"),
    ),
}
