"""Explanations that say how the target's output changes (appendix D): worded, parsed and scored
(section 5.1)."""

import re
from collections.abc import Callable

import pandas as pd

UNCHANGED = "The output would remain unchanged from <<<{}>>>."
CHANGED = "The most likely output would change to <<<{}>>>."
OUTCOME = re.compile(
    r"(remain unchanged from|change to)\s*<<<(.*?)>>>(?!>)", re.DOTALL
)  # the content itself may end in ">"

# F.2: the same two answers, asked of a model without any explanation training
ZERO_SHOT = """
Respond with exactly one of the two options below, and nothing else:

The output would remain unchanged from <<<X>>>.
The output would change to <<<X>>>.

Replace X with the next token of the answer following the input. Make sure X is a *single* next token.

Example Outputs:
The output would remain unchanged from <<<Paris>>>.
The output would change to <<<doctor>>>.
The output would remain unchanged from <<<Apple>>>.
The output would change to <<<unknown>>>."""


def explanation(changed: bool, content: str) -> str:
    return (CHANGED if changed else UNCHANGED).format(content)


def parse(generation: str) -> tuple[bool | None, str]:
    """(says changed?, content) of the first outcome in a generation; (None, "") where there is
    none."""
    found = OUTCOME.search(generation)
    return (found[1] == "change to", found[2]) if found else (None, "")


def score(
    generations: list[str],
    is_different: list[bool],
    content: list[str],
    read: Callable[[str], str] = str,
) -> pd.DataFrame:
    """One row per generation with the three metrics of section 5.1. An answer that cannot be parsed
    is wrong in all three.

    Contents match up to surrounding space: the untrained model's examples (F.2) have no leading
    space. `read` takes the content out of what stands between the brackets, where that says more
    (the letter of "Answer: B").
    """
    table = pd.DataFrame(
        map(parse, generations), columns=["predicted_changed", "predicted_content"]
    )
    table.insert(0, "generation", generations)
    table["predicted_content"] = table["predicted_content"].map(read)
    table["predicted_changed"] = table["predicted_changed"].astype("boolean")
    table["is_different"], table["content"] = is_different, content
    table["has_changed"] = (
        (table["predicted_changed"] == table["is_different"]).fillna(False).astype(bool)
    )
    parsed = table["predicted_changed"].notna()
    table["content_match"] = parsed & (
        table["predicted_content"].str.strip() == table["content"].str.strip()
    )
    table["exact_match"] = table["has_changed"] & table["content_match"]
    return table


def fact_pair(row: dict) -> str:
    """The facts x and x' of a row of patching, which has other rows at other layers and tokens."""
    return f"{''.join(row['input_tokens'])} | {row['counterfactual_text']}"


def predictions(
    rows: list[dict], generations: list[str], explainer: str, condition: str
) -> pd.DataFrame:
    """The scored generations of one explainer under one condition, with the columns of
    `predictions.parquet`."""
    table = score(
        generations,
        [row["is_different"] for row in rows],
        [row["ablated_continuation"][0] for row in rows],
    )
    return table.assign(
        row=range(len(rows)),
        explainer=explainer,
        condition=condition,
        token_type=[row["token_type"] for row in rows],
        block=[f"{row['layer'][0]}-{row['layer'][-1]}" for row in rows],
        pair=[fact_pair(row) for row in rows],
        subject=[row.get("subject") for row in rows],
        relation=[row.get("relation") for row in rows],
    )
