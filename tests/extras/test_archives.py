import collections
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from introspect_utils.extras.archives import (
    descriptions,
    make_exemplars,
    other_vectors,
    sae_directions,
    sequences,
    text_tokens,
    window,
)
from introspect_utils.extras.unpickle import read
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
            np.save(where / "max_seq_acts.npy", acts)
            np.save(where / "max_seq_ids.npy", ids)
    return folder


@pytest.fixture
def archive(published, tmp_path):
    return shutil.copytree(published, tmp_path / "archive")


# --- features and descriptions


def of_layer(archive, layer, split="test"):
    return descriptions(archive, split).query("layer == @layer")


def test_descriptions(published):
    found = descriptions(published, "test")
    assert found[["layer", "number"]].to_records(index=False).tolist() == PAIRS["test"][::-1]
    assert found["feature"].tolist() == ["sae/0/1", "sae/2/4", "sae/0/4", "sae/2/1"]
    assert found["row"].tolist() == [1, 1, 0, 0] and set(found["n_rows"]) == {2}
    assert found["description"][0] == "best of 0/1" and found["score"][0] == 0.5
    assert np.isnan(found["score"][2])  # nobody scored the chosen one
    assert len(descriptions(published, "train")) == 3
    with pytest.raises(UserError, match="valid_layer_feature_idxs.pkl is missing: unpack"):
        descriptions(published, "valid")


@pytest.mark.parametrize("layer", [0, 2])
def test_directions_are_the_columns_of_the_described_features(published, layer):
    asked = {split: of_layer(published, layer, split) for split in PAIRS}
    found = sae_directions(published, layer, WIDTH, asked)
    expected = columns(layer).bfloat16().float() if layer == 0 else columns(layer)
    features = [4, 1] if layer == 2 else [1, 4]
    test = found["test"]
    assert test.names == tuple(f"sae/{layer}/{feature}" for feature in features)
    assert (test.data, test.split, test.layers) == (("sae",) * 2, ("test",) * 2, (layer,) * 2)
    assert test.vectors.dtype == torch.float32
    assert torch.equal(test.vectors, expected[:, features].T)
    assert len(found["train"]) == len(asked["train"])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (columns(0)[:5], r"torch.float32 \[5, 6\] where decoder columns \[8, n\] are expected"),
        (columns(0).T.contiguous(), r"torch.float32 \[6, 8\]"),
        (columns(0)[0], r"torch.float32 \[6\]"),
        (torch.ones(WIDTH, 3, dtype=torch.int64), r"torch.int64 \[8, 3\]"),
        (np.array([[{}] * 3] * WIDTH), r"object \[8, 3\]"),
        ([1.0], "a list"),
    ],
)
def test_features_of_another_shape(archive, value, says):
    dump(archive / "features" / "layer_0.pkl", value)
    with pytest.raises(UserError, match=f"layer_0.pkl is {says}"):
        sae_directions(archive, 0, WIDTH, {})


@pytest.mark.parametrize(
    "value",
    [
        3,
        [1],
        [((0, 1), {"chosen_label": "x"})],
        [((0, 1), "x")],
        [((0, "a"), label(0, 1))],
        [((0, 1), label(0, 1) | {"chosen_label": None})],
    ],
)
def test_explanations_of_another_form(archive, value):
    dump(archive / "explanations" / "test_explanations.pkl", value)
    with pytest.raises(UserError, match="test_explanations.pkl is no list of"):
        descriptions(archive, "test")


def test_a_feature_that_is_described_twice_keeps_its_first_label(archive):
    labels = [((2, feature), label(2, feature)) for feature in (4, 1, 4, 5)]
    labels[2][1]["chosen_label"] = "another"
    dump(archive / "explanations" / "test_explanations.pkl", labels)
    found = of_layer(archive, 2)
    assert found["number"].tolist() == [4, 1, 5] and found["description"].iloc[0] == "best of 2/4"
    assert found["row"].fillna(-1).tolist() == [1, 0, -1]


def test_a_described_feature_that_is_not_there(archive):
    dump(archive / "features" / "layer_2.pkl", columns(2)[:, :5])
    with pytest.raises(UserError, match="layer_2.pkl has 5 vectors, number 5 is asked for"):
        sae_directions(archive, 2, WIDTH, {"train": of_layer(archive, 2, "train")})
    with pytest.raises(UserError, match="layer_3.pkl is missing"):
        sae_directions(archive, 3, WIDTH, {})


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
        "builtins.getattr": Calls(getattr, [], "append"),
        "io.open": Calls(open, str(made), "w"),
        "numpy.load": Calls(np.load, str(made)),
        "posix.mkdir": hidden(Calls(os.mkdir, str(made))),
    }


@pytest.mark.parametrize("protocol", [0, 5])
@pytest.mark.parametrize("name", list(evils("")))
def test_a_pickle_that_would_run_something_is_refused(tmp_path, name, protocol):
    path = tmp_path / "x.pkl"
    dump(path, [((0, 1), evils(tmp_path / "made")[name])], protocol)
    with pytest.raises(UserError, match=rf"was not read: it names (\w+\.)*{name.split('.')[-1]}, "):
        read(path)
    assert not (tmp_path / "made").exists()


def test_a_tensor_file_that_would_run_something_is_refused(tmp_path):
    torch.save([evils(tmp_path / "made")["posix.system"]], tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x.pt was not read: it names [\w.]*system, which"):
        read(tmp_path / "x.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["collections\nOrderedDict.fromkeys", "numpy\nndarray.tofile"])
def test_names_inside_what_is_allowed_are_refused(tmp_path, name):
    (tmp_path / "x.pkl").write_bytes(b"c" + name.encode() + b"\n.")
    with pytest.raises(UserError, match=f"was not read: it names {name.replace(chr(10), '.')}"):
        read(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype="f2").reshape(2, 3),
        np.asfortranarray(np.ones((2, 3))),
        np.array(["a", "bc"]),
        np.float32(0.5),
        np.int64(7),
        torch.arange(6).reshape(2, 3).bfloat16(),
        torch.ones(3, 2).T,
        torch.nn.Parameter(torch.ones(2)),
    ],
)
def test_arrays_and_tensors_come_back(tmp_path, value, protocol):
    dump(tmp_path / "x.pkl", value, protocol)
    found = read(tmp_path / "x.pkl")
    assert type(found) is type(value) and found.dtype == value.dtype
    same = torch.equal if isinstance(value, torch.Tensor) else np.array_equal
    assert same(found, value)


def test_modules_as_numpy_1_named_them(tmp_path):
    old = pickle.dumps(np.arange(3.0), 2).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    (tmp_path / "x.pkl").write_bytes(old)
    assert read(tmp_path / "x.pkl").tolist() == [0, 1, 2]


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


@settings(max_examples=30)
@given(plain, st.integers(0, 5))
def test_plain_containers_come_back(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    dump(
        path,
        [value, collections.OrderedDict(a=value), collections.defaultdict(list, b=[value])],
        protocol,
    )
    assert read(path) == [value, {"a": value}, {"b": [value]}]


def test_a_truncated_pickle_wherever_it_ends(tmp_path):
    whole = pickle.dumps([((0, 1), {"a": np.arange(3)}), torch.ones(2)])
    for keep in range(0, len(whole), 7):
        (tmp_path / "x.pkl").write_bytes(whole[:keep])
        with pytest.raises(
            UserError, match="x.pkl is truncated or damaged .*: unpack or download it again"
        ) as error:
            read(tmp_path / "x.pkl")
        assert "\n" not in str(error.value)


# --- exemplars


def test_exemplars(published, tokenizer):
    rows = of_layer(published, 2)["row"].tolist()  # 1, 0
    chosen = sequences(published, 2, rows, 2, tokenizer, length=7, n_top=3, n_random=2)
    found = make_exemplars(list(chosen.values()), 3)
    assert list(chosen) == [0, 1] and found.activations.shape == (2, 5, 7) and found.n_top == 3
    loaded = {
        (corpus, what): np.load(published / corpus / "layer2" / f"max_seq_{what}.npy")
        for corpus in ("train", "random_train")
        for what in ("acts", "ids")
    }
    for direction, row in enumerate(rows):
        top = [("train", i) for i in range(4)]
        peaks = {
            i: np.nanmax(loaded["train", "acts"][row, i, 4 if i == 3 else 1 :]) for _, i in top
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
    kept = sequences(archive, 0, [0, 1], 2, tokenizer, length=8, n_top=4, n_random=0)
    assert list(kept) == [1]
    with pytest.raises(UserError, match="none of 1 directions of layer 0 has 4 top and 0 other"):
        sequences(archive, 0, [0], 2, tokenizer, length=8, n_top=4, n_random=0)
    shutil.rmtree(archive / "random_train")  # not read where no others are asked for
    assert list(sequences(archive, 0, [1], 2, tokenizer, length=8, n_top=4, n_random=0)) == [0]
    with pytest.raises(UserError, match="random_train/layer0/max_seq_acts.npy is missing"):
        sequences(archive, 0, [1], 2, tokenizer, length=8, n_top=3, n_random=1)


def test_exemplars_of_other_vectors(published, tokenizer):
    with pytest.raises(
        UserError,
        match="train/layer2 has 2 rows where 3 are expected: these are exemplars of other vectors",
    ):
        sequences(published, 2, [0], 3, tokenizer, length=7, n_top=3, n_random=0)
    with pytest.raises(UserError, match="layer7/max_seq_acts.npy is missing"):
        sequences(published, 7, [0], 2, tokenizer, length=7, n_top=3, n_random=0)


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
        UserError, match=r"max_seq_ids.npy is truncated or damaged|ids .* do not go together"
    ) as error:
        sequences(archive, 2, [0], 2, tokenizer, length=7, n_top=3, n_random=0)
    assert "\n" not in str(error.value) and not (tmp_path / "made").exists()


def test_a_text_is_used_once_for_a_direction(archive, tokenizer):
    """The highest sequence stands among the others too, and twice among the top."""
    folders = [archive / corpus / "layer0" for corpus in ("train", "random_train")]
    ids, acts = (np.load(folders[0] / f"max_seq_{what}.npy") for what in ("ids", "acts"))
    ids[0, 1], acts[0, 1] = ids[0, 0], acts[0, 0]
    np.save(folders[0] / "max_seq_ids.npy", ids)
    np.save(folders[0] / "max_seq_acts.npy", acts)
    for what, values in (("ids", ids), ("acts", acts)):
        other = np.load(folders[1] / f"max_seq_{what}.npy")
        other[0, 0] = values[0, 0]
        np.save(folders[1] / f"max_seq_{what}.npy", other)
    [chosen] = sequences(archive, 0, [0], 2, tokenizer, length=7, n_top=3, n_random=2).values()
    assert len({part.tobytes() for part, _ in chosen}) == len(chosen) == 5


def test_special_tokens_are_no_text(tokenizer):
    text = text_tokens(tokenizer)
    special = [tokenizer.bos_token_id, tokenizer.pad_token_id]
    special.append(tokenizer.convert_tokens_to_ids("<|reserved_special_token_11|>"))
    assert len(text) == len(tokenizer) and not text[special].any()
    assert text[tokenizer("Paris").input_ids[-1]] and text.sum() > 1000


PLACES = st.tuples(st.integers(-1, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0, np.nan]))


@given(st.lists(PLACES, min_size=1), st.integers(1, 8))
def test_a_window_is_text_around_the_highest_activation(sequence, length):
    ids, values = np.array([i for i, _ in sequence]), np.array([a for _, a in sequence], np.float32)
    # id 0 is special, 4 and 5 are outside the vocabulary
    text = np.array([False, True, True, True])
    good = [i in (1, 2, 3) and np.isfinite(a) for i, a in sequence]
    best = max((a for (_, a), ok in zip(sequence, good, strict=True) if ok), default=None)
    starts = [s for s in range(len(ids) - length + 1) if all(good[s : s + length])]
    peak = next((i for i, ok in enumerate(good) if ok and values[i] == best), None)
    starts = [s for s in starts if s <= peak < s + length]
    found = window(ids, values, text, length)
    if found is None:
        assert not starts
        return
    parts = [(ids[s : s + length].tolist(), values[s : s + length].tolist()) for s in starts]
    assert (found[0].tolist(), found[1].tolist()) in parts and found[1].dtype == np.float32


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
    found = other_vectors(folder, "dact")
    assert found.names == ("dact/5/2", "dact/3/0", "dact/5/3", "dact/3/3")
    assert found.layers == (5, 3, 5, 3) and found.vectors.dtype == torch.float32
    assert torch.equal(found.vectors, expected[[2, 0, 3, 3]])
    assert found.data == ("dact",) * 4 and found.split == ("test",) * 4


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
        other_vectors(tmp_path, "act")


@pytest.mark.parametrize("name", ["test_vectors.pt", "test_indices.json"])
def test_other_vectors_missing_or_damaged(other, name):
    folder, _ = other
    path = folder / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=f"{name} is truncated or damaged"):
        other_vectors(folder, "act")
    path.unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        other_vectors(folder, "act")
