"""Readers of foreign text under anything that may stand in it: a result that is right, or a
`UserError`; nothing else."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from introspect_utils.extras.archives import make_exemplars, window
from introspect_utils.scores.judge import parse_rating
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import Profile, load_profile
from introspect_utils.tasks import outcome
from introspect_utils.tasks.rows import PATCHING, read_rows
from introspect_utils.tasks.task_ablation import answer_letter, checked
from introspect_utils.tasks.task_features import description

MORE = 2000  # examples under --slow
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NESTED = st.recursive(
    SCALAR,
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=4), part, max_size=3)
    ),
)
JSON = SCALAR | NESTED
PIECES = [
    "remain unchanged from",
    "change to",
    "<<<",
    ">>>",
    ">",
    "<",
    " ",
    "\n",
    "Paris",
    "Answer: B",
    "not ",
    "The output ",
]
GENERATION = st.text(max_size=60) | st.lists(
    st.sampled_from(PIECES) | st.text(max_size=3), max_size=14
).map("".join)


def fuzzed(**strategies):
    """Two tests of one property: a few examples in every run, many under --slow."""

    def both(check):
        quick = settings(max_examples=60, suppress_health_check=list(HealthCheck))
        many = settings(max_examples=MORE, suppress_health_check=list(HealthCheck))
        return quick(given(**strategies)(check)), pytest.mark.slow(many(given(**strategies)(check)))

    return both


@fuzzed(generation=GENERATION)
def outcomes(generation):
    """What is read stands in the generation, word for word, directly before a pair of brackets; the
    first one counts."""
    changed, content = outcome.parse(generation)
    places = [found for found in re.finditer("remain unchanged from|change to", generation)]
    read = [found for found in places if re.match(r"\s*<<<[\s\S]*?>>>", generation[found.end() :])]
    assert (changed is None) == (not read)
    if read:
        assert changed == (read[0][0] == "change to")
        assert re.match(rf"\s*<<<{re.escape(content)}>>>", generation[read[0].end() :])
    else:
        assert content == ""
    scored = outcome.predictions([generation], [True], ["Paris"], "self", "full", answer_letter)
    [row] = scored.to_dict("records")
    assert not row["exact_match"] or (row["has_changed"] and row["content_match"])


test_outcomes, test_many_outcomes = outcomes


@fuzzed(text=GENERATION)
def small_readers(text):
    letter = answer_letter(text)
    assert letter == "" or (letter in "ABCD" and re.sub(r"Answer:|[\s().]", "", text) == letter)
    assert "\n" not in description(text) and description(text) in text
    rating = parse_rating(text)
    assert rating is None or (text.strip() == str(rating) and 1 <= rating <= 5)


test_small_readers, test_many_small_readers = small_readers


@fuzzed(
    rows=st.lists(st.dictionaries(st.sampled_from(PATCHING.names), JSON), min_size=1, max_size=3),
    raw=st.binary(),
)
def parquet_rows(rows, raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    vector = {
        "orig_pos": 0,
        "counterfact_pos": 0,
        "orig_text_token": "a",
        "counterfact_text_token": "b",
    }
    vector["intervention_vector"] = [1.0, 2.0]
    whole = {
        "layer": [0],
        "input_tokens": ["a"],
        "original_continuation": ["b"],
        "ablated_continuation": ["c"],
    }
    whole |= {
        "is_different": True,
        "patch_position": vector,
        "counterfactual_text": "x",
        "token_type": "Subject",
    }
    whole |= {"gt_original_target": "b", "gt_counterfactual_target": "c"}
    try:
        table = pa.Table.from_pylist([whole | row for row in rows])
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
        UnicodeEncodeError,
        ValueError,
    ):
        return  # no such table can be written
    try:
        pq.write_table(table, folder / "rows.parquet")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return
    (folder / "raw.parquet").write_bytes(raw)
    with pytest.raises(UserError):
        read_rows(folder / "raw.parquet")
    try:
        found = read_rows(folder / "rows.parquet")
    except UserError:
        return
    for row in found:
        v = np.asarray(row["patch_position"]["intervention_vector"], np.float32)
        assert v.ndim == 1 and len(v) and np.isfinite(v.astype(np.float64)).all()
        assert (
            type(row["is_different"]) is bool
            and all(isinstance(layer, int) for layer in row["layer"])
            and row["layer"]
        )
        assert "".join(row["input_tokens"]) is not None and isinstance(
            row["ablated_continuation"][0], str
        )


test_parquet_rows, test_many_parquet_rows = parquet_rows


@fuzzed(
    row=st.fixed_dictionaries(
        dict.fromkeys(
            ("zeroshot_prediction", "random_hint_prediction", "correct_answer"), st.just("A") | JSON
        )
        | {
            "choices": st.lists(st.text(), min_size=4, max_size=4) | JSON,
            "changed_pred_bc_hint": st.none() | st.booleans(),
            "hint": st.sampled_from(["Hint: B", "Hint: The answer is C", "Hint: E", ""]),
        }
    )
)
def hint_rows(row):
    try:
        [found] = checked([row], "rows")
    except UserError:
        return
    letters = [
        found[key] for key in ("zeroshot_prediction", "random_hint_prediction", "correct_answer")
    ]
    assert all(letter in ("A", "B", "C", "D") for letter in letters) and isinstance(
        found["changed_pred_bc_hint"], bool
    )
    assert [type(choice) for choice in found["choices"]] == [str] * 4


test_hint_rows, test_many_hint_rows = hint_rows


@fuzzed(
    ids=st.lists(st.integers(-5, 30), max_size=12),
    values=st.lists(st.floats(width=32), max_size=12),
    length=st.integers(1, 6),
)
def windows(ids, values, length):
    n = min(len(ids), len(values))
    text = np.ones(20, bool)
    found = window(np.array(ids[:n], np.int64), np.array(values[:n], np.float32), text, length)
    if found is not None:
        assert len(found[0]) == len(found[1]) == length
        assert np.isfinite(found[1]).all() and ((0 <= found[0]) & (found[0] < 20)).all()
        assert make_exemplars([[found]], 1).peak.item() == found[1].max()


test_windows, test_many_windows = windows


@fuzzed(
    value=JSON,
    text=st.text(alphabet="[]{}&*!?:-|>'\"%@` \n#,0123456789aex.", max_size=40),
    at=st.integers(0, 60),
)
def profiles(value, text, at, tmp_path_factory):
    """Any value in place of any setting, and any YAML between the lines."""
    from introspect_utils.settings.paths import REPO

    lines = (REPO / "params" / "smoke.yaml").read_text().splitlines()
    at %= len(lines)
    key = lines[at].partition(":")[0]
    for broken in (
        [*lines[:at], f"{key}: {json.dumps(value)}", *lines[at + 1 :]],
        [*lines[:at], text, *lines[at:]],
    ):
        path = tmp_path_factory.mktemp("profile") / "mine.yaml"
        path.write_text("\n".join(broken), "utf-8", errors="surrogatepass")
        try:
            assert isinstance(load_profile(path), Profile)
        except UserError as error:
            assert str(path) in str(error)


test_profiles, test_many_profiles = profiles
