"""Activation patching (sections 2.3 and 5.1) as a task."""

from introspect_utils.tasks.conditions import CONTROLS
from introspect_utils.tasks.task import Task

# Columns of explanations of the form "changes to" or "remains unchanged from".
OUTCOME_COLUMNS = {
    "predicted_changed": "bool",  # null if the answer could not be parsed
    "predicted_content": "string",
    "is_different": "bool",
    "content": "string",
    "exact_match": "bool",
    "has_changed": "bool",  # predicted_changed is right
    "content_match": "bool",
}
OUTCOME_ROW = ("row", "is_different", "content")
OUTCOME_METRICS = ("exact_match", "has_changed_f1", "content_match")


def read(profile, target, n_train, seed):
    from introspect_utils.tasks.rows import PATCHING, read_splits

    return read_splits(TASK.folder(profile, target), n_train, PATCHING)


def examples(rows, condition, seed):
    from introspect_utils.tasks.patching_questions import examples

    return examples(rows, condition, seed)


def predictions(rows, generations, explainer, condition, score=None):
    from introspect_utils.tasks.outcome import predictions
    from introspect_utils.tasks.patching_questions import answer

    table = predictions(rows, generations, explainer, condition)
    if condition == "locate":  # C.1: right if layers and token are named exactly
        truth = [answer(row, condition) for row in rows]
        table = table.assign(content=truth, exact_match=table["generation"] == truth)
    return table


def wrong(run, predictions):
    right = predictions["predicted_changed"] == predictions["is_different"]
    if (predictions["has_changed"] != right.fillna(False)).any():
        return "has_changed must be predicted_changed == is_different, and False where it is null"
    return None


TASK = Task(
    name="patching",
    title="Activation patching: what does an activation do to the output?",
    data="02_data_activation_patching",
    train="06_train_activation_patching",
    data_settings=(
        *("n_test", "facts", "known_only", "max_facts", "max_pairs"),
        *("demonstrations", "options", "blocks"),
    ),
    columns=OUTCOME_COLUMNS
    | dict.fromkeys(("token_type", "block", "pair", "subject", "relation"), "string"),
    test_row=OUTCOME_ROW,
    clusters=("pair", "subject", "relation"),
    metrics=OUTCOME_METRICS,
    table="2",
    read=read,
    examples=examples,
    predictions=predictions,
    wrong=wrong,
    table_files=("table2", "table6"),
    figure="figure_3",
    controls=CONTROLS,
    row_tokens=128,
    published_row_bytes=4 * 4096,
    published_adapters=True,
)
