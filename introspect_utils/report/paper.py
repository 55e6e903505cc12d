"""Every number the paper publishes (arXiv 2511.08579 v1, and the known v3 revisions of Table 3), as
data.

The tables below are written as the paper prints them (scaled to 100, `value error` pairs);
`PUBLISHED` holds each number once, on the 0..1 scale of `results.json`. Counts (`metric="count"`)
keep their scale. Two readings of the paper's text are ours:
- Table 2's merged first column is shifted by one row in the text: "Qwen-3-8B (Untrained)" explains
Qwen3-8B.
- Figure 8's shares add to 99.5; section B.5 says 27.7 where the figure and section 3.4 say 27.
"""

import re
from dataclasses import dataclass

AS_PUBLISHED = (
    "published "  # before the name of an explainer whose checkpoint the authors published
)


@dataclass(frozen=True)
class Published:
    """One number of the paper. `explainer` and `condition` as in `results.json`; `stderr` is None
    where none is given."""

    # "1".."7", "fig8", or the section it is quoted in: "sec4", "sec5.2", "A.2", "B.4", "B.5", "C.1"
    table: str
    task: str  # features | patching | ablation
    data: str  # sae | act | dact | train | test
    target: str
    explainer: str
    condition: str
    metric: str
    value: float
    stderr: float | None
    version: str = "v1"


LLAMA, INSTRUCT, QWEN, GEMMA = "llama-3.1-8b", "llama-3.1-8b-instruct", "qwen3-8b", "gemma-2-9b"

TABLE_1 = """
# explainer                 | condition             | SAE judge | SAE simulator | ACT simulator | dACT simulator
self                        | full                  |  76.2 0.9 | 45.1 0.7 | 49.7 0.6 | 32.0 0.8
self                        | lora                  |  76.0 0.9 | 45.6 0.8 | 50.6 0.6 | 34.0 0.8
llama-3-8b                  | full                  |  77.0 0.9 | 44.6 0.7 | 49.3 0.6 | 32.4 0.7
llama-3.1-8b-instruct       | full                  |  77.1 0.8 | 42.7 0.7 | 46.9 0.7 | 29.9 0.7
qwen3-8b                    | full                  |  70.3 0.9 | 40.6 0.8 | 21.1 0.7 | 12.3 0.4
llama-3.1-70b               | random-projection     |  63.9 1.0 | 39.5 0.8 | 12.6 0.4 | 12.2 0.4
llama-3.1-70b               | pretrained-projection |  74.1 0.9 | 45.2 0.7 | 33.8 0.7 | 20.6 0.6
nn-all                      | full                  |  58.5 1.0 | 33.7 0.8 | 38.9 0.7 | 18.5 0.6
nn-layer                    | full                  |  53.9 0.9 | 29.4 0.7 | 40.7 0.7 | 28.6 0.7
selfie                      | full                  |  40.1 1.0 | 36.4 0.8 | 43.3 0.6 | 21.0 0.6
selfie-llama-3.1-8b-instruct | full                 |  40.4 0.9 | 36.4 0.8 | 43.5 0.7 | 20.1 0.6
gold                        | full                  | 100   0.0 | 43.3 0.8 | -        | -
"""

TABLE_2 = """
# target     | explainer    | condition | exact match | has-changed F1 | content match
qwen3-8b     | self         | full      | 64.0  0.4 | 80.2 0.3 | 71.0  0.4
qwen3-8b     | self         | no-vector | 59.9  0.4 | 76.5 0.4 | 68.6  0.4
qwen3-8b     | self         | no-layer  | 65.0  0.4 | 80.0 0.3 | 72.7  0.4
qwen3-8b     | self         | no-token  | 63.9  0.4 | 79.4 0.3 | 71.7  0.4
qwen3-8b     | llama-3.1-8b | full      | 54.1  0.4 | 73.9 0.4 | 65.4  0.4
qwen3-8b     | untrained    | full      |  5.02 0.2 | 24.4 0.8 | 18.78 0.3
llama-3.1-8b | self         | full      | 48.6  0.7 | 77.5 0.6 | 54.6  0.7
llama-3.1-8b | self         | no-vector | 45.2  0.7 | 73.9 0.6 | 50.8  0.7
llama-3.1-8b | self         | no-layer  | 49.7  0.7 | 76.9 0.6 | 55.7  0.7
llama-3.1-8b | self         | no-token  | 47.3  0.7 | 76.1 0.6 | 53.4  0.7
llama-3.1-8b | qwen3-8b     | full      | 41.7  0.7 | 75.1 0.6 | 47.6  0.7
llama-3.1-8b | untrained    | full      |  3.2  0.1 | 31.4 0.4 |  7.0  0.2
"""

TABLE_3 = """
# target              | explainer             | condition | exact match | has-changed F1 | content match
llama-3.1-8b-instruct | self                  | full      | 18.2 1.0 | 58.2 1.3 | 24.9 1.2
qwen3-8b              | llama-3.1-8b-instruct | full      | 14.6 0.9 | 52.4 1.2 | 22.9 1.1
llama-3.1-8b-instruct | untrained             | full      | 21.0 1.1 | 45.5 1.3 | 36.7 1.3
qwen3-8b              | self                  | full      | 62.7 1.3 | 73.4 1.1 | 70.5 1.2
llama-3.1-8b-instruct | qwen3-8b              | full      | 33.1 1.3 | 59.4 1.3 | 48.3 1.3
qwen3-8b              | untrained             | full      | 30.2 1.2 | 53.2 0.5 | 39.9 1.3
"""

TABLE_3_V3 = """
# target              | explainer             | condition | exact match | has-changed F1 | content match
qwen3-8b              | self                  | full      | 83.4     | 87.0     | 90.6
qwen3-8b              | untrained             | full      |  8.9     | 44.4     | 35.3
llama-3.1-8b-instruct | self                  | full      | 63.8     | -        | -
"""

TABLE_4 = """
# explainer           | condition | SAE judge
self                  | full      | 43.45 0.91
gemma-2-9b-instruct   | full      | 57.12 0.87
llama-3.1-8b          | full      | 34.45 0.88
nn-all                | full      | 32.40 0.80
nn-layer              | full      | 33.07 0.78
selfie                | full      | 24.07 0.85
"""

TABLE_5 = """
# explainer           | condition             | activation pattern: mean | s.d. | dot product: mean | s.d. (not standard errors)
llama-3-8b            | full                  | 93.66 | 14.89 | 96.61 | 1.73
llama-3.1-8b-instruct | full                  | 88.63 | 18.3  | 85.27 | 5.9
llama-3.1-70b         | pretrained-projection | 54.25 | 14.57 | 21.48 | 4.53
qwen3-8b              | full                  |  0.10 | 11.94 |  0.10 | 0.49
"""

TABLE_6 = """
# token type          | layers | train: unchanged | changed | test: unchanged | changed
changed-answer-option | 0-7    |   0 |  104 |   0 |  72
changed-answer-option | 8-15   |   0 |   35 |   0 |  17
changed-answer-option | 16-23  |   0 |  600 |   0 | 200
changed-answer-option | 24-31  |   0 |  600 |   0 | 200
orig-answer-option    | 0-7    | 132 |  308 |  53 | 109
orig-answer-option    | 8-15   |  52 | 1266 |  28 | 545
orig-answer-option    | 16-23  | 126 |  128 |  47 |  55
orig-answer-option    | 24-31  | 133 |   16 |  71 |   5
other-answer-option   | 0-7    | 634 |  195 | 282 | 100
other-answer-option   | 8-15   | 693 |  183 | 297 |  88
other-answer-option   | 16-23  | 539 |  269 | 226 | 109
other-answer-option   | 24-31  | 541 |   63 | 238 |  21
relation              | 0-7    | 792 |  911 | 294 | 397
relation              | 8-15   | 806 |  149 | 335 |  54
relation              | 16-23  | 826 |   73 | 342 |  20
relation              | 24-31  | 792 |   55 | 348 |  22
subject-final         | 0-7    | 102 | 1101 |  29 | 449
subject-final         | 8-15   | 101 |  448 |  53 | 211
subject-final         | 16-23  | 130 |  373 |  58 | 148
subject-final         | 24-31  | 114 |   64 |  56 |  21
"""

TOKEN_TYPES = (
    "changed-answer-option",
    "orig-answer-option",
    "other-answer-option",
    "relation",
    "subject-final",
)

TABLE_7 = """
# target              | train: changed | unchanged | test: changed | unchanged
llama-3.1-8b-instruct | 4739 | 7903 | 518 | 877
qwen3-8b              | 8517 | 4125 | 929 | 466
"""

# Numbers quoted in the text and in Figure 8. "end-share" is the share of the explainer's own end
# performance reached with 0.8% of the training features (1,024 a layer); "share-of-X" compares the
# self-explainer there with X trained on everything.
QUOTED = """
# table | task     | data | target                | explainer | condition               | metric             | value
sec4    | features | sae  | llama-3.1-8b          | self      | 0.8%                    | end-share          | 71
sec4    | features | sae  | llama-3.1-8b          | qwen3-8b  | 0.8%                    | end-share          | 35
sec4    | features | sae  | llama-3.1-8b          | nn-all    | 0.8%                    | end-share          | 55
sec4    | features | sae  | llama-3.1-8b          | nn-layer  | 0.8%                    | end-share          | 55
sec4    | features | sae  | llama-3.1-8b          | self      | 0.8%                    | share-of-nn-all    | 92.9
sec4    | features | sae  | llama-3.1-8b          | self      | 0.8%                    | share-of-qwen3-8b  | 77.4
sec5.2  | ablation | test | qwen3-8b              | untrained | full                    | predicted_changed  | 0.4
sec5.2  | ablation | test | qwen3-8b              | untrained | unchanged rows          | content_match      | 91.0
sec5.2  | ablation | test | qwen3-8b              | untrained | changed rows            | content_match      | 14.3
sec5.2  | ablation | test | llama-3.1-8b-instruct | untrained | full                    | predicts_hint      | 81.9
sec5.2  | ablation | test | llama-3.1-8b-instruct | random    | full                    | content_match      | 25
A.2     | features | sae  | llama-3.1-8b          | judge     | exact                   | human_agreement    | 64
A.2     | features | sae  | llama-3.1-8b          | judge     | weighted                | human_agreement    | 81.25
A.2     | features | sae  | llama-3.1-8b          | judge     | opposed                 | human_agreement    | 3
B.4     | features | sae  | llama-3.1-8b          | self      | no-layer                | token_match        | 77.3
B.4     | features | sae  | llama-3.1-8b          | self      | wrong-layer             | token_match        | 75.2
B.5     | features | sae  | llama-3.1-8b          | self      | explainer model error   | share              | 27.7
fig8    | features | sae  | llama-3.1-8b          | self      | explainer model error   | share              | 27
fig8    | features | sae  | llama-3.1-8b          | self      | noisy/incorrect label   | share              | 43.5
fig8    | features | sae  | llama-3.1-8b          | self      | judge error             | share              | 11
fig8    | features | sae  | llama-3.1-8b          | self      | sparse activation       | share              | 18
C.1     | patching | test | llama-3.1-8b          | self      | locate                  | exact_match        | 98.7
"""

# Section B.5's categories of what the judge scores 0, and what each means; Figure 8 counts the two
# of labels as one, LABEL_ERROR.
ERROR_CATEGORIES = {
    "explainer model error": "a genuine failure of the explainer",
    "noisy/ambiguous label": "the original label partially miscategorizes the activation exemplars",
    "incorrect label": "the original label fully miscategorizes the activation exemplars",
    "judge error": "the judge takes slight differences between the expected and the predicted label for an error",
    "sparse activation": "extremely rare activation patterns, difficult to characterize due to insufficient examples",
}
LABEL_ERROR = "noisy/incorrect label"

PATCHING_METRICS = ("exact_match", "has_changed_f1", "content_match")
SIMILARITY_METRICS = (
    "activation_pattern",
    "activation_pattern_sd",
    "dot_product",
    "dot_product_sd",
)


def _rows(text: str) -> list[list[str]]:
    """The cells of one of the tables above, without its comment line."""
    return [
        [cell.strip() for cell in line.split("|")]
        for line in text.strip().splitlines()
        if not line.startswith("#")
    ]


def _scaled(cell: str) -> tuple[float, float | None]:
    """`"64.0 0.4"` -> (0.64, 0.004); `"64.0"` -> (0.64, None)."""
    value, *stderr = (round(float(number) / 100, 6) for number in cell.split())
    return value, stderr[0] if stderr else None


def _build() -> list[Published]:
    found = []

    def add(table, task, data, target, explainer, condition, metric, cell, version="v1"):
        if cell != "-":
            found.append(
                Published(
                    table, task, data, target, explainer, condition, metric, *_scaled(cell), version
                )
            )

    def count(table, task, data, target, condition, cell):
        found.append(
            Published(table, task, data, target, "", condition, "count", float(cell), None)
        )

    for explainer, condition, judge, *simulator in _rows(TABLE_1):
        add("1", "features", "sae", LLAMA, explainer, condition, "judge", judge)
        for data, cell in zip(("sae", "act", "dact"), simulator, strict=True):
            add("1", "features", data, LLAMA, explainer, condition, "simulator", cell)
    for table, task, text, version in (
        ("2", "patching", TABLE_2, "v1"),
        ("3", "ablation", TABLE_3, "v1"),
        ("3", "ablation", TABLE_3_V3, "v3"),
    ):
        for target, explainer, condition, *cells in _rows(text):
            for metric, cell in zip(PATCHING_METRICS, cells, strict=True):
                add(table, task, "test", target, explainer, condition, metric, cell, version)
    for explainer, condition, cell in _rows(TABLE_4):
        add("4", "features", "sae", GEMMA, explainer, condition, "judge", cell)
    for explainer, condition, *cells in _rows(TABLE_5):
        for metric, cell in zip(SIMILARITY_METRICS, cells, strict=True):
            add("5", "features", "sae", LLAMA, explainer, condition, metric, cell)
    splits = (
        ("train", "unchanged"),
        ("train", "changed"),
        ("test", "unchanged"),
        ("test", "changed"),
    )
    for token_type, layers, *cells in _rows(TABLE_6):
        for (split, label), cell in zip(splits, cells, strict=True):
            count("6", "patching", split, LLAMA, count_condition(token_type, layers, label), cell)
    splits = (
        ("train", "changed"),
        ("train", "unchanged"),
        ("test", "changed"),
        ("test", "unchanged"),
    )
    for target, *cells in _rows(TABLE_7):
        for (split, label), cell in zip(splits, cells, strict=True):
            count("7", "ablation", split, target, label, cell)
    for row in _rows(QUOTED):
        add(*row)
    return found


def count_condition(token_type: str, layers: str, label: str) -> str:
    """The `condition` of one count of Table 6, e.g. `subject-final / 0-7 / changed`; split it again
    with `rsplit(" / ", 2)`.

    The paper's token types may be spelled as it prints them (`Subject Final`; `New Answer Option`,
    as section E.2 has it).
    """
    name = re.sub("[ _]", "-", token_type.lower()).replace("new-answer", "changed-answer")
    return f"{name if name in TOKEN_TYPES else token_type} / {layers} / {label}"


def model_name(name: str) -> str:
    """A model's name as used here, `Qwen/Qwen3-8B` -> `qwen3-8b`; of an explainer that is
    published, the paper's."""
    return name.removeprefix(AS_PUBLISHED).rsplit("/", 1)[-1].lower()


PUBLISHED: tuple[Published, ...] = tuple(_build())


def lookup(version: str = "v1", **fields: str) -> list[Published]:
    """The published numbers with the fields given, in the paper's order, e.g. `lookup(table="2",
    explainer="self")`."""
    fields["version"] = version
    return [
        row for row in PUBLISHED if all(getattr(row, key) == value for key, value in fields.items())
    ]


def published(**fields: str) -> Published | None:
    """The one number with these fields, or None where the paper has none."""
    rows = lookup(**fields)
    if len(rows) > 1:
        raise ValueError(f"{fields} names {len(rows)} numbers of the paper, give more fields")
    return rows[0] if rows else None
