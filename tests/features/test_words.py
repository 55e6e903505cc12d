import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from introspect_utils.features.words import NONE, Words, core, shifted
from introspect_utils.models.load import load_model
from introspect_utils.models.tokens import texts_of

TOKENIZER = load_model("tiny-llama", "cpu").tokenizer
TEXT = 'Berlin, Oslo, and Rome is the capital (of Norway) in 1994. "He walked." She didn\'t cost 3.5\nThe well-known Actor'


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def words_of(text):
    return Words(TOKENIZER, torch.tensor([ids_of(text)]))


def listed(words, row=0):
    return [words.text[number] for number in words.word[row][words.first[row]]]


def where(words, flag):
    """The words, in order, of which some token has the flag."""
    holds = words.flags[0, :, words.flag_names.index(flag)]
    occurrence = np.cumsum(words.first[0]) - 1
    return [listed(words)[i] for i in dict.fromkeys(occurrence[holds].tolist())]


# --- pieces and words


@settings(max_examples=15)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
)
def test_any_text_is_cut_into_words_without_gaps(text):
    words = words_of(text)
    assert words.first[0, 0] and words.last[0, -1]
    assert np.array_equal(words.first[:, 1:], words.last[:, :-1])
    assert (words.word >= 0).all() and words.flags.shape == (
        *words.word.shape,
        len(words.flag_names),
    )


@settings(max_examples=15)
@given(
    st.lists(
        st.sampled_from(
            ["Paris", "walked", "1994", "7", ",", ".", "of", "Mississippi", "'s", "zq"]
        ),
        min_size=1,
        max_size=12,
    )
)
def test_words_are_put_together_from_pieces(expected):
    """A regular expression over the whole text is the oracle."""
    text = "x " + " ".join(expected).replace(" 's", "'s")
    words = words_of(text)
    assert listed(words) == re.findall(r"'s|[A-Za-z]+|\d+|[,.]", text)
    every = listed(words)
    occurrence = np.cumsum(words.first[0]) - 1
    for t, i in enumerate(occurrence):
        assert words.text[words.before[0, t]] == (every[i - 1] if i else "")
        assert words.text[words.after[0, t]] == (every[i + 1] if i + 1 < len(every) else "")


def test_pieces_keep_their_spaces():
    ids = ids_of(TEXT)
    assert "".join(texts_of(TOKENIZER, [[i] for i in ids])) == TEXT


def test_pieces_keep_their_spaces_where_the_decoder_drops_the_first():
    tokenizer = Tokenizer(
        models.WordLevel({"▁a": 0, "▁the": 1, "▁dog": 2, "s": 3, "<unk>": 4}, "<unk>")
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert tokenizer.decode([2]) == "dog"  # that is the trap
    assert texts_of(tokenizer, [[1], [2], [3]]) == [" the", " dog", "s"]
    assert listed(Words(tokenizer, torch.tensor([[1, 2, 3, 1]]))) == ["the", "dogs", "the"]


def test_words_do_not_run_over_the_end_of_a_window():
    ids = ids_of("the capital")
    words = Words(TOKENIZER, torch.tensor([ids, ids]))
    assert listed(words, 0) == listed(words, 1) == ["the", "capital"]
    assert words.before[1, 0] == NONE and words.after[0, -1] == NONE


def test_core():
    assert [core(piece) for piece in (' "The', " dog", "’s", "),", "\n", " ", "é!")] == [
        "The",
        "dog",
        "'s",
        "),",
        "\n",
        " ",
        "é",
    ]


# --- what is known of a word


def test_what_is_known_of_a_word():
    words = words_of(TEXT + " actor ran")
    number = {text: i for i, text in enumerate(words.text)}
    assert (
        words.text[words.lower[number["Rome"]]] == "rome"
        and words.text[words.lemma[number["ran"]]] == "run"
    )
    assert [words.text[i] for i in words.prefix[number["walked"]]] == ["w", "wa", "wal", "walk"]
    assert [words.text[i] for i in words.suffix[number["ran"]]] == [
        "n",
        "",
        "",
        "",
    ]  # an affix is not the whole word
    assert (
        words.shown[words.lower[number["Rome"]]] == "Rome"
        and words.shown[words.lower[number["Actor"]]] == "actor"
    )
    assert words.member[number["Rome"], words.class_names.index("names of cities and towns")]
    assert (
        words.is_mark[number[","]]
        and words.is_digits[number["1994"]]
        and words.is_capital[number["She"]]
    )


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("the first word of a sentence", ["He", "She", "The"]),
        ("the last word of a sentence", ["1994", "walked", "3", "5"]),
        ("proper names", ["Oslo", "Rome", "Norway", "Actor"]),
        ("commas before 'and', 'or' or 'but'", [","]),
        ("hyphens inside words", ["-"]),
        ("marks inside numbers", ["."]),
        ("text in brackets", ["of", "Norway"]),
        ("text in quotation marks", ["He", "walked", "."]),
        ("the beginning of the text", ["Berlin"]),
    ],
)
def test_places(flag, expected):
    assert where(words_of(TEXT), flag) == expected


def test_only_commas_near_another_are_of_a_list():
    words = words_of(
        "Oslo, Rome, and Berlin is the capital of the country of the country of the country of "
        "Norway, in the state"
    )
    holds = words.flags[0, :, words.flag_names.index("commas between items of a list")]
    commas = np.flatnonzero([words.text[number] == "," for number in words.word[0]])
    assert holds[commas].tolist() == [True, True, False] and holds.sum() == 2


@given(st.integers(-4, 4), st.integers(1, 4))
def test_shifted(by, length):
    array = np.arange(1, 2 * length + 1).reshape(2, length)
    expected = [
        [row[t + by] if 0 <= t + by < length else 0 for t in range(length)]
        for row in array.tolist()
    ]
    assert shifted(array, by).tolist() == expected
