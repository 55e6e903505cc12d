import re
from dataclasses import replace

import pytest
import torch
from spelling import prepending_tokenizer

from introspect_utils.data.facts import Fact, FactPair, load_facts, make_pairs
from introspect_utils.features.directions import (
    Directions,
    activation_differences,
    full_activations,
    marked_text,
)
from introspect_utils.features.pairs import TokenPair
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS
from introspect_utils.tasks.patching import choose_demonstrations

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = [name for name in MODELS if name.startswith("tiny-")]


@pytest.fixture(scope="module")
def contexts():
    return torch.randint(300, 1000, (12, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def facts():
    return load_facts("packaged")


def h(lm, ids, layer, position):
    """The whole model on one text, without padding or hooks (of any layer but the last, whose
    output is normed there)."""
    with torch.inference_mode():
        return lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer + 1][
            0, position
        ]


# --- Directions


def directions():
    return Directions(
        names=("sae/1/5", "sae/2/5", "act/1/0", "dact/2/0"),
        data=("sae", "sae", "act", "dact"),
        split=("train", "test", "test", "test"),
        layers=(1, 2, 1, 2),
        vectors=torch.arange(12.0).view(4, 3),
        sources=("", "", "a <<<b>>>", 'ü "c"\nminus\nd'),
    )


def same(a, b):
    return torch.equal(a.vectors, b.vectors) and all(
        getattr(a, x) == getattr(b, x) for x in vars(a) if x != "vectors"
    )


def test_where_take_and_concat():
    every = directions()
    assert every.where() == [0, 1, 2, 3]
    assert (
        every.where(data="sae", split="test") == [1]
        and every.where(layer=1) == [0, 2]
        and every.where("act", layer=2) == []
    )
    taken = every.take([3, 1])
    assert (
        taken.names == ("dact/2/0", "sae/2/5")
        and taken.layers == (2, 2)
        and taken.vectors.tolist() == [[9, 10, 11], [3, 4, 5]]
    )
    assert same(Directions.concat([every.take([0]), every.take([]), every.take([1, 2, 3])]), every)


def test_file(tmp_path):
    path = tmp_path / "new" / "directions.safetensors"
    directions().save(path)
    assert same(Directions.load(path), directions()) and list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="none.safetensors is missing: notebooks/01"):
        Directions.load(tmp_path / "none.safetensors")


def test_names_are_unique_and_labels_complete():
    every = directions()
    with pytest.raises(ValueError, match="unique names"):
        Directions.concat([every, every.take([0])])
    with pytest.raises(ValueError, match="as many labels"):
        Directions(every.names, every.data, every.split, (1, 2), every.vectors, every.sources)


def test_a_vector_that_is_not_finite_is_an_error_where_it_enters():
    every = directions()
    for value in (torch.nan, torch.inf):
        vectors = every.vectors.clone()
        vectors[2, 1] = value
        with pytest.raises(UserError, match="direction act/1/0 is not finite"):
            Directions(
                *(getattr(every, x) for x in ("names", "data", "split", "layers")),
                vectors,
                every.sources,
            )


# --- full activations


@pytest.mark.parametrize("name", TINY)
def test_full_activations_are_those_of_the_token_that_is_marked(name, contexts):
    lm = load_model(name, "cpu")
    found = full_activations(lm, contexts, [2, 0], n_per_layer=9, seed=0, batch_size=4)
    assert (
        found.layers == (2,) * 9 + (0,) * 9
        and set(found.data) == {"act"}
        and set(found.split) == {"test"}
    )
    assert found.names[:2] == ("act/2/0", "act/2/1") and found.names[9] == "act/0/0"
    places = {
        marked_text(lm, row.tolist(), t): (row.tolist(), t) for row in contexts for t in range(6)
    }
    assert len(places) == contexts.numel() and len(set(found.sources)) == 18  # a token is used once
    lead_in = lm.encode("\n")
    for layer, vector, source in zip(found.layers, found.vectors, found.sources, strict=True):
        ids, t = places[source]
        torch.testing.assert_close(
            vector, h(lm, lead_in + ids, layer, len(lead_in) + t), rtol=1e-4, atol=1e-4
        )


def test_a_source_is_the_text_whatever_the_decoder_drops():
    other = replace(load_model("tiny-llama", "cpu"), tokenizer=prepending_tokenizer())
    text = "Rome is a city"
    ids = other.encode(text)
    for place in range(1, len(ids)):
        before, token, after = re.split("<<<|>>>", marked_text(other, ids, place))
        assert (before + token + after).strip() == text and len(token) == 1


def test_full_activations_depend_on_the_seed_alone(tiny, contexts):
    first, same_seed, other = (
        full_activations(tiny, contexts, [1], 20, seed, batch_size=size)
        for seed, size in ((0, 5), (0, 64), (1, 64))
    )
    assert first.sources == same_seed.sources != other.sources
    torch.testing.assert_close(first.vectors, same_seed.vectors)
    positions = {len(tiny.tokenizer(s[: s.index("<<<")])["input_ids"]) for s in first.sources}
    assert len(positions) > 3  # anywhere in a context


def test_too_few_tokens_for_full_activations(tiny, contexts):
    assert len(full_activations(tiny, contexts, [0, 1], 36, seed=0)) == 72
    with pytest.raises(UserError, match="72 held-out tokens are too few for 74"):
        full_activations(tiny, contexts, [0, 1], 37, seed=0)


# --- activation differences


def unmarked(lm, source):
    """(token ids behind the lead-in, position) of a marked text."""
    before, rest = source.split("<<<", 1)
    token, after = rest.split(">>>", 1)
    encoded = lm.tokenizer(
        before + token + after, add_special_tokens=False, return_offsets_mapping=True
    )
    lead_in = lm.encode("\n")  # BOS, if there is one, and a line break
    ends = [end for _, end in encoded["offset_mapping"]]
    return lead_in + encoded["input_ids"], len(lead_in) + ends.index(len(before + token))


def parts(lm, source):
    return [unmarked(lm, text) for text in source.split("\nminus\n")]


@pytest.mark.parametrize(
    ("name", "with_options"), [("tiny-llama", True), ("tiny-qwen3", False), ("tiny-gemma3", True)]
)
def test_differences_are_those_of_two_runs_without_padding(name, with_options, facts):
    lm = load_model(name, "cpu")
    demonstrations, pairs = choose_demonstrations(facts, 2, seed=0), make_pairs(facts, 12, seed=0)
    found = activation_differences(
        lm, pairs, demonstrations, [0, 2], 10, seed=0, with_options=with_options, batch_size=7
    )
    assert (
        found.layers == (0,) * 10 + (2,) * 10
        and set(found.data) == {"dact"}
        and set(found.split) == {"test"}
    )
    for layer, vector, source in zip(found.layers, found.vectors, found.sources, strict=True):
        (ids, t), (other_ids, other_t) = parts(lm, source)
        assert ids[t + 1 :] == other_ids[other_t + 1 :]  # what follows is the same
        assert ("Respond with one of" in source) == with_options
        torch.testing.assert_close(
            vector, h(lm, ids, layer, t) - h(lm, other_ids, layer, other_t), rtol=1e-3, atol=1e-4
        )
        assert vector.abs().max() > 1e-3


def test_the_subjects_final_token_comes_first(tiny, facts):
    demonstrations, pairs = choose_demonstrations(facts, 1, seed=0), make_pairs(facts, 40, seed=0)
    ends = {(pair.original.subject, pair.counterfactual.subject) for pair in pairs}

    def n_final(found):
        before = [
            [text.split(">>>")[0].replace("<<<", "") for text in source.split("\nminus\n")]
            for source in found.sources
        ]
        return sum(any(x.endswith(a) and other.endswith(b) for a, b in ends) for x, other in before)

    few = activation_differences(
        tiny, pairs, demonstrations, [0, 1], 12, seed=0, with_options=False
    )
    assert n_final(few) == 24 and len(set(few.sources)) == 24
    many = activation_differences(
        tiny, pairs, demonstrations, [0, 1], 40, seed=0, with_options=False
    )
    assert (
        30 < n_final(many) <= 40 and len(set(many.sources)) == 80
    )  # the rest are other tokens, none twice
    assert (
        len({len(parts(tiny, source)[0][0]) - parts(tiny, source)[0][1] for source in many.sources})
        > 2
    )


def test_differences_depend_on_the_seed_alone(tiny, facts):
    demonstrations, pairs = choose_demonstrations(facts, 1, seed=0), make_pairs(facts, 10, seed=0)
    first, same_seed, other = (
        activation_differences(tiny, pairs, demonstrations, [0, 1], 4, seed, batch_size=size)
        for seed, size in ((0, 3), (0, 8), (1, 8))
    )
    assert first.sources == same_seed.sources != other.sources
    torch.testing.assert_close(first.vectors, same_seed.vectors, rtol=1e-4, atol=1e-4)


def test_no_place_is_taken_twice(tiny):
    """The subjects' final token is itself one of those that are the same in both prompts."""
    subjects = {"Fort Smith": "Arkansas", "Old Smith": "Ohio"}
    pair = FactPair(
        *(Fact("r", subject, answer, f"{subject} is in") for subject, answer in subjects.items()),
        options=(),
    )
    n_same = len(tiny.tokenizer(" Smith is in", add_special_tokens=False)["input_ids"])
    with pytest.raises(UserError, match=f"1 pairs have {n_same} places"):
        activation_differences(tiny, [pair], {"r": []}, [0], 1000, seed=0, with_options=False)


@pytest.mark.parametrize("subjects", [("Rome", "Rome City"), ("Rome City", "Rome")])
def test_a_text_that_begins_the_other_has_no_place_behind_the_difference(tiny, subjects):
    """The subject stands at the end, and one subject begins the other."""
    facts = [Fact("r", subject, "x", f"The town of {subject}") for subject in subjects]
    pair = TokenPair.of(tiny, FactPair(*facts, ()), {"r": []}, with_options=False)
    assert pair.n_aligned == pair.n_same == 0 and pair.final == 1


def test_too_few_pairs(tiny, facts):
    demonstrations, pairs = choose_demonstrations(facts, 1, seed=0), make_pairs(facts, 2, seed=0)
    with pytest.raises(
        UserError, match="2 pairs have .* places for differences, and 2000 are needed"
    ):
        activation_differences(tiny, pairs, demonstrations, [0, 1], 1000, seed=0)


def test_centred_directions_have_lost_the_mean_of_their_own_layer(tiny, contexts):
    found = full_activations(tiny, contexts, [2, 0], n_per_layer=3, seed=0)
    means = {0: torch.full((tiny.width,), 1.0), 2: torch.full((tiny.width,), -2.0)}
    centred = found.centred(means)
    torch.testing.assert_close(centred.vectors[:3], found.vectors[:3] + 2)
    torch.testing.assert_close(centred.vectors[3:], found.vectors[3:] - 1)
    assert centred.names == found.names
