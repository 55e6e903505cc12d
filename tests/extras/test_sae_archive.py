import collections
import functools
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.extras.sae_archive import (
    convert,
    descriptions,
    directions,
    exemplar_config,
    exemplar_rows,
    exemplars,
    vectors,
)
from introspect_utils.extras.unpickle import read_pickle, read_tensor_file
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError

WIDTH, N, SEQ = (
    8,
    6,
    12,
)  # width of the target, features of a layer, tokens of a sequence with BOS and padding
PAIRS = {"train": [(0, 0), (0, 3), (2, 5)], "test": [(2, 1), (0, 4), (2, 4), (0, 1)]}


def columns(layer):
    return torch.randn(WIDTH, N, generator=torch.Generator().manual_seed(layer))


def dump(path, value, protocol=pickle.DEFAULT_PROTOCOL):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol))


def label(layer, feature):
    chosen, other = f"best of {layer}/{feature}", f"other of {layer}/{feature}"
    scores = {other: np.float32(0.25)} if feature == 4 else {chosen: 0.5, other: 0.25}
    return {"chosen_label": chosen, "all_labels": [chosen, other], "all_label_scores": scores}


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("tiny-llama", "cpu").tokenizer


@pytest.fixture(scope="module")
def published(tmp_path_factory, tokenizer):
    """An archive as the authors publish it: test features' exemplars, padded on the left with an id
    of their own."""
    folder = tmp_path_factory.mktemp("published")
    dump(folder / "features" / "layer_0.pkl", columns(0).bfloat16())
    dump(folder / "features" / "layer_2.pkl", columns(2).numpy())
    for split, pairs in PAIRS.items():
        dump(
            folder / "explanations" / f"{split}_layer_feature_idxs.pkl",
            [(np.int64(layer), f) for layer, f in pairs],
        )
        dump(
            folder / "explanations" / f"{split}_explanations.pkl",
            [((layer, f), label(layer, f)) for layer, f in reversed(pairs)],
        )
    config = {
        "hf_model_id": "meta-llama/Llama-3.1-8B",
        "seq_len": SEQ,
        "k": 4,
        "activation_type": "SAE_RES",
    }
    (folder / "exemplar_config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    for corpus in ("train", "random_train"):
        for layer in (0, 2):
            ids = random.integers(300, 900, (2, 4, SEQ)).astype(np.int32)
            acts = random.random((2, 4, SEQ)).astype(np.float16)
            ids[..., 0], acts[..., 0] = tokenizer.bos_token_id, 99
            ids[:, 3, :3], acts[:, 3, :3] = len(tokenizer), np.nan  # the fourth sequence is shorter
            ids[:, 3, 3] = tokenizer.bos_token_id
            where = folder / corpus / f"layer{layer}"
            where.mkdir(parents=True)
            for name, value in {"seq_acts": acts, "seq_ids": ids}.items():
                np.save(where / f"max_{name}.npy", value)
                np.save(where / f"min_{name}.npy", -value)
    return folder


@pytest.fixture
def archive(published, tmp_path):
    return shutil.copytree(published, tmp_path / "archive")


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    convert(published, folder, WIDTH)
    return folder


def test_nothing_but_tensors_and_tables_is_left(converted):
    assert sorted(
        str(path.relative_to(converted)) for path in converted.rglob("*") if path.is_file()
    ) == [
        "descriptions/test.parquet",
        "descriptions/train.parquet",
        "features/layer_0.safetensors",
        "features/layer_2.safetensors",
    ]


def test_descriptions(converted):
    rows = descriptions(converted, "test")
    assert [(row["layer"], row["feature"]) for row in rows] == PAIRS["test"][
        ::-1
    ]  # the archive's order
    assert [(row["row"], row["n_rows"]) for row in rows] == [(1, 2), (1, 2), (0, 2), (0, 2)]
    assert (
        rows[0]["description"] == "best of 0/1"
        and rows[0]["score"] == 0.5
        and rows[0]["scores"] == [0.5, 0.25]
    )
    assert rows[0]["labels"] == ["best of 0/1", "other of 0/1"]
    assert (
        rows[2]["feature"] == 4 and rows[2]["score"] is None and rows[2]["scores"] == [None, 0.25]
    )
    assert [row["feature"] for row in descriptions(converted, "test", layer=2)] == [4, 1]
    assert len(descriptions(converted, "train")) == 3
    with pytest.raises(UserError, match="valid.parquet is missing: convert"):
        descriptions(converted, "valid")


@pytest.mark.parametrize("layer", [0, 2])
def test_directions_are_the_columns_of_the_described_features(converted, layer):
    found = directions(converted, "test", layer)
    features = [4, 1] if layer == 2 else [1, 4]
    assert found.names == tuple(f"sae/{layer}/{feature}" for feature in features)
    assert (found.data, found.split, found.layers) == (("sae",) * 2, ("test",) * 2, (layer,) * 2)
    expected = columns(layer).bfloat16().float() if layer == 0 else columns(layer)
    assert found.vectors.dtype == torch.float32 and torch.equal(
        found.vectors, expected[:, features].T
    )


def test_what_is_converted_is_not_read_again(archive, tmp_path):
    convert(archive, tmp_path / "new", WIDTH)
    for path in [*(archive / "features").iterdir(), *(archive / "explanations").iterdir()]:
        path.write_bytes(b"")
    convert(archive, tmp_path / "new", WIDTH)
    assert len(directions(tmp_path / "new", "train", 0).names) == 2


def test_an_interrupted_conversion_goes_on(archive, tmp_path):
    whole = (archive / "features" / "layer_2.pkl").read_bytes()
    (archive / "features" / "layer_2.pkl").write_bytes(whole[:-20])
    with pytest.raises(UserError, match="layer_2.pkl is truncated or damaged"):
        convert(archive, tmp_path / "new", WIDTH)
    assert [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()] == [
        "layer_0.safetensors"
    ]
    (archive / "features" / "layer_2.pkl").write_bytes(whole)
    convert(archive, tmp_path / "new", WIDTH)
    assert torch.equal(directions(tmp_path / "new", "train", 2).vectors, columns(2)[:, [5]].T)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (columns(0)[:5], r"torch.float32 \[5, 6\] where decoder columns \[8, n\] are expected"),
        (columns(0).T.contiguous(), r"\[6, 8\]"),
        (columns(0)[0], r"torch.float32 \[6\]"),
        (torch.ones(WIDTH, 3, dtype=torch.int64), r"torch.int64 \[8, 3\]"),
        (np.array([[{}] * 3] * WIDTH), r"object \[8, 3\]"),
        ([1.0], "a list"),
    ],
)
def test_features_of_another_shape(archive, tmp_path, value, says):
    dump(archive / "features" / "layer_0.pkl", value)
    with pytest.raises(UserError, match=f"layer_0.pkl is {says}" if says[0] != "\\" else says):
        convert(archive, tmp_path / "new", WIDTH)


@pytest.mark.parametrize(
    "name", ["features", "explanations", "explanations/test_layer_feature_idxs.pkl"]
)
def test_a_part_of_the_archive_is_missing(archive, tmp_path, name):
    path = archive / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(
        UserError, match="lacks features/layer|test_layer_feature_idxs.pkl is missing: unpack"
    ):
        convert(archive, tmp_path / "new", WIDTH)


@pytest.mark.parametrize(
    "value",
    [
        3,
        [1],
        [((0, 1), {"chosen_label": "x"})],
        [((0, 1), "x")],
        [((0, "a"), label(0, 1))],
        [((0, 1), label(0, 1) | {"all_labels": 1})],
    ],
)
def test_explanations_of_another_form(archive, tmp_path, value):
    dump(archive / "explanations" / "test_explanations.pkl", value)
    with pytest.raises(UserError, match="test_explanations.pkl is no list of"):
        convert(archive, tmp_path / "new", WIDTH)
    assert not list((tmp_path / "new" / "descriptions").glob("*"))


def test_a_feature_that_is_described_twice_keeps_its_first_label(archive, tmp_path):
    dump(
        archive / "explanations" / "test_explanations.pkl",
        [((2, feature), label(2, feature)) for feature in (4, 1, 4, 5)],
    )
    convert(archive, tmp_path / "new", WIDTH)
    assert [(row["feature"], row["row"]) for row in descriptions(tmp_path / "new", "test")] == [
        (4, 1),
        (1, 0),
        (5, None),
    ]
    assert len(directions(tmp_path / "new", "test", 2)) == 3


def test_a_described_feature_that_is_not_there(archive, tmp_path):
    dump(archive / "features" / "layer_2.pkl", columns(2)[:, :5])
    convert(archive, tmp_path / "new", WIDTH)
    with pytest.raises(UserError, match="layer_2.safetensors has 5 vectors, number 5 is asked for"):
        directions(tmp_path / "new", "train", 2)
    with pytest.raises(UserError, match="layer_3.safetensors is missing"):
        directions(tmp_path / "new", "train", 3)


# --- pickles


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def hidden(evil):
    """The pickle of a tensor whose storage is another pickle, as plain pickles of tensors are."""
    inner = io.BytesIO()
    torch.save(evil, inner)
    return Calls(torch.storage._load_from_bytes, inner.getvalue())


def evils(made):
    return {
        "posix.system": Calls(os.system, f"touch {made}"),
        "builtins.eval": Calls(eval, f"open({str(made)!r}, 'w')"),
        "builtins.getattr": Calls(getattr, [], "append"),
        "io.open": Calls(open, str(made), "w"),
        "functools.partial": Calls(functools.partial, open, str(made), "w"),
        "numpy.load": Calls(np.load, str(made)),
        "torch.serialization.load": Calls(torch.load, str(made)),
        "posix.mkdir": hidden(Calls(os.mkdir, str(made))),
    }


@pytest.mark.parametrize("name", list(evils("")))
@pytest.mark.parametrize(
    "where",
    [
        "features/layer_0.pkl",
        "explanations/test_explanations.pkl",
        "explanations/test_layer_feature_idxs.pkl",
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_run_something_is_refused(archive, tmp_path, name, where, protocol):
    dump(archive / where, [((0, 1), evils(tmp_path / "made")[name])], protocol)
    with pytest.raises(
        UserError, match=rf"{where} was not read: it names (\w+\.)*{name.split('.')[-1]}, which"
    ) as error:
        convert(archive, tmp_path / "new", WIDTH)
    assert not (tmp_path / "made").exists() and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["posix.system", "io.open"])
def test_a_tensor_file_that_would_run_something_is_refused(tmp_path, name):
    torch.save([evils(tmp_path / "made")[name]], tmp_path / "x.pt")
    with pytest.raises(
        UserError, match=rf"x.pt was not read: it names [\w.]*{name.split('.')[-1]}, which"
    ):
        read_tensor_file(tmp_path / "x.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "module",
    [
        b"builtins\nexec",
        b"os\nsystem",
        b"collections\nOrderedDict.fromkeys",
        b"numpy\nndarray.tofile",
    ],
)
def test_names_inside_what_is_allowed_are_refused(tmp_path, module):
    (tmp_path / "x.pkl").write_bytes(b"c" + module + b"\n.")
    with pytest.raises(
        UserError, match="x.pkl was not read: it names " + module.decode().replace("\n", ".")
    ):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        *(np.arange(6).reshape(2, 3).astype(kind) for kind in ("f2", "f4", "f8", "i4", "i8", "?")),
        np.asfortranarray(np.ones((2, 3))),
        np.array(["a", "bc"]),
        np.float32(0.5),
        np.int64(7),
        *(
            torch.arange(6).reshape(2, 3).to(kind)
            for kind in (torch.float32, torch.bfloat16, torch.float16, torch.int64)
        ),
        torch.ones(3, 2).T,
        torch.nn.Parameter(torch.ones(2)),
    ],
)
def test_arrays_and_tensors_come_back(tmp_path, value, protocol):
    dump(tmp_path / "x.pkl", value, protocol)
    found = read_pickle(tmp_path / "x.pkl")
    assert type(found) is type(value) and found.dtype == value.dtype
    assert (
        torch.equal(found, value)
        if isinstance(value, torch.Tensor)
        else np.array_equal(found, value)
    )


def test_modules_as_numpy_1_named_them(tmp_path):
    old = pickle.dumps(np.arange(3.0), 2).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    (tmp_path / "x.pkl").write_bytes(old)
    assert read_pickle(tmp_path / "x.pkl").tolist() == [0, 1, 2]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=8,
)


@given(plain, st.integers(0, 5))
def test_plain_containers_come_back(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    dump(
        path,
        [value, collections.OrderedDict(a=value), collections.defaultdict(list, b=[value])],
        protocol,
    )
    assert read_pickle(path) == [value, {"a": value}, {"b": [value]}]


def test_a_truncated_pickle_wherever_it_ends(tmp_path):
    whole = pickle.dumps([((0, 1), {"a": np.arange(3)}), torch.ones(2)])
    for keep in range(len(whole)):
        (tmp_path / "x.pkl").write_bytes(whole[:keep])
        with pytest.raises(
            UserError, match="x.pkl is truncated or damaged .*: unpack or download it again"
        ) as error:
            read_pickle(tmp_path / "x.pkl")
        assert "\n" not in str(error.value)


# --- exemplars


def test_exemplars(published, converted, tokenizer):
    rows = [row["row"] for row in descriptions(converted, "test", layer=2)]  # 1, 0
    kept, found = exemplars(published, 2, rows, 2, tokenizer, length=7, n_top=3, n_random=2)
    assert kept == [0, 1] and found.activations.shape == (2, 5, 7) and found.n_top == 3
    loaded = {
        (corpus, what): np.load(published / corpus / "layer2" / f"max_seq_{what}.npy")
        for corpus in ("train", "random_train")
        for what in ("acts", "ids")
    }
    for direction, row in enumerate(rows):
        sequences = [("train", i) for i in range(4)]
        peaks = {
            i: np.nanmax(loaded["train", "acts"][row, i, 4 if i == 3 else 1 :])
            for _, i in sequences
        }
        order = [("train", i) for i in sorted(peaks, key=lambda i: -peaks[i])][:3] + [
            ("random_train", 0),
            ("random_train", 1),
        ]
        for rank, (corpus, i) in enumerate(order):
            ids, acts = (loaded[corpus, what][row, i] for what in ("ids", "acts"))
            got = found.tokens[found.sequences[direction, rank]].tolist()
            [start] = [s for s in range(SEQ - 6) if ids[s : s + 7].tolist() == got]
            assert (
                start >= (4 if i == 3 else 1)
                and found.activations[direction, rank].tolist() == acts[start : start + 7].tolist()
            )
            assert found.activations[direction, rank].max() == np.nanmax(acts[4 if i == 3 else 1 :])
        assert found.peak[direction] == found.activations[direction, 0].max()
    assert found.binned().max() == 10 and found.describing().n_top == 2


def test_a_vector_without_enough_sequences_is_left_out(archive, tokenizer):
    path = archive / "train" / "layer0" / "max_seq_ids.npy"
    ids = np.load(path)
    ids[0, :3, 6] = tokenizer.bos_token_id
    np.save(path, ids)
    kept, found = exemplars(archive, 0, [0, 1], 2, tokenizer, length=8, n_top=4, n_random=0)
    assert kept == [1] and len(found) == 1
    shutil.rmtree(archive / "random_train")  # not read where no others are asked for
    assert exemplars(archive, 0, [1], 2, tokenizer, length=8, n_top=4, n_random=0)[0] == [0]
    with pytest.raises(UserError, match="random_train/layer0/max_seq_acts.npy is missing"):
        exemplars(archive, 0, [1], 2, tokenizer, length=8, n_top=3, n_random=1)


def test_exemplars_of_other_vectors(published, tokenizer):
    with pytest.raises(
        UserError,
        match="train/layer2 has 2 rows where 3 are expected: these are exemplars of other vectors",
    ):
        exemplars(published, 2, [0], 3, tokenizer, length=7, n_top=3, n_random=0)
    with pytest.raises(UserError, match="layer7/max_seq_acts.npy is missing"):
        exemplars(published, 7, [0], 2, tokenizer, length=7, n_top=3, n_random=0)


@pytest.mark.parametrize(
    "fault", ["truncated", "empty", "objects", "pickle", "shape", "ids", "flat"]
)
def test_damaged_exemplar_files(archive, tokenizer, fault, tmp_path):
    path = archive / "train" / "layer2" / "max_seq_ids.npy"
    ids = np.load(path)
    if fault in ("truncated", "empty"):
        path.write_bytes(path.read_bytes()[: -10 if fault == "truncated" else 0])
    elif fault == "pickle":
        dump(path, evils(tmp_path / "made")["posix.system"])
    elif fault == "objects":
        np.save(
            path,
            np.array([[evils(tmp_path / "made")["posix.system"]]], dtype=object),
            allow_pickle=True,
        )
    else:
        np.save(path, {"shape": ids[..., 1:], "ids": ids.astype(float), "flat": ids[0]}[fault])
    with pytest.raises(
        UserError, match=r"max_seq_ids.npy is damaged, or no array|ids .* do not go together"
    ) as error:
        exemplars(archive, 2, [0], 2, tokenizer, length=7, n_top=3, n_random=0)
    assert "\n" not in str(error.value) and not (tmp_path / "made").exists()


def test_exemplar_config(archive):
    assert exemplar_config(archive)["activation_type"] == "SAE_RES"
    (archive / "exemplar_config.json").write_text("{")
    with pytest.raises(UserError, match="exemplar_config.json is damaged"):
        exemplar_config(archive)


# --- the archives of full activations and of activation differences


@pytest.fixture
def other(tmp_path):
    found = torch.randn(
        4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).bfloat16()
    torch.save(found, tmp_path / "test_vectors.pt")
    (tmp_path / "test_indices.json").write_text(json.dumps([[5, 2], ["3", 0], [5, 3], [3, 3]]))
    return tmp_path, found.float()


def test_other_vectors(other):
    folder, expected = other
    found = vectors(folder, "dact")
    assert found.names == ("dact/5/2", "dact/3/0", "dact/5/3", "dact/3/3") and found.layers == (
        5,
        3,
        5,
        3,
    )
    assert (
        torch.equal(found.vectors, expected[[2, 0, 3, 3]]) and found.vectors.dtype == torch.float32
    )
    assert (
        found.data == ("dact",) * 4
        and found.split == ("test",) * 4
        and exemplar_rows(found.layers) == [0, 0, 1, 1]
    )


@pytest.mark.parametrize(
    ("indices", "found", "says"),
    [
        ([[0, 4]], torch.ones(4, 2), "test_vectors.pt has 4 vectors, number 4 is asked for"),
        (
            [[0, 1], [0, -1]],
            torch.ones(4, 2),
            "test_vectors.pt has 4 vectors, number -1 is asked for",
        ),
        ([[0, 0]], torch.ones(4), r"test_vectors.pt is torch.float32 \[4\] where vectors"),
        ([[0, 0]], {"a": torch.ones(4)}, "test_vectors.pt is a dict where vectors"),
        ([0, 1], torch.ones(4, 2), r"test_indices.json is no list of \(layer, number\)"),
    ],
)
def test_other_vectors_of_another_form(tmp_path, indices, found, says):
    torch.save(found, tmp_path / "test_vectors.pt")
    (tmp_path / "test_indices.json").write_text(json.dumps(indices))
    with pytest.raises(UserError, match=says):
        vectors(tmp_path, "act")


@pytest.mark.parametrize("name", ["test_vectors.pt", "test_indices.json"])
def test_other_vectors_missing_or_damaged(other, name):
    folder, _ = other
    path = folder / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=f"{name} is (truncated or )?damaged"):
        vectors(folder, "act")
    path.unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        vectors(folder, "act")
