"""Explanations that say how the target's output changes (appendix D): worded, parsed and scored
(section 5.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

UNCHANGED = "The output would remain unchanged from <<<{}>>>."
CHANGED = "The most likely output would change to <<<{}>>>."
SAYS = r"(remain unchanged from|change to)\s*<<<"
# an outcome that ends the generation is read whole, a content with ">>>" too
WHOLE = re.compile(SAYS + r"((?:(?!<<<).)*)>>>\.?\s*\Z", re.DOTALL)
FIRST = re.compile(SAYS + r"(.*?)>>>(?!>)", re.DOTALL)  # a content may end in ">"

# Columns of predictions.parquet, the key of a test row and the metrics of such explanations.
COLUMNS = {
    "predicted_changed": "bool",  # null if the answer could not be parsed
    "predicted_content": "string",
    "is_different": "bool",
    "content": "string",
    "exact_match": "bool",
    "has_changed": "bool",  # predicted_changed is right
    "content_match": "bool",
}
TEST_ROW = ("row", "is_different", "content")
METRICS = ("exact_match", "has_changed_f1", "content_match")


def explanation(changed: bool, content: str) -> str:
    return (CHANGED if changed else UNCHANGED).format(content)


def parse(generation: str) -> tuple[bool | None, str]:
    """(says changed?, content) of the first outcome in a generation; (None, "") for none."""
    outcome = FIRST.search(generation)
    if outcome is None:
        return None, ""
    outcome = WHOLE.match(generation, outcome.start()) or outcome
    return outcome[1] == "change to", outcome[2]


def same(content: str, other: str) -> bool:
    """Whether two contents match: up to surrounding space, for the untrained model's examples (F.2)
    have none; blank ones exactly."""
    return content == other or content.strip() == other.strip() != ""


def predictions(
    generations: list[str],
    is_different: Sequence[bool],
    content: Sequence[str],
    explainer: str,
    condition: str,
    read: Callable[[str], str] = str,
) -> pd.DataFrame:
    """The scored generations of one explainer under one condition: what is in every
    predictions.parquet, and `COLUMNS`. An answer that cannot be parsed is wrong in all metrics.

    `read` takes the content out of what stands between the brackets (the letter of "Answer: B").
    """
    import pandas as pd

    said = [parse(generation) for generation in generations]
    table = pd.DataFrame(
        {
            "row": range(len(generations)),
            "explainer": explainer,
            "condition": condition,
            "generation": generations,
            "predicted_changed": pd.array([changed for changed, _ in said], dtype="boolean"),
            "predicted_content": [read(text) for _, text in said],
            "is_different": is_different,
            "content": content,
        }
    )
    right = table["predicted_changed"] == table["is_different"]
    table["has_changed"] = right.fillna(False).astype(bool)
    matches = pd.Series(map(same, table["predicted_content"], table["content"]), dtype=bool)
    table["content_match"] = table["predicted_changed"].notna() & matches
    table["exact_match"] = table["has_changed"] & table["content_match"]
    return table


def wrong(run: dict, predictions: pd.DataFrame) -> str | None:
    """What cannot be right in predictions of outcomes."""
    right = predictions["predicted_changed"] == predictions["is_different"]
    if (predictions["has_changed"] != right.fillna(False)).any():
        return "has_changed must be predicted_changed == is_different, and False where it is null"
    return None
