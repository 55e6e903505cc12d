"""Questions and explanations: what every task hands to an explainer (section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# where the continuous token stands in a prompt; [s] and [e] are the placeholders of appendix D
VECTOR = "[s]v[e]"


@dataclass(frozen=True)
class Question:
    """A question q about a target. `text` holds `VECTOR` once if there is a `vector` v [d_target],
    else not at all.

    `layers` are the target's layers that v comes from: they choose the projection. `system` is the
    chat's system prompt. `prompt` is its form, "chat" or "base", where an explainer of several
    tasks is asked in more than one.
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
