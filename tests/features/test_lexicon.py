import json

import numpy as np
import pytest

from introspect_utils.features.lexicon import (
    WORD_LISTS,
    inflections,
    lemma,
    mark_name,
    word_classes,
    word_lists,
)

VERB_FORMS = (
    "verbs in the past tense",
    "verbs in their base form",
    "verbs ending in '-ing'",
    "verbs ending in '-s'",
)


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("went", "go"),
        ("cities", "city"),
        ("cars", "car"),  # not "care"
        ("boxes", "box"),
        ("hoping", "hope"),
        ("hopping", "hop"),
        ("singing", "sing"),  # not "singe"
        ("making", "make"),  # though WordNet has "making"
        ("tried", "try"),
        ("studied", "study"),
        ("easier", "easy"),
        ("number", "number"),  # not "numb"
        ("need", "need"),
        ("glass", "glass"),
        ("zzyx", "zzyx"),
    ],
)
def test_base_forms(word, base):
    assert lemma(word) == base


@pytest.mark.parametrize(
    ("word", "phrase"),
    [
        ("dogs", "plural nouns"),
        ("women", "plural nouns"),
        ("walked", "verbs in the past tense"),
        ("went", "verbs in the past tense"),
        ("singing", "verbs ending in '-ing'"),
        ("includes", "verbs ending in '-s'"),
        ("include", "verbs in their base form"),
        ("happier", "adjectives"),
    ],
)
def test_grammatical_forms(word, phrase):
    assert {phrase} == set(inflections(word)) & {"plural nouns", "adjectives", *VERB_FORMS}


def test_marks_are_named_in_words():
    assert (
        mark_name(",") == "commas" and mark_name(").") == "closing brackets followed by full stops"
    )
    assert (
        mark_name("...") == "ellipses"
        and mark_name("--") == "dashes"
        and mark_name("@") == "the character '@'"
    )


@pytest.mark.parametrize(
    ("phrase", "inside", "outside"),
    [
        ("names of animals", "dog tiger dogs", "table of"),
        ("names of birds", "sparrow", "dog"),
        ("verbs of motion", "walk went running", "think"),
        ("units of time", "hour minutes", "inch"),
        ("names of countries", "France Japan", "france Paris"),
        ("nationalities and languages", "French American Chinese", "france"),
        ("names of months", "January May", "may"),
        ("prepositions", "of Of", "often the"),
        ("auxiliary verbs", "was would", "walk"),
        ("first names of people", "John Mary", "table"),
        ("family members", "mother sons", "the"),
        ("words for food", "bread cheese", "paper"),
        ("function words", "the and she", "mother north"),
        ("years", "1994 2016", "94 3000"),
        ("words in capital letters", "NFL", "I Nfl"),
        ("capitalised words", "Nfl", "nfl"),
        ("marks that end a sentence", '. ."', ", a"),
        ("punctuation marks", ", ).", "a 1"),
    ],
)
def test_classes(phrase, inside, outside):
    inside, outside = inside.split(), outside.split()
    names, kinds, member = word_classes(["", *inside, *outside])
    assert len(names) == len(kinds) == member.shape[1] and not member[0].any()
    column = member[:, names.index(phrase)]
    assert column.tolist() == [False] + [True] * len(inside) + [False] * len(outside)


def test_the_packaged_word_lists_are_in_order():
    """Sorted and without repetition, so that a rebuilt file differs where its content does; phrases
    short and unlike."""
    for name, table in json.loads(WORD_LISTS.read_text("utf-8")).items():
        assert list(table) == sorted(table), name
        for phrase, words in table.items():
            assert words.split() == sorted(set(words.split())), phrase
    lists = word_lists()
    phrases = [phrase for name in ("classes", "categories") for phrase in lists[name]]
    assert len(phrases) == len(set(phrases)) > 100
    assert max(len(phrase.split()) for phrase in phrases) <= 7
    assert np.median([len(lists["categories"][phrase]) for phrase in lists["categories"]]) > 50
    assert WORD_LISTS.stat().st_size < 500_000
