from itertools import pairwise

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.data import text
from introspect_utils.data.splits import normalised
from introspect_utils.models.contexts import contexts
from introspect_utils.models.tokens import token_ids
from introspect_utils.settings.errors import UserError

# --- texts
# -------------------------------------------------------------------------------------------------------------


def test_a_wikihow_paragraph_is_cleaned():
    raw = (
        '[header] How to do the " shoulder stand " yoga [title] Set up. [step] Unroll  your mat , evenly. '
        '[substeps] It is flat . Use "a" and "b" too.'
    )
    assert text.clean_wikihow(raw) == (
        'How to do the "shoulder stand" yoga\nSet up. Unroll your mat, evenly. It is flat. Use "a" and "b" too.'
    )


def test_packaged_texts():
    texts = text.load_texts("packaged")
    assert len(texts) == len(set(texts)) == 9713
    assert texts[:100] == text.load_texts("packaged", 100)
    how_to = [t.startswith("How to") for t in texts]
    assert 6600 < sum(how_to) < 6900 and 600 < sum(how_to[:1000]) < 800  # both sources, well mixed
    for mark in ("``", "''", "[step]", "[header]", "[title]", "[substeps]", "\u200b", "  \n"):
        assert not any(mark in t for t in texts), mark
    assert sum(len(t.split()) for t in texts) > 750_000


def hub(monkeypatch, rows):
    """The hub serves these rows; returns what it was asked for."""
    asked = []

    def load_dataset(*args, **settings):
        asked.append((args, settings))
        if isinstance(rows, Exception):
            raise rows
        return iter(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_fineweb_is_streamed_and_no_more_of_it_than_asked(monkeypatch):
    def rows():
        yield from ({"text": t} for t in ("a", "b", "a"))
        raise AssertionError("one row too many")

    asked = hub(monkeypatch, rows())
    assert text.load_texts("HuggingFaceFW/fineweb", 3) == ["a", "b"]
    assert asked == [
        (("HuggingFaceFW/fineweb", "sample-10BT"), {"split": "train", "streaming": True})
    ]


@pytest.mark.parametrize(
    "rows", [OSError("no network"), ValueError("no such config"), [{"content": "a"}]]
)
def test_texts_that_cannot_be_read_are_an_error(monkeypatch, rows):
    hub(monkeypatch, rows)
    with pytest.raises(UserError, match="texts 'owner/name' .*use 'packaged'|no column `text`"):
        text.load_texts("owner/name", 3)


def test_a_hub_source_needs_a_number():
    with pytest.raises(UserError, match="how many texts"):
        text.load_texts("owner/name")


# --- splits and windows
# ------------------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1), unique_by=normalised, max_size=30), st.floats(0, 1))
def test_a_split_shares_no_text_and_loses_none(texts, share):
    corpus, held_out = text.split_texts(texts, share)
    assert corpus + held_out == texts and not set(corpus) & set(held_out)
    assert len(held_out) == round(share * len(texts))


def test_a_held_out_text_is_not_the_corpuss_in_another_spelling():
    corpus, held_out = text.split_texts(["A café.", "b", "a cafe\u0301", "c"], 0.5)
    assert (corpus, held_out) == (["A café.", "b"], ["c"])


def test_windows_are_the_tokens_of_single_texts_in_order(tiny):
    texts = [
        "Rome is the capital of Italy.",
        "Oslo",
        "Helium has the chemical symbol He, and that is all.",
        "Bonn is in Germany.",
    ]
    windows = contexts(tiny, texts, 4, 6)
    assert windows.shape == (6, 4) and windows.dtype == torch.int64
    assert not (windows == tiny.tokenizer.bos_token_id).any()
    expected = []
    for one in texts:
        ids = tiny.tokenizer(one, add_special_tokens=False)["input_ids"]
        starts = list(range(0, len(ids) + 1, 4))
        expected += [ids[a:b] for a, b in pairwise(starts)]
    assert windows.tolist() == expected[:6] and len(expected) > 6


def test_equal_windows_of_different_texts_count_once(tiny):
    rome, oslo = "Rome is the capital of Italy", "Oslo is the capital of Norway"
    texts = [f"{rome}. {oslo}.", f"{oslo}!", f"{rome} ,", rome.upper(), f"“{rome}”", f"{oslo} too"]
    length = len(token_ids(tiny.tokenizer, rome))
    windows = contexts(tiny, texts, length, 4)
    said = [normalised(tiny.tokenizer.decode(ids)) for ids in windows]
    assert len(set(said)) == 4
    assert said[0] == normalised(rome)
    with pytest.raises(UserError, match="have 1 different windows of"):
        contexts(tiny, [rome, f"{rome}.", f"{rome}..."], length, 2)


def test_too_few_windows_is_an_error(tiny):
    with pytest.raises(
        UserError, match="2 texts have 0 different windows of 50 tokens, and 3 are needed"
    ):
        contexts(tiny, ["Rome", "Oslo"], 50, 3)
