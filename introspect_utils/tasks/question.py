"""Questions and explanations (section 2.1): what every task hands to an explainer, and the forms in
which explainers are asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from torch import Tensor

VECTOR = "[s]v[e]"  # where the continuous token stands in a prompt (appendix D)
PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yaml").read_text("utf-8"))
FORMS = PROMPTS["forms"]


@dataclass(frozen=True)
class Question:
    """A question q about a target. `text` holds `VECTOR` once if there is a `vector` v [d_target],
    else not at all.

    `layers` are the target's layers that v comes from: they choose the projection. `system` is the
    chat's system prompt. `prompt` is the form it is worded in, "" for that of the explainer's
    settings.
    """

    text: str
    vector: Tensor | None = None
    layers: tuple[int, ...] = ()
    system: str = ""
    prompt: str = ""

    def with_vector(self, vector: Tensor) -> Question:
        return replace(self, vector=vector)


@dataclass(frozen=True)
class Example:
    """A question with the explanation E = T(M, q) that the explainer is trained to give (eq. 1)."""

    question: Question
    explanation: str


def in_form(form: str, task: str, text: str) -> str:
    """A prompt of a task with what a form puts behind it."""
    return text + FORMS[form or "chat"].get("behind", {}).get(task, "")
