import gzip
import http.server
import json
import re
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.extras.archives import (
    DESCRIPTIONS,
    make_exemplars,
    read_descriptions,
    text_tokens,
    window,
    write_descriptions,
)
from introspect_utils.extras.neuronpedia import (
    MARKS,
    Export,
    activations,
    descriptions,
    exemplars,
    token_ids,
)
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError

MODEL, SOURCE = "llama3.1-8b", "19-llamascope-res-131k"
LENGTH = 6


def explanation(feature, text):
    return {
        **{
            "id": "cm5",
            "modelId": MODEL,
            "layer": SOURCE,
            "index": str(feature),
            "authorId": "clk",
            "description": text,
        },
        **{
            "embedding": [0.25, -1.5],
            "typeName": "oai_token-act-pair",
            "explanationModelName": "gpt-4o-mini",
        },
    }


def activation(feature, tokens, values):
    peak = max(range(len(values)), key=values.__getitem__)
    return {
        **{
            "id": "cm6",
            "modelId": MODEL,
            "layer": SOURCE,
            "index": str(feature),
            "creatorId": "clk",
            "dataSource": None,
        },
        **{
            "tokens": tokens,
            "maxValue": values[peak],
            "minValue": 0,
            "values": values,
            "maxValueTokenIndex": peak,
        },
        **{"dfaValues": [], "binMin": -1, "binMax": -1, "binContains": -1},
    }


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path, MODEL, SOURCE)


def put(export, kind, *parts):
    """Write the batches of a kind, each a list of rows."""
    folder = export.folder / "v1" / MODEL / SOURCE / kind
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"batch-{number}.jsonl.gz" for number in range(len(parts))]
    for path, rows in zip(paths, parts, strict=True):
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return paths


def test_labels_of_a_feature_are_gathered_over_batches(export, tmp_path):
    first = [explanation(10, "city names"), explanation(2, " verbs of motion "), explanation(2, "")]
    second = [
        explanation(2, "verbs of motion"),
        explanation(2, "running"),
        explanation(7, None),
        explanation(1, "“quotes”"),
    ]
    put(export, "explanations", first, second)
    rows = descriptions(export)
    assert [(row["layer"], row["feature"], row["description"], row["labels"]) for row in rows] == [
        (19, 1, "“quotes”", ["“quotes”"]),
        (19, 2, "verbs of motion", ["verbs of motion", "running"]),
        (19, 10, "city names", ["city names"]),
    ]
    assert [row["scores"] for row in rows] == [[None], [None, None], [None]] and rows[0][
        "score"
    ] is None
    write_descriptions(tmp_path / "new" / "d.parquet", rows)
    assert (
        read_descriptions(tmp_path / "new" / "d.parquet") == rows
        and list(rows[0]) == DESCRIPTIONS.names
    )
    assert read_descriptions(tmp_path / "new" / "d.parquet", layer=3) == []


def test_batches_are_read_in_order_of_number(export):
    put(export, "explanations", *[[explanation(5, f"label {number}")] for number in range(12)])
    assert descriptions(export)[0]["labels"] == [f"label {number}" for number in range(12)]


def test_another_folder_of_explanations(export):
    put(export, "explanations-gpt-4o-mini", [explanation(3, "dates")])
    assert [row["description"] for row in descriptions(export, "explanations-gpt-4o-mini")] == [
        "dates"
    ]
    with pytest.raises(
        UserError,
        match="explanations has no batch-0.jsonl.gz: there are no explanations of 19-llama",
    ):
        descriptions(export)


def test_a_source_without_a_layer(export):
    with pytest.raises(UserError, match="source 'res-jb' does not start with its layer"):
        _ = Export(export.folder, MODEL, "res-jb").layer


def test_activations_are_read_a_line_at_a_time(export):
    rows = [
        activation(0, ["a", " b"], [0, 1.5]),
        activation(1, ["c"], [2]),
        activation(0, ["d"], [0.25]),
    ]
    paths = put(export, "activations", rows, [activation(2, ["e"], [1])])
    paths[1].write_bytes(b"not gzip")
    read = activations(export)
    found = [next(read) for _ in range(3)]
    assert [(part.feature, part.tokens, part.values.tolist()) for part in found] == [
        (0, ("a", " b"), [0, 1.5]),
        (1, ("c",), [2]),
        (0, ("d",), [0.25]),
    ]
    assert found[0].values.dtype == np.float32
    with pytest.raises(UserError, match="batch-1.jsonl.gz is truncated or damaged"):
        next(read)
    paths[1].unlink()
    assert [part.tokens for part in activations(export, {0})] == [("a", " b"), ("d",)]


def test_values_that_do_not_go_with_the_tokens(export):
    put(export, "activations", [activation(4, ["a", "b", "c"], [1, 2])])
    with pytest.raises(UserError, match="feature 4 has 2 values for 3 tokens"):
        list(activations(export))


@pytest.mark.parametrize("keep", [0, 1, 10, 40, -12, -4])
def test_a_truncated_batch(export, keep):
    [path] = put(
        export, "explanations", [explanation(feature, f"label {feature}") for feature in range(9)]
    )
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        UserError,
        match="batch-0.jsonl.gz is truncated or damaged .*: delete it and download it again",
    ) as error:
        descriptions(export)
    assert "\n" not in str(error.value)


def test_a_source_without_rows(export):
    put(export, "explanations", [])
    assert descriptions(export) == []


@pytest.mark.parametrize("line", ['{"modelId": ', "\xff"])
def test_a_line_that_is_no_explanation(export, line):
    [path] = put(export, "explanations", [])
    path.write_bytes(gzip.compress(line.encode("latin-1")))
    with pytest.raises(UserError, match="batch-0.jsonl.gz is truncated or damaged"):
        descriptions(export)


def test_a_missing_column_another_source_and_a_gap(export):
    rows = [explanation(1, "one"), explanation(2, "two")]
    del rows[1]["description"]
    paths = put(export, "explanations", rows)
    with pytest.raises(UserError, match="batch-0.jsonl.gz, line 2: no description; this is not"):
        descriptions(export)
    put(export, "explanations", [explanation(1, "one") | {"layer": "18-llamascope-res-131k"}])
    with pytest.raises(UserError, match="line 1: is of llama3.1-8b/18-llamascope-res-131k"):
        descriptions(export)
    put(export, "explanations", *[[explanation(number, "one")] for number in range(3)])
    paths[0].with_name("batch-1.jsonl.gz").unlink()
    with pytest.raises(UserError, match="explanations has no batch-1.jsonl.gz, but later ones"):
        descriptions(export)


class Server:
    """Serves a folder on loopback, notes what is asked for, and can fail."""

    def __init__(self, folder):
        self.asked, self.fail = [], None
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(folder))

            def do_GET(self):
                outer.asked.append(re.sub(r".*batch-(\d+).jsonl.gz", r"\1", self.path))
                if outer.fail == "error":
                    self.send_error(503)
                elif outer.fail == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"x" * 10)
                else:
                    super().do_GET()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/some/where"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(tmp_path):
    started = Server(tmp_path / "remote")
    put(
        Export(tmp_path / "remote" / "some" / "where", MODEL, SOURCE),
        "activations",
        *[[activation(i, ["a"], [1])] for i in range(3)],
    )
    yield started
    started.server.shutdown()
    started.server.server_close()


def test_batches_are_downloaded_when_their_turn_comes_and_once(server, tmp_path):
    export = Export(tmp_path / "local", MODEL, SOURCE, server.url)
    read = activations(export)
    assert next(read).feature == 0 and server.asked == ["0"]
    assert [part.feature for part in read] == [1, 2] and server.asked == [
        "0",
        "1",
        "2",
        "3",
    ]  # 3 is not there: the end
    assert [part.feature for part in activations(export)] == [0, 1, 2] and server.asked[4:] == ["3"]
    assert [part.feature for part in activations(Export(export.folder, MODEL, SOURCE))] == [0, 1, 2]
    assert len(server.asked) == 5
    with pytest.raises(UserError, match="there are no explanations of"):
        descriptions(export)


@pytest.mark.parametrize(
    ("fail", "says"), [("error", "HTTP Error 503"), ("cut", "10 of 1000 bytes arrived")]
)
def test_a_failed_download_leaves_nothing(server, tmp_path, fail, says):
    export = Export(tmp_path / "local", MODEL, SOURCE, server.url)
    read = activations(export)
    next(read)
    server.fail = fail
    with pytest.raises(
        UserError, match=f"cannot download {server.url}/v1/.*/batch-1.jsonl.gz .*{says}"
    ):
        list(read)
    assert [path.name for path in (tmp_path / "local").rglob("*") if path.is_file()] == [
        "batch-0.jsonl.gz"
    ]
    server.fail = None
    assert [part.feature for part in activations(export)] == [0, 1, 2] and server.asked.count(
        "0"
    ) == 1


@pytest.mark.parametrize("url", ["no address", "http://127.0.0.1:9"])
def test_no_server(tmp_path, url):
    with pytest.raises(UserError, match="cannot download"):
        list(activations(Export(tmp_path, MODEL, SOURCE, url)))


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("tiny-llama", "cpu").tokenizer


@pytest.mark.parametrize(
    "text", ["The capital of France is Paris.", "Who?\n “Zoë” — naïve\tcafé, 東京!", "a\\nb"]
)
@pytest.mark.parametrize("spelled", ["raw", "marks", "decoded"])
def test_a_spelling_gives_the_token_back_or_nothing(tokenizer, text, spelled):
    ids, known = tokenizer(text, add_special_tokens=False).input_ids, token_ids(tokenizer)
    raw = tokenizer.convert_ids_to_tokens(ids)
    spellings = {
        "raw": raw,
        "marks": [token.translate(MARKS) for token in raw],
        "decoded": [tokenizer.convert_tokens_to_string([token]) for token in raw],
    }[spelled]
    for number, spelling in zip(ids, spellings, strict=True):
        assert known.get(spelling, number) == number
        assert spelling in known or not spelling.isascii()


def test_special_tokens_are_no_text(tokenizer):
    text = text_tokens(tokenizer)
    assert (
        len(text) == len(tokenizer)
        and not text[tokenizer.bos_token_id]
        and not text[tokenizer.pad_token_id]
    )
    assert not text[tokenizer.convert_tokens_to_ids("<|reserved_special_token_11|>")]
    assert text[tokenizer("Paris").input_ids[-1]] and text.sum() > 1000


@given(
    st.lists(
        st.tuples(st.integers(-1, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0, np.nan])), min_size=1
    ),
    st.integers(1, 8),
)
def test_a_window_is_text_around_the_highest_activation(sequence, length):
    ids, values = np.array([i for i, _ in sequence]), np.array([a for _, a in sequence], np.float32)
    text = np.array(
        [False, True, True, True]
    )  # id 0 is special, 4 and 5 are outside the vocabulary
    good = [i in (1, 2, 3) and np.isfinite(a) for i, a in sequence]
    best = max((a for (_, a), ok in zip(sequence, good, strict=True) if ok), default=None)
    starts = [s for s in range(len(ids) - length + 1) if all(good[s : s + length])]
    peak = next((i for i, ok in enumerate(good) if ok and values[i] == best), None)
    found = window(ids, values, text, length)
    if found is None:
        assert peak is None or not any(s <= peak < s + length for s in starts)
        return
    parts = [
        (ids[s : s + length].tolist(), values[s : s + length].tolist())
        for s in starts
        if s <= peak < s + length
    ]
    assert (found[0].tolist(), found[1].tolist()) in parts and found[1].dtype == np.float32


def spelled(tokenizer, text, n):
    """The first n tokens of a text as Neuronpedia spells them, BOS first."""
    ids = tokenizer(text, add_special_tokens=False).input_ids[:n]
    return [
        "<|begin_of_text|>",
        *[token.translate(MARKS) for token in tokenizer.convert_ids_to_tokens(ids)],
    ], ids


def test_exemplars(export, tokenizer):
    texts = [
        f"{number} is {number}{number} {number}, {number} The capital of Spain is Madrid, in "
        "Europe."
        for number in range(8)
    ]
    rows, ids = [], []
    for number, text in enumerate(texts):
        tokens, numbers = spelled(tokenizer, text, 12)
        values = [50.0, *[0.0] * 12]  # whatever BOS has is left out
        values[3 + number % 3] = 1.0 + number
        rows.append(activation(7, tokens, values))
        ids.append(numbers)
    short = activation(7, *[part[:5] for part in (rows[0]["tokens"], [0, 9, 0, 0, 0])])
    unknown = activation(
        7,
        [token if i != 2 else "no such token" for i, token in enumerate(rows[1]["tokens"])],
        [0, 0, 0, 30] + [0] * 9,
    )
    put(
        export,
        "activations",
        [rows[0], short, *rows[1:5], rows[4]],
        [unknown, *rows[5:], activation(9, rows[0]["tokens"], [1] * 13)],
    )
    kept, found = exemplars(export, [9, 7, 8], tokenizer, LENGTH, n_top=3, n_random=2, seed=0)
    assert kept == [7] and found.n_top == 3 and len(found) == 1
    assert found.activations.shape == (1, 5, LENGTH) and found.tokens.shape == (5, LENGTH)
    peaks = found.activations[0].amax(1).tolist()
    assert peaks[:3] == [30, 8, 7] and len(set(peaks)) == 5 and max(peaks[3:]) < 7
    assert found.peak.tolist() == [30] and found.mean.tolist() == [0]
    assert found.binned()[0, :3].amax(1).tolist() == [10, 3, 2]  # round(10 a / peak)
    assert (
        found.tokens[0].tolist() == ids[1][2 : 2 + LENGTH]
    )  # from the token after the unknown one on
    texts_of = {1.0 + number: numbers for number, numbers in enumerate(ids)}
    for rank, peak in list(enumerate(peaks))[1:]:
        number = int(peak) - 1
        first = max(
            0, 2 + number % 3 - LENGTH // 2
        )  # a position among the text's tokens, one less than with BOS
        sequence = found.tokens[found.sequences[0, rank]]
        assert sequence.tolist() == texts_of[peak][first : first + LENGTH]
        assert found.activations[0, rank].argmax() == 2 + number % 3 - first
    again = exemplars(export, [7], tokenizer, LENGTH, n_top=3, n_random=2, seed=0)[1]
    assert torch.equal(again.tokens, found.tokens)
    put(export, "activations", [row | {"index": feature} for feature in ("7", "3") for row in rows])
    assert exemplars(export, [7, 3], tokenizer, LENGTH, n_top=3, n_random=2, seed=0)[0] == [3, 7]
    with pytest.raises(UserError, match="none of 2 directions has 10 top and 0 other sequences"):
        exemplars(export, [7, 9], tokenizer, LENGTH, n_top=10, n_random=0, seed=0)


def test_a_text_is_used_once_and_a_silent_direction_is_left_out():
    def part(first, peak):
        return np.arange(first, first + 3), np.array([0, peak, 0], np.float32)

    tops = [
        [part(0, 1), part(0, 1), part(5, 3)],
        [part(0, 0), part(5, 0)],
        [part(0, 2), part(0, 2)],
        [part(1, 2), part(2, 1)],
    ]
    others = [[part(5, 0), part(9, 0)], [part(9, 0)], [part(9, 0)], [part(1, 0), part(2, 0)]]
    kept, found = make_exemplars(tops, others, 2, 1)
    assert (
        kept == [0]
        and found.tokens[:, 0].tolist() == [5, 0, 9]
        and found.activations.amax(2).tolist() == [[3, 1, 0]]
    )
