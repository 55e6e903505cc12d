"""The published data formats: ours are written and theirs are read with the same columns (REFERENCE: published data)."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from introspect_utils.errors import UserError
from introspect_utils.paths import replaced

OPTIONAL = {"token_type", "subject"}  # columns that are ours, or that only some of the published datasets have

# Transluce/act_patch_*_counterfact
PATCHING = pa.schema(
    {
        "layer": pa.list_(pa.int64()),  # a block
        "input_tokens": pa.list_(pa.string()),
        "original_continuation": pa.list_(pa.string()),
        "ablated_continuation": pa.list_(pa.string()),
        "is_different": pa.bool_(),
        "patch_position": pa.struct(
            {
                "orig_pos": pa.int64(),
                "counterfact_pos": pa.int64(),
                "orig_text_token": pa.string(),
                "counterfact_text_token": pa.string(),
                "intervention_vector": pa.list_(pa.float32()),  # v [d_target]
            }
        ),
        "counterfactual_text": pa.string(),
        "gt_original_target": pa.string(),
        "gt_counterfactual_target": pa.string(),
        "token_type": pa.string(),
    }
)

# Transluce/input_ablation_*_mmlu_hint
ABLATION = pa.schema(
    {
        "index": pa.int64(),  # the question's row in MMLU's test split
        "question": pa.string(),
        "choices": pa.list_(pa.string()),
        "correct_answer": pa.string(),  # A to D, as the next two
        "zeroshot_prediction": pa.string(),  # M(c), without the hint
        "random_hint_prediction": pa.string(),  # M(c, hint)
        "hint_token_ids": pa.list_(pa.int64()),
        "original_prompt_full": pa.string(),
        "hint_prompt_full": pa.string(),
        "system_prompt": pa.string(),
        "original_user_prompt": pa.string(),
        "hint_user_prompt": pa.string(),
        "hint": pa.string(),
        "changed_pred_bc_hint": pa.bool_(),
        "ablation_prompt": pa.string(),  # the question to the explainer
        "subject": pa.string(),  # ours
    }
)


def write_rows(path: Path, rows: Sequence[dict], schema: pa.Schema = PATCHING) -> None:
    """Write rows as Parquet, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")


def read_rows(path: Path, schema: pa.Schema = PATCHING) -> list[dict]:
    """Rows of a Parquet file. Raises `UserError` when it is missing, damaged or lacks a column."""
    notebook = f"notebooks/{'02_data_activation_patching' if schema is PATCHING else '03_data_input_ablation'}.ipynb"
    if not path.is_file():
        raise UserError(f"{path} is missing: {notebook} makes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run {notebook} again") from error
    missing = set(schema.names) - set(table.column_names) - OPTIONAL
    if missing:
        raise UserError(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
    return table.to_pylist()
