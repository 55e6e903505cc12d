"""A run: one execution of a notebook."""

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


PUBLISHED = "15_published_data"  # in place of a task's own data notebook
