"""The published data formats: ours are written and theirs are read with the same columns (REFERENCE: published data)."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from introspect_utils.errors import UserError

# Transluce/act_patch_*_counterfact; `token_type` is there in some of them only
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


def write_rows(path: Path, rows: Sequence[dict], schema: pa.Schema = PATCHING) -> None:
    """Write rows as Parquet, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")
    os.replace(temporary, path)


def read_rows(path: Path, schema: pa.Schema = PATCHING) -> list[dict]:
    """Rows of a Parquet file. Raises `UserError` when it is missing, damaged or lacks a column."""
    if not path.is_file():
        raise UserError(f"{path} is missing: notebooks/02_data_activation_patching.ipynb makes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run notebooks/02_data_activation_patching.ipynb again") from error
    missing = set(schema.names) - set(table.column_names) - {"token_type"}
    if missing:
        raise UserError(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
    return table.to_pylist()
