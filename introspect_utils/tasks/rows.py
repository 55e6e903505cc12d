"""The published data formats: ours are written and theirs are read with the same columns
(REFERENCE: published data)."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from transformers import PreTrainedTokenizerBase

from introspect_utils.data.hub import hub_rows
from introspect_utils.data.prompts import statement
from introspect_utils.data.splits import check_disjoint
from introspect_utils.models.load import load_tokenizer
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import replaced

SOURCE = b"published_as"  # in the metadata of files that `fetch` wrote
SPACE = re.compile(r"\s")  # in any text; a tokenizer's own strings hold none
RAW_SPACE = re.compile("[ĠĊ]")  # a space and a line break as byte-level tokenizers write them
TYPES = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "number": pa.int64(),
    "numbers": pa.list_(pa.int64()),
    "truth": pa.bool_(),
    "vector": pa.list_(pa.float32()),
}


def _field(name: str, kind: str | dict) -> pa.Field:
    """A column of rows.yaml; no row may lack it where it is not nullable."""
    if isinstance(kind, dict):
        parts = pa.struct([_field(*part) for part in kind.items()])
        return pa.field(name.rstrip("!"), parts, nullable="!" not in name)
    metadata = {"optional": ""} if "?" in kind else None
    return pa.field(name, TYPES[kind.rstrip("!?")], nullable="!" not in kind, metadata=metadata)


PATCHING, ABLATION = (
    pa.schema([_field(*column) for column in columns.items()])
    for columns in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8")).values()
)


def write_rows(path: Path, rows: Sequence[dict], schema: pa.Schema = PATCHING) -> None:
    """Write rows as Parquet, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, temporary, compression="zstd")


def read_rows(path: Path, schema: pa.Schema = PATCHING) -> list[dict]:
    """Rows of a Parquet file. Raises `UserError` as `read_table` does."""
    return read_table(path, schema).to_pylist()


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Rows of a Parquet file as a table: its vectors take an eighth of the memory.

    Raises `UserError` when it is missing, damaged or lacks a column, or when a value that is needed
    is null, empty, of another type, or a vector of another width or not finite; the row is named.
    """
    name = "02_data_activation_patching" if schema is PATCHING else "03_data_input_ablation"
    notebook = f"notebooks/{name}.ipynb"
    if not path.is_file():
        raise UserError(f"{path} is missing: {notebook} makes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        again = f"delete it and run {notebook} again"
        raise UserError(f"{path} is damaged ({error}): {again}") from error
    needed = {field.name for field in schema if not field.metadata}
    if missing := sorted(needed - {*table.column_names}):
        raise UserError(f"{path} lacks the column(s) {', '.join(missing)}")
    for field in (field for field in schema if field.name in table.column_names):
        if problem := _problem(table[field.name].combine_chunks(), field):
            raise UserError(f"{path}{problem}: mend the data, or make it anew with {notebook}")
    return table


def read_splits(folder: Path, n_train: int, schema: pa.Schema = PATCHING) -> dict[str, list[dict]]:
    """{"train": the first `n_train` rows of train.parquet, "test": all of test.parquet}.

    Raises `UserError` as `read_rows` does, when a part has too few rows, or when a question of one
    is in the other too (but for published rows, whose split is their authors').
    """
    rows = {split: read_rows(folder / f"{split}.parquet", schema) for split in ("train", "test")}
    if len(rows["train"]) < n_train or not rows["test"]:
        there = f"{len(rows['train'])} training and {len(rows['test'])} test rows"
        needed = f"{n_train} training rows and some test rows are needed: lower the sizes"
        raise UserError(f"{folder} has {there}, and {needed}")
    if SOURCE not in (pq.read_schema(folder / "test.parquet").metadata or {}):
        what = "fact" if schema is PATCHING else "question"
        check_disjoint(*asked_about(rows, schema), what, str(folder))
    return rows | {"train": rows["train"][:n_train]}


def asked_about(
    rows: dict[str, list[dict]], schema: pa.Schema = PATCHING
) -> tuple[set[str], set[str]]:
    """The facts, or the texts of the questions, that the training and the test rows are about."""
    parts = (rows["train"], rows["test"])
    if schema is ABLATION:
        return tuple({row["question"] for row in part} for part in parts)
    return tuple({statement("".join(row["input_tokens"])) for row in part} for part in parts)


def fetch(source: str, folder: Path, schema: pa.Schema, target: str) -> dict[str, int]:
    """Write the published data set `source` (a hub id, or a folder with train.parquet and
    test.parquet) about `target` as {split}.parquet in `folder`: {split: rows}. The tokenizer's
    strings in it become text. Raises `UserError` as `read_table` does and where they do not, and
    then leaves nothing there."""
    counts, tokenizer = {}, load_tokenizer(target) if schema is PATCHING else None
    for split in ("train", "test"):
        rows = hub_rows("the published rows", source, split, instead="")
        if tokenizer and {"input_tokens", "patch_position"} <= set(rows.column_names):
            rows = rows.map(_as_text, fn_kwargs={"tokenizer": tokenizer}, keep_in_memory=True)
        table = rows.with_format("arrow")[:]
        for field in schema:
            if field.metadata and field.name not in table.column_names:
                table = table.append_column(field.name, pa.nulls(len(table), field.type))
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / f"{split}.parquet") as temporary:
            table = table.replace_schema_metadata({SOURCE: source})
            pq.write_table(table, temporary, compression="zstd")
            found = read_table(temporary, schema)
            counts[split] = len(found)
            if tokenizer:
                _check_spaces(found["input_tokens"].to_pylist(), f"{source}, {split}", target)
    return counts


def _check_spaces(rows: list[list[str]], where: str, target: str) -> None:
    """Raises `UserError` for a text without a space: "RomeĠisĠthe" would be asked as it stands."""
    for row, text in enumerate(map("".join, rows)):
        if not SPACE.search(text):
            raise UserError(
                f"{where}, row {row}: no space in {text[:40]!r}: these are the strings of another "
                f"tokenizer than that of {target}"
            )


def token_texts(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[str]:
    """The texts of a tokenizer's own strings ("Ġdeveloped", "ĊĊ"), which join to the whole text: a
    character of several tokens goes to the last."""
    texts, pending = [], []
    for token in tokens:
        pending.append(token)
        text = tokenizer.convert_tokens_to_string(pending)
        texts.append("" if "\ufffd" in text else text)
        pending = pending if "\ufffd" in text else []
    return [*texts[:-1], text] if texts else []


def _as_text(row: dict, tokenizer: PreTrainedTokenizerBase) -> dict:
    """A published row of patching with text in place of the tokenizer's strings. What is missing is
    left to `read_table`."""
    tokens, place = row["input_tokens"], row["patch_position"]
    if not tokens or not all(tokens) or not place or SPACE.search("".join(tokens)):
        return row
    names = {"orig_text_token", "counterfact_text_token"} & place.keys()
    texts = {name: "".join(token_texts(tokenizer, [place[name]])) for name in names if place[name]}
    found = {"input_tokens": token_texts(tokenizer, tokens), "patch_position": place | texts}
    # the authors' continuations are text; another's may not be
    for name in ("original_continuation", "ablated_continuation"):
        if RAW_SPACE.search("".join(row.get(name) or ())):
            found[name] = token_texts(tokenizer, row[name])
    return row | found


def _problem(column: pa.Array, field: pa.Field) -> str | None:
    """What is wrong with a column for the field of a schema, beginning with the row."""
    name, types = field.name, pa.types
    if not _fits(column.type, field.type):
        return f": {name} is {column.type} where {field.type} is expected"
    if field.nullable:
        return None
    if column.null_count:
        return f", row {column.is_null().to_pylist().index(True)}: no {name}"
    if types.is_struct(field.type):
        parts = (_problem(pc.struct_field(column, part.name), part) for part in field.type)
        return next(filter(None, parts), None)
    if not types.is_list(field.type):
        return None
    lengths, values = pc.list_value_length(column).to_numpy(), pc.list_flatten(column)
    of_row = pc.list_parent_indices(column).to_numpy()
    if (lengths == 0).any():
        return f", row {lengths.argmin()}: {name} is empty"
    if values.null_count:
        row = of_row[values.is_null().to_pylist().index(True)]
        return f", row {row}: a part of {name} is null"
    if types.is_floating(values.type):
        if (lengths != lengths[:1]).any():
            row = (lengths != lengths[0]).argmax()
            return f", row {row}: {name} has another width than that of row 0"
        finite = np.isfinite(values.to_numpy())
        if not finite.all():
            return f", row {of_row[(~finite).argmax()]}: {name} is not finite"
    return None


def _fits(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether values of a type can be read as another one without a change of meaning (widths and
    layouts may differ)."""
    types = pa.types
    if types.is_struct(expected):
        return types.is_struct(found) and all(
            found.get_field_index(part.name) >= 0 and _fits(found.field(part.name).type, part.type)
            for part in expected
        )
    if types.is_list(expected):
        is_list = types.is_list(found) or types.is_large_list(found)
        return is_list and _fits(found.value_type, expected.value_type)
    texts = types.is_string(expected) and types.is_large_string(found)
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_string)
    alike = any(kind(found) and kind(expected) for kind in kinds)
    return types.is_null(found) or texts or alike
