"""Every number the paper publishes (arXiv 2511.08579 v1, and the known v3 revisions of Table 3),
from `paper.csv`: on the scale of `results.json` (0..1, counts, ratios), named as there.

Readings of the paper's text that are ours: Table 2's merged first column is shifted by one row
("Qwen-3-8B (Untrained)" explains Qwen3-8B); the 15% of section 3.4 is of both scores of SAE
features (the judge's ratio is 1.16, the simulator's 1.14); Figure 8's shares add to 99.5, and
section B.5 says 27.7 where the figure says 27.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

AS_PUBLISHED = "published "  # before the name of an explainer whose checkpoint was published
TOKEN_TYPES = (
    *("changed-answer-option", "orig-answer-option", "other-answer-option"),
    *("relation", "subject-final"),
)
# Section B.5's categories of what the judge scores 0; Figure 8 counts the two of labels as one.
ERROR_CATEGORIES = {
    "explainer model error": "a genuine failure of the explainer",
    "noisy/ambiguous label": "the original label partially miscategorizes the activation exemplars",
    "incorrect label": "the original label fully miscategorizes the activation exemplars",
    "judge error": "the judge takes slight differences between the labels for an error",
    "sparse activation": "extremely rare activation patterns, with too few examples",
}
LABEL_ERROR = "noisy/incorrect label"
PATCHING_METRICS = ("exact_match", "has_changed_f1", "content_match")

_CSV = pd.read_csv(Path(__file__).with_name("paper.csv"), dtype={"table": str})
_CSV = _CSV.fillna({"explainer": ""}).astype(object)
# The columns of paper.csv are the fields of each; None where the paper gives no number.
PUBLISHED = tuple(_CSV.where(_CSV.notna(), None).itertuples(index=False, name="Published"))
_V1 = {
    (r.table, r.data, r.target, r.explainer, r.condition, r.metric): r
    for r in PUBLISHED
    if r.version == "v1"
}


def lookup(version: str = "v1", **fields: str) -> list:
    """The published numbers with the fields given, in the paper's order, e.g. `lookup(table="2",
    explainer="self")`."""
    fields["version"] = version
    return [row for row in PUBLISHED if all(getattr(row, k) == v for k, v in fields.items())]


def published(*names: str):
    """The number of v1 of a table, data, target, explainer, condition and metric, or None."""
    return _V1.get(names)


def count_condition(token_type: str, layers: str, label: str) -> str:
    """The `condition` of one count of Table 6, e.g. `subject-final / 0-7 / changed`; split it again
    with `rsplit(" / ", 2)`. The paper's token types may be spelled as it prints them."""
    name = re.sub("[ _]", "-", token_type.lower()).replace("new-answer", "changed-answer")
    return f"{name if name in TOKEN_TYPES else token_type} / {layers} / {label}"


def model_name(name: str) -> str:
    """A model's name as used here, `Qwen/Qwen3-8B` -> `qwen3-8b`; of an explainer that is
    published, the paper's."""
    return name.removeprefix(AS_PUBLISHED).rsplit("/", 1)[-1].lower()


def table_6_outcomes() -> tuple[np.ndarray, np.ndarray]:
    """(truth [n], what a lookup by token type and layers says [n]) of the paper's 5,600 test rows
    of patching, changed or not: a cell of Table 6 gets its more frequent training label."""
    counts = pd.DataFrame(lookup(table="6"))
    counts[["cell", "label"]] = counts["condition"].str.rsplit(" / ", n=1, expand=True)
    counts = counts.astype({"value": int}).pivot(index="cell", columns=["data", "label"])["value"]
    more = counts["train", "changed"] > counts["train", "unchanged"]
    n = counts["test"].stack()  # of each cell and label
    cells, labels = (n.index.get_level_values(name) for name in ("cell", "label"))
    return np.repeat(labels == "changed", n), np.repeat(more[cells].to_numpy(), n)
