"""The published data formats: ours are written and theirs are read with the same columns
(REFERENCE: published data)."""

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from introspect_utils.data.hub import hub_rows
from introspect_utils.data.splits import check_disjoint
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import replaced
from introspect_utils.tasks.patching_questions import statement

SOURCE = b"published_as"  # in the metadata of files that `fetch` wrote
OPTIONAL = {
    "token_type",
    "subject",
    "relation",
}  # columns that are ours, or that only some of the published datasets have
# what nothing can be asked or answered without; the published datasets may have nulls elsewhere
FILLED = {
    "layer",
    "input_tokens",
    "ablated_continuation",
    "is_different",
    "patch_position",
    "orig_text_token",
} | {*("intervention_vector", "question", "system_prompt", "hint_user_prompt", "hint")}

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
        "subject": pa.string(),  # of the fact x; this and the next are ours
        "relation": pa.string(),
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
        pq.write_table(
            pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd"
        )


def read_rows(path: Path, schema: pa.Schema = PATCHING) -> list[dict]:
    """Rows of a Parquet file. Raises `UserError` as `read_table` does."""
    return read_table(path, schema).to_pylist()


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Rows of a Parquet file as a table, whose vectors take an eighth of the memory that those of
    `read_rows` do.

    Raises `UserError` when it is missing, damaged or lacks a column, or when a value that is needed
    is null, empty, of another type, or a vector of another width or not finite; the row is named.
    """
    notebook = f"notebooks/{'02_data_activation_patching' if schema is PATCHING else '03_data_input_ablation'}.ipynb"
    if not path.is_file():
        raise UserError(f"{path} is missing: {notebook} makes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run {notebook} again"
        ) from error
    missing = set(schema.names) - set(table.column_names) - OPTIONAL
    if missing:
        raise UserError(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
    for field in schema:
        wrong = (
            _wrong(table[field.name].combine_chunks(), field)
            if field.name in table.column_names
            else None
        )
        if wrong:
            raise UserError(f"{path}{wrong}: mend the data, or make it anew with {notebook}")
    return table


def read_splits(folder: Path, n_train: int, schema: pa.Schema = PATCHING) -> dict[str, list[dict]]:
    """{"train": the first `n_train` rows of train.parquet, "test": all of test.parquet}.

    Raises `UserError` as `read_rows` does, when a part has too few rows, or when a question of one
    is in the other too (but for published rows, whose split is their authors').
    """
    rows = {split: read_rows(folder / f"{split}.parquet", schema) for split in ("train", "test")}
    if len(rows["train"]) < n_train or not rows["test"]:
        there = f"{len(rows['train'])} training and {len(rows['test'])} test rows"
        raise UserError(
            f"{folder} has {there}, and {n_train} training rows and some test rows are needed: "
            "lower the sizes"
        )
    if SOURCE not in (pq.read_schema(folder / "test.parquet").metadata or {}):
        check_disjoint(
            *asked_about(rows, schema), "fact" if schema is PATCHING else "question", str(folder)
        )
    return rows | {"train": rows["train"][:n_train]}


def asked_about(
    rows: dict[str, list[dict]], schema: pa.Schema = PATCHING
) -> tuple[set[str], set[str]]:
    """What the training and the test rows are about: the facts, or the texts of the questions."""
    about = statement if schema is PATCHING else itemgetter("question")
    return tuple(set(map(about, rows[split])) for split in ("train", "test"))


def fetch(source: str, folder: Path, schema: pa.Schema) -> dict[str, int]:
    """Write the published data set `source` (a hub id, or a folder with train.parquet and
    test.parquet) as {split}.parquet in `folder`: {split: rows}. Raises `UserError` as `read_table`
    does, and then leaves nothing there."""
    counts = {}
    for split in ("train", "test"):
        table = hub_rows("the published rows", source, split, instead="").with_format("arrow")[:]
        for name in OPTIONAL & set(schema.names) - set(table.column_names):
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / f"{split}.parquet") as temporary:
            pq.write_table(
                table.replace_schema_metadata({SOURCE: source}), temporary, compression="zstd"
            )
            counts[split] = len(read_table(temporary, schema))
    return counts


def _wrong(column: pa.Array, field: pa.Field) -> str | None:
    """What is wrong with a column for the field of a schema, beginning with the row; None if
    nothing is."""
    if not _fits(column.type, field.type):
        return f": {field.name} is {column.type} where {field.type} is expected"
    if field.name not in FILLED:
        return None
    if column.null_count:
        return f", row {column.is_null().to_pylist().index(True)}: no {field.name}"
    if pa.types.is_struct(field.type):
        parts = (_wrong(pc.struct_field(column, part.name), part) for part in field.type)
        return next(filter(None, parts), None)
    if pa.types.is_list(field.type):
        lengths = pc.list_value_length(column).to_numpy()
        of_row, values = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
        if (lengths == 0).any():
            return f", row {lengths.argmin()}: {field.name} is empty"
        if values.null_count:
            return f", row {of_row[values.is_null().to_pylist().index(True)]}: a part of {field.name} is null"
        if pa.types.is_floating(values.type):
            if (lengths != lengths[:1]).any():
                return f", row {(lengths != lengths[0]).argmax()}: {field.name} has another width than that of row 0"
            finite = np.isfinite(values.to_numpy())
            return (
                None
                if finite.all()
                else f", row {of_row[(~finite).argmax()]}: {field.name} is not finite"
            )
    return None


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of a type can be read as another one without a change of meaning (widths and
    layouts may differ)."""
    types = pa.types
    if types.is_struct(wanted):
        return types.is_struct(found) and all(
            found.get_field_index(part.name) >= 0 and _fits(found.field(part.name).type, part.type)
            for part in wanted
        )
    if types.is_list(wanted):
        return (types.is_list(found) or types.is_large_list(found)) and _fits(
            found.value_type, wanted.value_type
        )
    kinds = (
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        lambda t: types.is_string(t) or types.is_large_string(t),
    )
    return types.is_null(found) or any(kind(found) and kind(wanted) for kind in kinds)
