"""Facts: the packaged ones, both CounterFact formats, splits and pairs."""

import json
import unicodedata
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from introspect_utils.data.facts import (
    TEMPLATES,
    UNKNOWN,
    Fact,
    load_facts,
    make_pairs,
    split_subjects,
)
from introspect_utils.data.prompts import target_prompt
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO

FIXTURES = Path(__file__).parent.parent / "fixtures"
COUNTERFACT = [
    Fact("P103", "Danielle Darrieux", "French", "The mother tongue of Danielle Darrieux is"),
    Fact("P641", "Edwin van der Sar", "soccer", "Edwin van der Sar professionally plays the sport"),
]


@pytest.fixture(scope="module")
def packaged() -> list[Fact]:
    return load_facts("packaged")


def test_packaged_facts_are_whole(packaged):
    assert {fact.relation for fact in packaged} == set(TEMPLATES)
    assert len(packaged) > 7000
    assert len({(fact.relation, fact.subject) for fact in packaged}) == len(packaged), (
        "one object for each subject"
    )
    for fact in packaged:
        for text in (fact.subject, fact.object, fact.prompt):
            assert text and text == text.strip()
        assert fact.prompt.startswith(fact.subject), "the subject comes first"
        assert fact.template == TEMPLATES[fact.relation]
    assert Fact("capital_usstate", "Albany", "New York", "Albany is the capital of") in packaged
    assert Fact("element_symbol", "Actinium", "Ac", "Actinium has the chemical symbol") in packaged


def test_notices_of_the_packaged_facts_are_shipped():
    notice = (REPO / "introspect_utils" / "data" / "NOTICE").read_text("utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved." in notice
    assert "Copyright (c) 2018 Porimol Chandro" in notice
    assert "UNICODE LICENSE V3" in notice


@pytest.mark.parametrize("name", ["counterfact.json", "counterfact_flat.json"])
def test_both_counterfact_formats_give_the_same_facts(name):
    assert load_facts(str(FIXTURES / name)) == COUNTERFACT


def test_a_data_set_is_loaded_by_datasets(tmp_path, monkeypatch):
    """A folder with a Parquet file goes the way of a hub id through `datasets.load_dataset`."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = json.loads((FIXTURES / "counterfact_flat.json").read_text("utf-8"))
    (tmp_path / "hub" / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(
        tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    )
    assert load_facts(str(tmp_path / "hub")) == COUNTERFACT


def test_a_missing_data_set_is_one_clear_error(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(UserError, match=r"cannot load facts '.*nowhere'.*'packaged'"):
        load_facts(str(tmp_path / "nowhere"))


def _nested(**changes) -> dict:
    rewrite = {
        "prompt": "{} is in",
        "relation_id": "P1",
        "target_true": {"str": "France"},
        "subject": "Paris",
    }
    return {"requested_rewrite": rewrite | changes}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_nested(prompt="it is in"), "must hold"),
        (_nested(prompt="{} and {} are in"), "must hold"),
        (_nested(prompt="The {{}} of {}"), "must hold"),
        (_nested(subject=" "), "is empty"),
        (_nested(target_true={"str": ""}), "is empty"),
        (_nested(target_true={"id": "Q142"}), "no field 'str'"),
        (_nested(subject=None), "not text"),
        (_nested(prompt=3), "not text"),
        (_nested(relation_id=None), "not text"),
        (
            {"prompt": "Paris is in", "subject": "Paris", "target_true": " France"},
            "no field 'relation_id'",
        ),
        ({"text": "Paris"}, "no field 'subject'"),
        ("Paris", "not text|no field"),
        (None, "not text"),
    ],
)
def test_a_malformed_record_is_named(tmp_path, row, message):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([_nested(), row]))
    with pytest.raises(UserError, match=f"record 1: .*({message})"):
        load_facts(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "is not JSON"),
        ('{"a": 1}', "record 0: no field"),
        ("[]", "no records"),
        ("3", "a list"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, text, message):
    path = tmp_path / "facts.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_facts(str(path))


def _lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("form", ["counterfact.json", "counterfact_flat.json"])
@pytest.mark.parametrize(
    ("encode", "name"),
    [
        (lambda rows: json.dumps(rows).encode("utf-8-sig"), "facts.json"),
        (lambda rows: _lines(rows).encode(), "facts.json"),
        (lambda rows: _lines(rows).replace("\n", "\r\n\r\n").encode("utf-8-sig"), "facts.jsonl"),
        (lambda rows: json.dumps(rows, indent=2).encode(), "facts.jsonl"),
        (lambda rows: b"".join(_lines([row]).encode("utf-8-sig") for row in rows), "facts.jsonl"),
        (lambda rows: _lines(rows).replace("\n", "\r").encode("utf-8-sig"), "facts.json"),
    ],
    ids=["BOM", "lines", "lines with all that Windows adds", "a list in a file of lines"]
    + ["files that were joined", "an old Mac's lines"],
)
def test_a_file_may_have_a_mark_or_a_record_a_line(tmp_path, form, encode, name):
    rows = json.loads((FIXTURES / form).read_text("utf-8"))
    (tmp_path / name).write_bytes(encode(rows))
    assert load_facts(str(tmp_path / name)) == COUNTERFACT
    (tmp_path / name).write_bytes(encode(rows[:1]))
    assert load_facts(str(tmp_path / name)) == COUNTERFACT[:1]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_another_encoding_is_read_or_named(tmp_path, encoding):
    path, row = tmp_path / "facts.json", _nested(subject="Orléans")
    path.write_bytes(json.dumps([row], ensure_ascii=False).encode(encoding))
    if encoding == "latin-1":
        with pytest.raises(UserError, match="facts.json is not in UTF-8: save it as UTF-8"):
            load_facts(str(path))
    else:
        assert [fact.subject for fact in load_facts(str(path))] == ["Orléans"]


def test_a_line_may_hold_other_ends_of_lines(tmp_path):
    row = _nested(subject="Rome\u2028\x85Italy")
    (tmp_path / "facts.jsonl").write_text(
        json.dumps(row, ensure_ascii=False) + "\n" + _lines([row])
    )
    assert len(load_facts(str(tmp_path / "facts.jsonl"))) == 1


@pytest.mark.parametrize("name", ["facts.json", "facts.jsonl"])
@pytest.mark.parametrize("field", ["prompt", "str"])
def test_a_field_that_is_given_twice_is_named(tmp_path, name, field):
    text = json.dumps(_nested(target_true={"str": "Italy"})).replace(
        f'"{field}": ', f'"{field}": "x", "{field}": '
    )
    (tmp_path / name).write_text(f"[{text}]" if name == "facts.json" else f"{text}\n{text}\n")
    with pytest.raises(UserError, match=f"has '{field}' twice: .*keep one"):
        load_facts(str(tmp_path / name))


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(_lines([_nested(), _nested()]) + "{")
    with pytest.raises(UserError, match="is not JSON .line 3: "):
        load_facts(str(path))


def test_one_spelling_is_read_whatever_the_file_has(tmp_path):
    (tmp_path / "facts.json").write_text(_lines(_nested(subject=s) for s in ("Cafe\u0301", "Café")))
    [fact] = load_facts(str(tmp_path / "facts.json"))
    assert fact.subject == "Café" and fact.prompt == "Café is in"


TWINS = [
    lambda s: unicodedata.normalize("NFD", s),
    str.upper,
    lambda s: s.replace(" ", "\u00a0"),
    lambda s: s.replace("-", "‐") + ".",
    lambda s: s.replace("'", "’"),
    lambda s: "\ufeff" + "\u200b".join(s),
]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("seed", [0, 1])
def test_spellings_of_one_subject_stay_on_one_side(twin, seed):
    subjects = [f"Saint-Élie d'Été {letter}ö" for letter in "abcdefghijklmnopqrstuvwxyz"]
    facts = [
        Fact("r", spelled, "x", f"{spelled} is")
        for subject in subjects
        for spelled in {subject, twin(subject)}
    ]
    train, test = split_subjects(facts, 0.5, seed)
    assert len(train) == len(test) == 26
    spelled = {twin(subject): subject for subject in subjects}
    sides = [{spelled.get(fact.subject, fact.subject) for fact in part} for part in (train, test)]
    assert not sides[0] & sides[1]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no facts file .*counterfact.json"):
        load_facts(str(tmp_path / "counterfact.json"))


words = st.text("abcdeé ’", min_size=1, max_size=4).map(str.strip).filter(bool)


@st.composite
def some_facts(draw) -> list[Fact]:
    """Facts of a few relations worded in a few ways; one object for each subject of a relation."""
    triples = draw(
        st.lists(
            st.tuples(st.sampled_from(["r1", "r2"]), words, words, st.sampled_from("xyz")),
            max_size=40,
        )
    )
    unique = {(relation, subject): (answer, word) for relation, subject, answer, word in triples}
    return [
        Fact(relation, subject, answer, f"{subject} {word}")
        for (relation, subject), (answer, word) in unique.items()
    ]


@settings(max_examples=60)
@given(some_facts(), st.integers(0, 60), st.integers(0, 3))
def test_pairs(facts, n, seed):
    pairs = make_pairs(facts, n, seed)
    assert len(pairs) <= n
    assert len({(pair.original, pair.counterfactual) for pair in pairs}) == len(pairs)
    for pair in pairs:
        x, x2 = pair.original, pair.counterfactual
        assert x in facts and x2 in facts
        assert x.relation == x2.relation and x.template == x2.template
        assert x.subject != x2.subject and x.object != x2.object
        assert len(set(pair.options)) == len(pair.options) == 6 and pair.options[-1] == UNKNOWN
        assert {x.object, x2.object} < set(pair.options)
        assert set(pair.options[:-1]) <= {
            fact.object for fact in facts if fact.relation == x.relation
        }
    assert make_pairs(facts[::-1], n, seed) == pairs, "the order of the facts does not matter"
    assert make_pairs(facts, n // 2, seed) == pairs[: n // 2], (
        "a smaller n is the beginning of a larger one"
    )


@settings(max_examples=40)
@given(some_facts())
def test_every_pair_is_found_when_enough_are_asked_for(facts):
    many = make_pairs(facts, 10_000, 0)
    objects = {
        relation: {fact.object for fact in facts if fact.relation == relation}
        for relation in ("r1", "r2")
    }
    possible = {
        (a, b)
        for a in facts
        for b in facts
        if a.relation == b.relation
        and a.template == b.template
        and a.subject != b.subject
        and a.object != b.object
        if len(objects[a.relation]) >= 5
    }
    assert {(pair.original, pair.counterfactual) for pair in many} == possible


@settings(max_examples=40)
@given(some_facts(), st.floats(0, 1), st.integers(0, 3))
def test_splits_share_no_subject(facts, share, seed):
    train, test = split_subjects(facts, share, seed)
    assert not {fact.subject.casefold() for fact in train} & {
        fact.subject.casefold() for fact in test
    }
    assert sorted(train + test) == sorted(facts)
    assert split_subjects(facts, share, seed) == (train, test)


def test_split_holds_the_share_in_every_relation(packaged):
    _, test = split_subjects(packaged, 0.2, seed=0)
    total, held_out = (Counter(fact.relation for fact in facts) for facts in (packaged, test))
    for relation in TEMPLATES:
        assert 0.1 < held_out[relation] / total[relation] < 0.35


def test_pairs_of_both_splits_share_no_subject(packaged):
    sides = [make_pairs(facts, 400, seed=1) for facts in split_subjects(packaged, 0.2, seed=1)]
    subjects = [
        {fact.subject for pair in pairs for fact in (pair.original, pair.counterfactual)}
        for pairs in sides
    ]
    assert [len(pairs) for pairs in sides] == [400, 400]
    assert not subjects[0] & subjects[1]


def test_relations_and_objects_are_balanced(packaged):
    """926 of 2,198 people are American and 352 of 1,001 cities are in the United States: neither
    shows in the pairs."""
    pairs = make_pairs(packaged, 800, seed=0)
    relations = Counter(pair.original.relation for pair in pairs)
    assert set(relations.values()) == {50}
    for relation in ("person_nationality", "city_country", "thing_category"):
        of_relation = [pair for pair in pairs if pair.original.relation == relation]
        n_objects = len({fact.object for fact in packaged if fact.relation == relation})
        original = Counter(pair.original.object for pair in of_relation)
        assert max(original.values()) - min(original.values()) <= 1 or max(original.values()) == 1
        assert max(original.values()) <= 50 / n_objects + 1
        assert max(Counter(pair.counterfactual.object for pair in of_relation).values()) <= 4 * (
            50 / n_objects + 1
        )
    places = Counter(pair.options.index(pair.original.object) for pair in pairs)
    assert all(0.15 < places[place] / len(pairs) < 0.25 for place in range(5)), (
        "options are shuffled"
    )


def test_options_can_come_from_more_facts_than_the_pairs(packaged):
    continents = [fact for fact in packaged if fact.relation == "country_region"]
    known = [fact for fact in continents if fact.object in ("Africa", "Europe")]
    assert make_pairs(known, 10, seed=0) == []
    pairs = make_pairs(known, 10, seed=0, answers=packaged)
    assert len(pairs) == 10
    assert {option for pair in pairs for option in pair.options} > {"Asia", "Oceania", UNKNOWN}
    assert {fact.object for pair in pairs for fact in (pair.original, pair.counterfactual)} == {
        "Africa",
        "Europe",
    }


def test_differently_worded_facts_of_a_relation_are_not_paired():
    facts = [
        Fact("P1", name, name.upper(), f"{name} {'is' if i % 2 else 'was'}")
        for i, name in enumerate("abcdef")
    ]
    pairs = make_pairs(facts, 100, seed=0)
    assert len(pairs) == 12
    assert all(pair.original.template == pair.counterfactual.template for pair in islice(pairs, 12))


@pytest.mark.parametrize(
    ("template", "subject", "start"),
    [
        ("In the time of {}, the state was", "the", 15),  # stands earlier, as a word
        ("The Roman Empire began in {} as", "Rom", 26),  # earlier, as a part of one
    ],
)
def test_the_subject_stands_where_the_template_put_it(tmp_path, template, subject, start):
    rewrite = {"prompt": template, "subject": subject, "relation_id": "P1"}
    row = {"requested_rewrite": rewrite | {"target_true": {"str": "x"}}}
    (tmp_path / "facts.json").write_text(json.dumps([row]))
    [fact] = load_facts(str(tmp_path / "facts.json"))
    assert fact.start == start and fact.template == template
    span = target_prompt(fact, [fact]).subject
    assert target_prompt(fact, [fact]).text[slice(*span)] == subject
    assert span[0] == len(f"{fact.prompt} x.\n") + start


def test_a_flat_record_has_its_subject_as_a_whole_word():
    fact = Fact("r", "Tom", "x", "Tomorrow never came for Tom in")
    assert fact.template == "Tomorrow never came for {} in"
