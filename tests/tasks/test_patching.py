import ast
import json
import random
import re
from collections import Counter, defaultdict
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.data.facts import Fact, FactPair, load_facts, make_pairs, sample_facts
from introspect_utils.data.prompts import target_prompt
from introspect_utils.models import residual
from introspect_utils.models.load import load_model, load_tokenizer
from introspect_utils.models.residual import decoder_layers
from introspect_utils.models.tokens import token_spans
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.tasks import patching

OPTIONS = ("France", "Spain", "UK", "Italy", "Egypt", "unknown")
ROME = Fact("capital", "Rome", "Italy", "Rome is the capital of")
PARIS = Fact("capital", "Paris", "France", "Paris is the capital of")
PAIR = FactPair(ROME, PARIS, OPTIONS)
PAPER_TEXT = """Rome is the capital of
Respond with one of France or Spain or UK or Italy or Egypt or unknown and nothing else.
Answer:"""


@pytest.fixture(scope="module")
def packaged():
    return load_facts("packaged")


def words(text):
    """A tokenisation one can read: words with the space before them, newlines, punctuation."""
    return [match.span() for match in re.finditer(r" ?\w+|\n|.", text)]


# --- prompts


def test_the_prompt_of_the_papers_example():
    prompt = target_prompt(ROME, options=OPTIONS)
    assert prompt.text == PAPER_TEXT
    assert prompt.text[: prompt.statement_end] == "Rome is the capital of"


def test_demonstrations_stand_before_the_statement():
    prompt = target_prompt(
        ROME, [PARIS, Fact("capital", "Madrid", "Spain", "Madrid is the capital of")]
    )
    assert (
        prompt.text
        == "Paris is the capital of France.\nMadrid is the capital of Spain.\nRome is the capital of"
    )
    assert prompt.statement_end == len(prompt.text) and not prompt.options


@pytest.mark.parametrize(("n", "with_options"), [(0, True), (2, True), (2, False)])
def test_spans_point_at_what_they_name(packaged, n, with_options):
    demonstrations = patching.choose_demonstrations(packaged, n, seed=0)
    for pair in make_pairs(packaged, 60, seed=0):
        fact, options = pair.original, pair.options if with_options else ()
        prompt = target_prompt(fact, demonstrations[fact.relation], options)
        assert prompt.text[slice(*prompt.subject)] == fact.subject
        assert prompt.text[: prompt.statement_end].endswith(fact.prompt)
        assert prompt.subject[0] >= prompt.statement_end - len(
            fact.prompt
        )  # in the statement, not in a demonstration
        assert tuple(prompt.options) == options
        assert all(prompt.text[slice(*span)] == option for option, span in prompt.options.items())


# --- token types


def test_token_types_of_the_papers_example():
    prompt = target_prompt(ROME, options=OPTIONS)
    spans = words(prompt.text)
    types = [patching.token_type(prompt, spans, position, PAIR) for position in range(len(spans))]
    assert list(zip([prompt.text[slice(*span)] for span in spans], types, strict=True)) == [
        ("Rome", "Subject Final"),
        *[(word, "Relation") for word in (" is", " the", " capital", " of")],
        *[(word, f"Token {word!r}") for word in ("\n", "Respond", " with", " one", " of")],
        (" France", "Changed Answer Option"),
        (" or", "Token ' or'"),
        (" Spain", "Other Answer Option"),
        (" or", "Token ' or'"),
        (" UK", "Other Answer Option"),
        (" or", "Token ' or'"),
        (" Italy", "Orig Answer Option"),
        (" or", "Token ' or'"),
        (" Egypt", "Other Answer Option"),
        (" or", "Token ' or'"),
        (" unknown", "Other Answer Option"),
        *[
            (word, f"Token {word!r}")
            for word in (" and", " nothing", " else", ".", "\n", "Answer", ":")
        ],
    ]


@pytest.mark.parametrize(
    ("subject", "spans", "expected"),
    [
        ("New York", [(0, 3), (3, 8), (8, 11)], ["Subject", "Subject Final", "Relation"]),
        ("New York", [(0, 3), (3, 6), (6, 8)], ["Subject", "Subject", "Subject Final"]),
        (
            "New York",
            [(0, 3), (3, 11)],
            ["Subject", "Subject Final"],
        ),  # a token that reaches beyond it
        (
            "Québé",
            [(0, 3), (2, 4), (4, 5), (4, 5), (5, 8)],
            ["Subject"] * 3 + ["Subject Final", "Relation"],
        ),  # "é" in two tokens
    ],
)
def test_the_final_token_of_a_subject(subject, spans, expected):
    prompt = target_prompt(Fact("r", subject, "o", f"{subject} is"))
    assert [
        patching.token_type(prompt, spans, position, PAIR) for position in range(len(spans))
    ] == expected


# --- tokens as text


@given(
    st.text(
        alphabet=st.one_of(
            st.sampled_from("éôÎș🙂東 \n'ab"), st.characters(codec="utf-8", exclude_characters="<")
        ),
        min_size=1,
    )
)
def test_input_tokens_join_to_the_text(tiny, text):
    ids, spans = token_spans(tiny.tokenizer, text)
    pieces = patching.pieces(text, spans)
    assert "".join(pieces) == text and len(pieces) == len(ids)
    for piece, (start, end), (_, before) in zip(pieces, spans, [(0, 0), *spans], strict=False):
        assert (
            start < end and piece == text[max(start, before) : end]
        )  # a shared character goes to its first token


def test_a_character_of_several_tokens_is_spelled_once(tiny):
    text = "Côte d'Ivoire 🙂 is"
    _, spans = token_spans(tiny.tokenizer, text)
    assert spans.count((14, 15)) > 1  # several tokens do share a character
    assert [piece for piece in patching.pieces(text, spans) if "🙂" in piece] in (["🙂"], [" 🙂"])


@pytest.mark.real
def test_input_tokens_of_the_real_tokenizer_join_to_the_text():
    text = "Îles Salomon, Chișinău, Côte d'Ivoire, 東京, 🙂 is"
    ids, spans = token_spans(load_tokenizer("smollm2-135m-instruct"), text)
    assert len(spans) > len(set(spans)) and len(ids) == len(
        spans
    )  # several tokens do share a character
    assert "".join(patching.pieces(text, spans)) == text


# --- T_patch


@pytest.fixture(scope="module")
def pairs(packaged):
    return make_pairs(packaged, 6, seed=1)


@pytest.fixture(scope="module")
def demonstrations(packaged):
    return patching.choose_demonstrations(packaged, 1, seed=0)


@pytest.fixture(scope="module")
def rows(tiny, pairs, demonstrations):
    return list(patching.patch_outcomes(tiny, pairs, demonstrations, n_blocks=2, known_only=False))


def by_pair(rows):
    """{(x, x'): rows}."""
    grouped = defaultdict(list)
    for row in rows:
        grouped["".join(row["input_tokens"]), row["counterfactual_text"]].append(row)
    return grouped


def key(row):
    return (
        "".join(row["input_tokens"]),
        row["counterfactual_text"],
        tuple(row["layer"]),
        row["patch_position"]["orig_pos"],
    )


def test_every_block_and_aligned_position_is_searched_once(tiny, pairs, demonstrations, rows):
    grouped = by_pair(rows)
    assert len(grouped) == len(pairs)
    lengths = set()
    for pair in pairs:
        shown = demonstrations[pair.original.relation]
        texts = [
            target_prompt(fact, shown, pair.options).text
            for fact in (pair.original, pair.counterfactual)
        ]
        x, other = map(tiny.encode, texts)
        shift = len(other) - len(x)
        lengths.add(shift)
        first = 0
        while x[first] == other[first]:
            first += 1
        # behind the first difference in both, and as far from the end of x as of x'
        expected = {(t, t + shift) for t in range(first, len(x)) if t + shift >= first}
        for block in ((0, 1), (2, 3)):
            found = [
                row["patch_position"]
                for row in grouped[tuple(texts)]
                if row["layer"] == list(block)
            ]
            assert sorted(
                (place["orig_pos"], place["counterfact_pos"]) for place in found
            ) == sorted(expected)
    assert len(lengths) > 1  # x and x' differ in length


def test_rows_say_what_they_patched(tiny, rows):
    for row in rows:
        place, text = row["patch_position"], "".join(row["input_tokens"])
        assert len(row["input_tokens"]) == len(tiny.encode(text))
        piece = row["input_tokens"][place["orig_pos"]]
        assert (
            place["orig_text_token"] == piece or not piece
        )  # a later part of a character is shown as that character
        token = tiny.tokenizer.decode(
            [tiny.encode(row["counterfactual_text"])[place["counterfact_pos"]]]
        )
        assert place["counterfact_text_token"] == token
        assert (
            f" {row['gt_original_target']} " in text
            and f" {row['gt_counterfactual_target']} " in text
        )  # both are options
    assert {row["token_type"] for row in rows} >= {
        "Subject Final",
        "Relation",
        "Orig Answer Option",
        "Changed Answer Option",
    }


def test_is_different_says_whether_the_continuations_differ(rows):
    for row in rows:
        if row["original_continuation"] != row["ablated_continuation"]:
            assert row["is_different"]
        elif row["is_different"]:  # two tokens with one text: only parts of a character
            assert "\ufffd" in row["ablated_continuation"][0]
    assert {row["is_different"] for row in rows} == {True, False}
    for of_pair in by_pair(rows).values():
        assert len({row["original_continuation"][0] for row in of_pair}) == 1


def layer_outputs(lm, text):
    """h(l, t) of every layer, [length, width] each, by the hooks of torch."""
    outputs, handles = [], []
    for layer in decoder_layers(lm.model):
        handles.append(
            layer.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
        )
    with torch.inference_mode():
        lm.model(torch.tensor([lm.encode(text)]))
    for handle in handles:
        handle.remove()
    return outputs


def test_the_vector_is_the_mean_over_the_block_of_the_counterfactual_residual(tiny, rows):
    for (_, other), of_pair in list(by_pair(rows).items())[:4]:
        outputs = layer_outputs(tiny, other)
        for row in of_pair:
            first, last = row["layer"]
            vector = torch.from_numpy(row["patch_position"]["intervention_vector"])
            assert vector.dtype == torch.float32
            at = row["patch_position"]["counterfact_pos"]
            torch.testing.assert_close(
                vector, (outputs[first][at] + outputs[last][at]) / 2, rtol=1e-4, atol=1e-4
            )


def test_the_batch_size_changes_no_label(tiny, pairs, demonstrations, rows):
    alone = patching.patch_outcomes(
        tiny, pairs, demonstrations, n_blocks=2, known_only=False, batch_size=1
    )
    others = list(alone)
    assert len(rows) == len(others)
    for row, other in zip(sorted(rows, key=key), sorted(others, key=key), strict=True):
        for name in set(row) - {"patch_position"}:
            assert row[name] == other[name], name
        vectors = (
            torch.from_numpy(part["patch_position"]["intervention_vector"]) for part in (row, other)
        )
        torch.testing.assert_close(*vectors, rtol=1e-4, atol=1e-4)


def with_known_object(lm, fact):
    """The fact with the model's own greedy next word as its object, or None where that is no word
    of one token."""
    with torch.inference_mode():
        token = lm.model(torch.tensor([lm.encode(fact.prompt)])).logits[0, -1].argmax().item()
    word = lm.tokenizer.decode([token])
    known = word.startswith(" ") and lm.tokenizer(word, add_special_tokens=False)["input_ids"] == [
        token
    ]
    return Fact(fact.relation, fact.subject, word[1:], fact.prompt) if known else None


@pytest.fixture(scope="module")
def known_and_unknown(tiny, packaged):
    """Capitals of which the tiny model "knows" the object (its greedy next word), and the same with
    other objects."""
    cities = (fact for fact in packaged if fact.relation == "city_country")
    candidates = filter(None, (with_known_object(tiny, fact) for fact in cities))
    known = list(islice(candidates, 5))
    assert len(known) == 5
    unknown = [Fact(fact.relation, fact.subject, "Zimbabwe", fact.prompt) for fact in known]
    return known, unknown


def test_known_facts_are_those_the_target_goes_on_with(tiny, known_and_unknown):
    known, unknown = known_and_unknown
    mixed = [fact for both in zip(known, unknown, strict=True) for fact in both]
    for batch_size in (1, 5, 64):
        assert (
            patching.known_facts(tiny, mixed, {"city_country": []}, batch_size) == known
        )  # in their order


def test_pairs_with_an_unknown_fact_are_left_out(tiny, known_and_unknown):
    (a, b, *_), (c, d, *_) = known_and_unknown
    pairs = [FactPair(x, y, ()) for x, y in ((a, b), (a, d), (c, b), (c, d))]
    kept = by_pair(
        patching.patch_outcomes(tiny, pairs, {"city_country": []}, 2, with_options=False)
    )
    every = by_pair(
        patching.patch_outcomes(
            tiny, pairs, {"city_country": []}, 2, with_options=False, known_only=False
        )
    )
    assert list(kept) == [(a.prompt, b.prompt)]
    targets = {
        (row["gt_original_target"], row["gt_counterfactual_target"])
        for row in kept[a.prompt, b.prompt]
    }
    assert targets == {(a.object, b.object)}
    assert sum(map(len, every.values())) == 4 * len(kept[a.prompt, b.prompt])
    none = patching.patch_outcomes(tiny, pairs[1:], {"city_country": []}, 2, with_options=False)
    assert list(none) == []


# --- what is chosen


@pytest.mark.parametrize("n", [0, 1, 3])
def test_demonstrations_have_different_objects(packaged, n):
    chosen = patching.choose_demonstrations(packaged, n, seed=0)
    objects = defaultdict(set)
    for fact in packaged:
        objects[fact.relation].add(fact.object)
    assert set(chosen) == set(objects)
    for relation, facts in chosen.items():
        assert set(facts) <= {fact for fact in packaged if fact.relation == relation}
        assert len({fact.object for fact in facts}) == len(facts) == min(n, len(objects[relation]))
    assert chosen == patching.choose_demonstrations(packaged, n, seed=0)
    assert (chosen == patching.choose_demonstrations(packaged, n, seed=1)) == (n == 0)


def test_a_relation_with_too_few_objects_gives_what_it_has():
    facts = [
        ROME,
        PARIS,
        Fact("capital", "Lutetia", "France", "Lutetia is the capital of"),
        Fact("other", "x", "y", "x is"),
    ]
    chosen = patching.choose_demonstrations(facts, 3, seed=0)
    assert {fact.object for fact in chosen["capital"]} == {"Italy", "France"} and len(
        chosen["capital"]
    ) == 2
    assert [fact.subject for fact in chosen["other"]] == ["x"]


FACTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 30)), unique=True, max_size=40
).map(lambda found: [Fact(relation, f"s{i}", f"o{i}", f"s{i} {relation}") for relation, i in found])


@given(FACTS, st.integers(0, 50), st.integers(0, 5))
def test_sampled_facts_take_relations_in_turn(facts, n, seed):
    sample = sample_facts(facts, n, seed)
    assert len(sample) == len(set(sample)) == min(n, len(facts)) and set(sample) <= set(facts)
    there, taken = (Counter(fact.relation for fact in part) for part in (facts, sample))
    for a in there:
        assert all(taken[a] <= taken[b] + 1 or taken[b] == there[b] for b in there)
    assert sample == sample_facts(facts, n, seed) and sample[: n // 2] == sample_facts(
        facts, n // 2, seed
    )


@given(st.integers(1, 130), st.integers(1, 12))
def test_blocks_partition_the_layers(n_layers, n_blocks):
    blocks = patching.layer_blocks(n_layers, n_blocks)
    assert len(blocks) == n_blocks
    assert [layer for block in blocks for layer in block] == list(range(n_layers))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_blocks_of_the_paper():
    assert patching.layer_blocks(32, 4)[1] == tuple(range(8, 16))  # Llama: increments of 8
    assert patching.layer_blocks(36, 4)[3] == tuple(range(27, 36))  # Qwen: increments of 9


# --- balance

SIZES = st.dictionaries(
    st.tuples(st.sampled_from("ABCD"), st.sampled_from([(0, 1), (2, 3)]), st.booleans()),
    st.integers(0, 12),
)


def rows_of(sizes):
    every = [
        {
            "id": f"{kind}{block}{changed}{i}",
            "token_type": kind,
            "layer": list(block),
            "is_different": changed,
        }
        for (kind, block, changed), size in sizes.items()
        for i in range(size)
    ]
    random.Random(0).shuffle(every)
    return every


def slow_cap(sizes, wanted):
    """Hand out one row to each cell that has one, round by round, until there are enough: the
    number of rounds."""
    left, given, rounds = list(sizes), 0, 0
    while given < wanted:
        rounds += 1
        given += sum(size > 0 for size in left)
        left = [size - 1 for size in left]
    return rounds


@given(SIZES, st.integers(0, 40), st.integers(0, 3))
def test_balance(sizes, n, seed):
    every = rows_of(sizes)
    there = {
        changed: sum(row["is_different"] == changed for row in every) for changed in (True, False)
    }
    if there[True] < n // 2 or there[False] < n - n // 2:
        with pytest.raises(UserError, match="rows are (un)?changed, and [0-9]+ are needed"):
            patching.balance(every, n, seed)
        return
    chosen = patching.balance(every, n, seed)
    assert len({row["id"] for row in chosen}) == len(chosen) == n
    assert all(row in every for row in chosen)
    assert sum(row["is_different"] for row in chosen) == n // 2
    for changed, wanted in ((True, n // 2), (False, n - n // 2)):
        of_class = {(kind, block): size for (kind, block, c), size in sizes.items() if c == changed}
        taken = Counter(patching.cell(row) for row in chosen if row["is_different"] == changed)
        cap = slow_cap(of_class.values(), wanted)
        assert max(taken.values(), default=0) <= cap  # no cell has more than it must
        # and a cell has fewer than that only if it is exhausted, or for the last few rows too many,
        # fewer than there are cells
        missing = sum(min(cap, size) - taken[of_cell] for of_cell, size in of_class.items())
        assert missing < max(1, sum(size >= cap for size in of_class.values()))
    assert chosen == patching.balance(every, n, seed)


def test_balanced_rows_are_shuffled():
    every = rows_of({("A", (0, 1), True): 50, ("A", (0, 1), False): 50})
    order = [row["is_different"] for row in patching.balance(every, 40, seed=0)]
    assert 5 < sum(a != b for a, b in pairwise(order)) < 35
    assert patching.balance(every, 40, seed=0) != patching.balance(every, 40, seed=1)


# --- Table 6


@given(SIZES)
def test_statistics_count_every_row_once(sizes):
    lines = patching.statistics(rows_of(sizes), "train")
    expected = {cell: size for cell, size in sizes.items() if size}
    found = {}
    for line in lines:
        assert line["split"] == "train" and line["unchanged"] + line["changed"] > 0
        for changed, name in ((True, "changed"), (False, "unchanged")):
            if line[name]:
                found[line["token_type"], tuple(line["layers"]), changed] = line[name]
    assert found == expected
    cells = [(line["token_type"], line["layers"]) for line in lines]
    assert cells == sorted(cells) and len(cells) == len({(kind, *layers) for kind, layers in cells})


# --- what can be said (20.9)


def test_a_special_token_or_the_marks_cannot_be_said(tiny):
    end, reserved = tiny.tokenizer.eos_token, "<|reserved_special_token_10|>"
    contents = [" Italy", end, reserved, "", "\n", " ", ">", "a>>>b", "<<<a>>>b", "<pad>"]
    rows = [
        {"is_different": changed, "ablated_continuation": [content]}
        for content in contents
        for changed in (True, False)
    ]
    kept = {row["ablated_continuation"][0] for row in patching.sayable(tiny, rows)}
    assert kept == {" Italy", "", "\n", " ", ">", "a>>>b"}


def test_a_part_of_a_character_cannot_be_said(tiny):
    every = [tiny.tokenizer.decode([token]) for token in range(len(tiny.tokenizer))]
    rows = [{"is_different": True, "ablated_continuation": [said]} for said in [*every, "né", "é"]]
    kept = [row["ablated_continuation"][0] for row in patching.sayable(tiny, rows)]
    assert kept[-2:] == ["né", "é"] and len(kept) > 900
    assert len({*kept[:-2]}) == len(kept) - 2  # no two tokens look alike


# --- the notebook's own eq. 4


def test_what_the_notebook_hooks_into_the_target_is_gone_after_an_error(tiny):
    path = REPO / "notebooks" / "02_data_activation_patching.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    [code] = [code for code in cells if "def patched(" in code]
    [function] = [part for part in ast.parse(code).body if isinstance(part, ast.FunctionDef)]
    names = {"torch": torch, "lm": tiny, "residual": residual}
    exec(ast.unparse(function), names)
    x, longer = (
        torch.tensor([tiny.encode(text)]) for text in ("Rome is", "Rome is a town in Italy")
    )
    before = tiny.model(x).logits
    for pair in ((x, longer), (longer, x)):
        with pytest.raises(IndexError):
            names["patched"](*pair, (0, 1), x.shape[1] + 1)
        torch.testing.assert_close(tiny.model(x).logits, before, rtol=0, atol=0)
    logits, _ = names["patched"](x, longer, (0, 1), 1)
    assert not torch.equal(logits, before[0, -1])


# --- whatever the attention window (20.5)


def test_labels_are_those_of_plain_passes_in_a_model_with_windows(pairs, demonstrations):
    """Every block and position, patched by hooks in a whole pass of its own."""
    lm = load_model("tiny-gemma3", "cpu", seed=4)
    for config in (lm.model.config, *(x.self_attn for x in lm.model.get_decoder().layers)):
        config.sliding_window = 16
    layers, n_changed, lengths = decoder_layers(lm.model), 0, set()
    for row in patching.patch_outcomes(lm, pairs[2:4], demonstrations, 2, known_only=False):
        ids = torch.tensor([lm.encode("".join(row["input_tokens"]))])
        place = row["patch_position"]
        v = torch.from_numpy(place["intervention_vector"])

        def write(module, args, output, t=place["orig_pos"], v=v):
            output[0, t] = v
            return output

        handles = [layers[layer].register_forward_hook(write) for layer in row["layer"]]
        with torch.inference_mode():
            token = lm.model(ids, use_cache=False).logits[0, -1].argmax()
        for handle in handles:
            handle.remove()
        assert row["ablated_continuation"] == [lm.tokenizer.decode([token])]
        n_changed, lengths = n_changed + row["is_different"], lengths | {ids.shape[1]}
    assert n_changed and min(lengths) > 16
