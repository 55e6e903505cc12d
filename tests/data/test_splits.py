"""What is the same however it is spelled, and what is not."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.data.splits import check_disjoint, normalised
from introspect_utils.settings.errors import UserError


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Café de Paris", unicodedata.normalize("NFD", "Café de Paris")),
        ("Straße", "STRASSE"),
        ("ﬁnal Ｒome", "final rome"),
        ("What is it?", "What is it"),
        ("What is it: ", "“what is it…”"),
        ("the capital is ____.", "The capital is"),
        ("twenty-one\tmen", "Twenty–one  men"),
        ("rock'n'roll", "rock’n’roll"),
        ("Ro\u200bme\u00ad \ufeff", "Rome"),
        ("a,b", "a, b"),
        ("İzmir", "i\u0307zmi\u0307r".replace("mi\u0307r", "mir")),
    ],
)
def test_spellings_of_one_text(a, b):
    assert a != b and normalised(a) == normalised(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Peña", "Pena"),
        ("C++", "C"),
        ("C#", "C"),
        ("3.5", "35"),
        ("2-1", "2+1"),
        ("x < y", "x > y"),
        ("3/4", "3*4"),
        ("50%", "50"),
        ("कि", "का"),
        ("?", "!"),
        ("東京", "京都"),
    ],
)
def test_texts_that_say_different_things(a, b):
    assert normalised(a) != normalised(b)


@given(st.text())
def test_what_is_normalised_is_normal(text):
    once = normalised(text)
    assert normalised(once) == once == " ".join(once.split()) and "\0" not in once
    assert normalised(unicodedata.normalize("NFD", text)) == once


@pytest.mark.parametrize("train", ["Café is in", "cafe\u0301  is in:", "CAFÉ is in …"])
def test_a_text_of_both_parts_is_an_error_however_it_is_spelled(train):
    with pytest.raises(
        UserError, match="1 of 2 facts of the test .* for example '.* and 'Café is in'.*split the"
    ):
        check_disjoint([train, "x"], ["Café is in", "y"], "fact", "rows")


def test_parts_may_have_other_keys_than_texts():
    check_disjoint([(1, b"a")], [(2, b"a")], "direction", "file")
    check_disjoint([], ["a"], "fact", "file")
    with pytest.raises(UserError, match="1 of 2 directions of the test rows stand among"):
        check_disjoint([(1, b"a")], [(1, b"a"), (1, b"b")], "direction", "file")
