import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from introspect_utils.data.facts import load_facts, make_pairs
from introspect_utils.data.prompts import statement
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import patching
from introspect_utils.tasks.rows import (
    PATCHING,
    asked_about,
    fetch,
    read_rows,
    read_splits,
    write_rows,
)
from introspect_utils.tasks.task_patching import examples, predictions

# REFERENCE.md, "Published data", and the columns of ours
COLUMNS = [
    *(
        "layer",
        "input_tokens",
        "original_continuation",
        "ablated_continuation",
        "is_different",
        "patch_position",
    ),
    *("counterfactual_text", "gt_original_target", "gt_counterfactual_target", "token_type"),
    *("subject", "relation"),
]
PLACE = [
    "orig_pos",
    "counterfact_pos",
    "orig_text_token",
    "counterfact_text_token",
    "intervention_vector",
]


@pytest.fixture(scope="module")
def rows():
    lm, facts = load_model("tiny-qwen3", "cpu"), load_facts("packaged")
    pairs = make_pairs(facts, 3, seed=0)
    return list(
        patching.patch_outcomes(
            lm, pairs, patching.choose_demonstrations(facts, 0, 0), n_blocks=2, known_only=False
        )
    )


@pytest.fixture
def path(tmp_path, rows):
    write_rows(tmp_path / "patching" / "train.parquet", rows)  # the folder is made
    return tmp_path / "patching" / "train.parquet"


def test_rows_come_back_as_they_were(path, rows):
    again = read_rows(path)
    assert len(again) == len(rows) > 10
    for row, other in zip(rows, again, strict=True):
        assert list(row) == list(other) == COLUMNS and list(other["patch_position"]) == PLACE
        vectors = [
            np.asarray(part["patch_position"]["intervention_vector"], dtype=np.float32)
            for part in (row, other)
        ]
        np.testing.assert_array_equal(*vectors)
        for name in set(COLUMNS) - {"patch_position"}:
            assert row[name] == other[name] and type(row[name]) is type(other[name]), name
        for name in set(PLACE) - {"intervention_vector"}:
            assert row["patch_position"][name] == other["patch_position"][name]
    questions = [examples(part, "full", seed=0)[0].question for part in (rows, again)]
    assert questions[0].text == questions[1].text and torch.equal(
        questions[0].vector, questions[1].vector
    )


def test_the_file_has_the_published_columns_and_types(path):
    schema = pq.read_schema(path)
    assert schema.names == COLUMNS
    place = schema.field("patch_position").type
    assert [field.name for field in place] == PLACE
    assert place.field("intervention_vector").type.value_type == pa.float32()
    assert (
        schema.field("layer").type.value_type == pa.int64()
        and schema.field("is_different").type == pa.bool_()
    )


def test_a_published_file_without_token_types_and_with_more_columns_is_read(tmp_path, rows):
    table = pa.Table.from_pylist(rows, schema=PATCHING).drop_columns("token_type")
    table = table.append_column("ablated_token_positions", pa.array([[0]] * len(rows)))
    pq.write_table(table, tmp_path / "theirs.parquet")
    [first, *_] = read_rows(tmp_path / "theirs.parquet")
    assert (
        "token_type" not in first and first["gt_original_target"] == rows[0]["gt_original_target"]
    )


def test_a_missing_column_is_named(path):
    pq.write_table(pq.read_table(path).drop_columns(["is_different", "layer"]), path)
    with pytest.raises(
        UserError, match=r"train.parquet lacks the column\(s\) is_different, layer$"
    ):
        read_rows(path)


def test_a_missing_file_says_what_makes_it(tmp_path):
    with pytest.raises(
        UserError,
        match="none.parquet is missing: notebooks/02_data_activation_patching.ipynb makes it",
    ):
        read_rows(tmp_path / "none.parquet")


@pytest.mark.parametrize("keep", [0, 100, -9])
def test_a_damaged_file_is_one_line(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        UserError,
        match="train.parquet is damaged .*: delete it and run notebooks/02_data_activation_patching.ipynb",
    ) as error:
        read_rows(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["a string for a list", "while writing"])
def test_a_write_that_fails_leaves_the_old_file(path, rows, where, monkeypatch):
    before = path.read_bytes()
    if where == "while writing":

        def interrupted(table, file, **settings):
            file.write_bytes(b"half a file")
            raise KeyboardInterrupt

        monkeypatch.setattr(pq, "write_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_rows(path, rows)
    else:
        with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
            write_rows(path, [{**rows[0], "layer": "0-1"}])
    assert path.read_bytes() == before


def test_no_rows_make_a_whole_file(tmp_path):
    write_rows(tmp_path / "none.parquet", [])
    assert read_rows(tmp_path / "none.parquet") == []
    assert pq.read_schema(tmp_path / "none.parquet").names == COLUMNS


@pytest.fixture
def published(tmp_path, rows):
    """A published data set: other layouts of the same types, no token types, a column more, nulls
    where they may be."""
    folder = tmp_path / "published"
    folder.mkdir()
    table = pa.Table.from_pylist(rows, schema=PATCHING).drop_columns("token_type")
    large = table.schema.set(
        table.schema.get_field_index("layer"), pa.field("layer", pa.large_list(pa.int32()))
    )
    table = table.cast(large).append_column("ablated_token_positions", pa.array([[1]] * len(rows)))
    pq.write_table(table[:8], folder / "train.parquet")
    pq.write_table(table[8:], folder / "test.parquet")
    return folder


def test_a_published_data_set_is_put_where_ours_would_be(published, tmp_path, rows):
    counts = fetch(str(published), tmp_path / "ours", PATCHING, "tiny-qwen3")
    assert counts == {"train": 8, "test": len(rows) - 8}
    fetched = read_rows(tmp_path / "ours" / "train.parquet")
    assert [row["ablated_continuation"] for row in fetched] == [
        row["ablated_continuation"] for row in rows[:8]
    ]
    assert examples(fetched, "full", 0)[0].question.vector.shape == (32,)
    assert predictions(fetched, ["x"] * 8, "self", "full")["token_type"].isna().all()


@pytest.mark.parametrize("name", ["tiny-qwen3", "tiny-llama"])
def test_the_tokenizers_own_strings_become_text(tmp_path, rows, name):
    """As the authors publish them: "Ġis", "ĊĊ", a character in several tokens, the chat's marks."""
    tokenizer = load_model(name, "cpu").tokenizer
    text = "<|im_start|>user\nCôte d'Ivoire 🙂 is the capital of\n\nRespond with one of é or 東京"
    strings = tokenizer.tokenize(text)
    assert any("Ġ" in s for s in strings) and any("Ċ" in s for s in strings)
    place = strings.index("Ġis")
    own = rows[0]["patch_position"] | {"orig_pos": place, "orig_text_token": "Ġis"}
    theirs = rows[0] | {"input_tokens": strings, "patch_position": own}
    # theirs are text; of another publisher they may be strings, too
    theirs |= {"original_continuation": [" Côte"], "ablated_continuation": ["ĠR", "ome"]}
    (tmp_path / "theirs").mkdir()
    for split in ("train", "test"):  # beside a row that is text already
        table = pa.Table.from_pylist([theirs, rows[1]], schema=PATCHING)
        pq.write_table(table, tmp_path / "theirs" / f"{split}.parquet")
    fetch(str(tmp_path / "theirs"), tmp_path / "ours", PATCHING, name)
    row, other = read_rows(tmp_path / "ours" / "test.parquet")
    assert "".join(row["input_tokens"]) == text and len(row["input_tokens"]) == len(strings)
    assert row["input_tokens"][place] == row["patch_position"]["orig_text_token"] == " is"
    assert row["original_continuation"] == [" Côte"]
    assert row["ablated_continuation"] == [" R", "ome"]
    assert other["input_tokens"] == rows[1]["input_tokens"]
    assert (
        other["patch_position"]["orig_text_token"] == rows[1]["patch_position"]["orig_text_token"]
    )


def test_strings_of_another_tokenizer_are_refused(tmp_path, rows):
    """Read as text, "▁Rome▁is" would be asked as it stands."""
    strings = [text.replace(" ", "▁").replace("\n", "<0x0A>") for text in rows[1]["input_tokens"]]
    for split in ("train", "test"):
        table = pa.Table.from_pylist(
            [rows[0], rows[1] | {"input_tokens": strings}], schema=PATCHING
        )
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(UserError, match="train, row 1: no space in .*another tokenizer than that"):
        fetch(str(tmp_path), tmp_path / "ours", PATCHING, "tiny-qwen3")
    assert not list((tmp_path / "ours").glob("train*"))


def test_the_authors_split_is_kept_and_ours_must_be_disjoint(published, tmp_path, rows):
    fetch(str(published), tmp_path / "theirs", PATCHING, "tiny-qwen3")
    train, test = asked_about(read_splits(tmp_path / "theirs", 8))
    assert train & test and statement("".join(rows[0]["input_tokens"])) in train
    for split in ("train", "test"):
        write_rows(tmp_path / "ours" / f"{split}.parquet", rows)
    with pytest.raises(
        UserError, match="ours: .* facts of the test rows stand among the training rows too"
    ):
        read_splits(tmp_path / "ours", 8)


def test_a_data_set_of_another_format_is_refused_by_name_and_leaves_nothing(published, tmp_path):
    tables = {path: pq.read_table(path) for path in published.iterdir()}
    without = {path: table.drop_columns("is_different") for path, table in tables.items()}
    for parts, message in (
        (without, r"lacks the column\(s\) is_different"),
        (dict([*without.items()][:1]), "cannot load"),
    ):
        for path, table in (tables | parts).items():
            pq.write_table(table, path)
        with pytest.raises(UserError, match=message):
            fetch(str(published), tmp_path / "ours", PATCHING, "tiny-qwen3")
    assert not list((tmp_path / "ours").glob("train*"))
    with pytest.raises(UserError, match="cannot load the published rows .*no-such"):
        fetch(str(tmp_path / "no-such"), tmp_path / "ours", PATCHING, "tiny-qwen3")
