"""Input ablation (sections 2.4 and 5.2) as a task."""

from introspect_utils.tasks.task import Task
from introspect_utils.tasks.task_patching import (
    OUTCOME_COLUMNS,
    OUTCOME_METRICS,
    OUTCOME_ROW,
    wrong,
)


def read(profile, target, n_train, seed):
    from introspect_utils.tasks.ablation_questions import checked
    from introspect_utils.tasks.rows import ABLATION, read_splits

    rows = read_splits(TASK.folder(profile, target), n_train, ABLATION)
    return {split: checked(part, f"{split}.parquet") for split, part in rows.items()}


def examples(rows, condition, seed):
    from introspect_utils.tasks.ablation_questions import examples

    return examples(rows, condition)


def predictions(rows, generations, explainer, condition, score=None):
    from introspect_utils.tasks.ablation_questions import predictions

    return predictions(rows, generations, explainer, condition)


TASK = Task(
    name="ablation",
    title="Input ablation: does a part of the input matter?",
    data="03_data_input_ablation",
    train="07_train_input_ablation",
    data_settings=(
        *("n_test", "questions", "max_words", "excluded_subjects"),
        *("hints", "n_tried", "answer_prefix", "calibrated"),
    ),
    columns=OUTCOME_COLUMNS | dict.fromkeys(("subject", "hint"), "string"),
    test_row=OUTCOME_ROW,
    clusters=("subject",),
    metrics=OUTCOME_METRICS,
    table="3",
    read=read,
    examples=examples,
    predictions=predictions,
    wrong=wrong,
    table_files=("table3", "table7"),
    figure="figure_4",
    row_tokens=256,
    published_row_bytes=1600,
)
