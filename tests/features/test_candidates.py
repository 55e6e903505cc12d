import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr

from introspect_utils.features.candidates import MAX_WORDS, _scores, _standardised, candidates
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.features.words import Words
from introspect_utils.models.load import load_model

TOKENIZER = load_model("tiny-llama", "cpu").tokenizer
LENGTH = 24
TEXTS = """The dog ran to the river in 1994, and the cat walked behind it. Nobody in France knew of the station.
She asked for a nation, a portion, and an education; he said that the mother of two dogs was in London.
In 2016 the horse swam across the sea, while 30 birds flew over Japan. Was it cold on the mountain?
They think that the lion sat under a tree with three wolves, but the king of Norway never saw it.
A tiger climbed up the hill at noon. By 1850 Spain had an old tradition of music, dance and fiction.
We went from Rome to Berlin on Monday, then drove past Paris (which is in France) by the evening.
The sheep followed him into the house, and 12 cows came after them. You believe in the question of action.
Its population is 540, its location is the north of Germany, and of all nations it grew most after 1945.
Are you sure of the relation? The farmer fled with his pig in 1789 because of a revolution in his country.
On Friday the mouse jumped onto the table, ate some bread, and left for its hole without a sound.""".splitlines()
rng = np.random.default_rng(0)


def corpus():
    ids = TOKENIZER(" ".join(TEXTS), add_special_tokens=False)["input_ids"]
    return torch.tensor([ids[i : i + LENGTH] for i in range(0, len(ids) - LENGTH + 1, LENGTH)])


TOKENS = corpus()
WORDS = Words(TOKENIZER, TOKENS)


def exemplars(activations, n_top=6, n_random=3):
    """Exemplars of directions with these activations [n, N, T] over the whole corpus."""
    activations = torch.tensor(np.asarray(activations), dtype=torch.float32)
    order = activations.amax(2).argsort(dim=1, descending=True, stable=True)[:, : n_top + n_random]
    chosen = torch.stack([a[rows] for a, rows in zip(activations, order, strict=True)])
    flat = activations.flatten(1)
    return Exemplars(TOKENS, order, chosen, flat.mean(1), flat.amax(1), n_top)


def planted(holds):
    """Activations of a direction that is on where `holds` [N, T], with some noise."""
    return holds + 0.15 * rng.standard_normal(holds.shape)


def said(*words):
    """The tokens [N, T] of these words."""
    return np.isin(WORDS.lower[WORDS.word], [WORDS.number(word) for word in words])


def member(phrase):
    return WORDS.member[WORDS.word][..., WORDS.class_names.index(phrase)]


def after(holds):
    """The words behind these."""
    numbers = np.unique(WORDS.word[holds])
    return np.isin(WORDS.before, numbers)


PLANTED = {
    "the word 'of'": said("of"),
    "prepositions": member("prepositions"),
    "the articles 'a' and 'an'": said("a", "an"),
    "the words 'it' and 'of'": said("it", "of"),
    "commas": said(","),
    "marks that end a sentence": member("marks that end a sentence"),
    "punctuation marks": member("punctuation marks"),
    "years": member("years"),
    "names of animals": member("names of animals"),
    "names of countries": member("names of countries"),
    "verbs of motion": member("verbs of motion"),
    "verbs in the past tense": member("verbs in the past tense"),
    "words ending in '-tion'": np.isin(WORDS.suffix[WORDS.word, 3], [WORDS.number("tion")]),
    "words that come after 'of'": after(said("of")),
    "words that come after numbers": after(member("numbers")),
    "the first word of a sentence": WORDS.flags[
        ..., WORDS.flag_names.index("the first word of a sentence")
    ],
    "proper names": WORDS.flags[..., WORDS.flag_names.index("proper names")],
    "the beginning of the text": np.arange(LENGTH) == np.zeros((len(TOKENS), 1)),
    "commas and the word 'and'": said(",", "and"),
}


def mean_correlation(holds, some, row):
    """Eq. 2 by scipy, for a predicate [N, T]; 0 in exemplars where it never holds."""
    pairs = zip(
        holds[some.sequences[row]].astype(float), some.activations[row].numpy(), strict=True
    )
    return np.mean([pearsonr(p, a).statistic if np.ptp(p) else 0 for p, a in pairs])


@pytest.fixture(scope="module")
def of_planted():
    some = exemplars([planted(holds) for holds in PLANTED.values()], n_top=12)
    return some, candidates(WORDS, some, 5)


@pytest.mark.parametrize("phrase", PLANTED)
def test_a_planted_rule_is_found(of_planted, phrase):
    row, (some, found) = list(PLANTED).index(phrase), of_planted
    assert found[row][0].text == phrase
    assert found[row][0].score == pytest.approx(
        mean_correlation(PLANTED[phrase], some, row), abs=1e-5
    )


def test_a_rule_on_the_last_pieces_of_words_is_found():
    """The same phrase, whether a direction is active on all tokens of its words or on the last ones
    only."""
    animals = member("names of animals")
    assert (animals & ~WORDS.last).any()
    [of_all, of_last, of_first] = candidates(
        WORDS,
        exemplars(
            [planted(animals), planted(animals & WORDS.last), planted(animals & WORDS.first)],
            n_top=12,
        ),
        1,
    )
    assert of_all[0].text == of_last[0].text == of_first[0].text == "names of animals"
    assert min(found[0].score for found in (of_all, of_last, of_first)) > 0.5


def test_the_general_rule_needs_more_than_one_word():
    """Where only "of" is ever active, prepositions are not what the direction stands for, though
    they may correlate."""
    [of_one, of_all] = candidates(
        WORDS, exemplars([planted(said("of")), planted(member("prepositions"))], n_top=12), 5
    )
    assert [of_one[0].text, of_all[0].text] == ["the word 'of'", "prepositions"]


@settings(max_examples=30)
@given(
    arrays(np.float32, (5, LENGTH), elements=st.floats(-100, 100, width=32)),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_whatever_the_activations_there_are_different_short_phrases(activations, n, n_top):
    given_ones = torch.tensor(activations)[None]
    some = Exemplars(
        TOKENS,
        torch.arange(5)[None],
        given_ones,
        given_ones.mean((1, 2)),
        given_ones.amax((1, 2)),
        n_top,
    )
    [found] = candidates(WORDS, some, n)
    texts = [candidate.text for candidate in found]
    assert 1 <= len(texts) == len(set(texts)) <= n
    for candidate in found:
        assert 1 <= len(candidate.text.split()) <= MAX_WORDS and candidate.text.isprintable()
        assert -1 <= candidate.score <= 1
    assert candidates(WORDS, some, n + 1)[0][:n] == found  # more of them begin with these


def test_directions_do_not_depend_on_each_other():
    together = exemplars([planted(holds) for holds in list(PLANTED.values())[:6]])
    found = candidates(WORDS, together, 5)
    for row in (5, 0, 3):
        assert candidates(WORDS, together.take([row]), 5) == [found[row]]


def test_a_constant_direction_scores_nothing():
    [found] = candidates(WORDS, exemplars(np.full((1, *TOKENS.shape), 3.7)), 3)
    assert found and all(candidate.score == 0 for candidate in found)


# --- scores


@given(
    arrays(np.float64, (3, 7), elements=st.integers(-50, 50).map(float)), arrays(bool, (4, 3, 7))
)
def test_scores_are_mean_correlations(activations, holds):
    expected = [
        np.mean(
            [
                pearsonr(p, a).statistic if np.ptp(p) and np.ptp(a) else 0
                for p, a in zip(rule, activations, strict=True)
            ]
        )
        for rule in holds.astype(float)
    ]
    assert _scores(holds, _standardised(activations)) == pytest.approx(expected, abs=1e-5)
