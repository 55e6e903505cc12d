import random
from collections import Counter

import pytest
import torch
from explaining import SETTINGS, make_explainer
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.generate import generate, rollouts
from introspect_utils.features.directions import Directions
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import LEAD_IN, token_activations
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import task_features
from introspect_utils.tasks.question import VECTOR

pytestmark = pytest.mark.usefixtures("one_thread")

# Appendix D, filled in by hand, and the same without the layer (B.4), read and found to be English
FULL = [
    "At layer 12, [s]v[e] encodes",
    "[s]v[e] activates at layer 12 for",
    "We can describe [s]v[e] at layer 12 as encoding",
    "Generate a description of this feature at layer 12: [s]v[e].",
    "What does [s]v[e] mean at layer 12?",
    "[s]v[e] activates at layer 12 for inputs with the following features:",
]
NO_LAYER = [
    "[s]v[e] encodes",
    "[s]v[e] activates for",
    "We can describe [s]v[e] as encoding",
    "Generate a description of this feature: [s]v[e].",
    "What does [s]v[e] mean?",
    "[s]v[e] activates for inputs with the following features:",
]
TEMPLATES = task_features.templates()
CONDITIONS = ["full", "zero-vector", "shuffled-vector", "no-layer", "wrong-layer"]


def directions(n, layers=(3, 12), data=("sae", "act")):
    """Row i has the vector [i + 1, 1]; layers and data in turn."""
    data, layers = (
        tuple(data[i % len(data)] for i in range(n)),
        tuple(layers[i // 2 % len(layers)] for i in range(n)),
    )
    names = tuple(
        f"{kind}/{layer}/{i}" for i, (kind, layer) in enumerate(zip(data, layers, strict=True))
    )
    vectors = torch.stack([torch.arange(n) + 1.0, torch.ones(n)], dim=1)
    return Directions(names, data, ("test",) * n, layers, vectors, ("",) * n)


def questions(rows, condition, seed=0):
    return [
        example.question for example in task_features.examples(rows, rows.names, condition, seed)
    ]


def test_the_six_templates_of_appendix_d_with_and_without_the_layer():
    assert [task_features.prompt(template, 12) for template in TEMPLATES] == FULL
    assert [task_features.prompt(template, None) for template in TEMPLATES] == NO_LAYER


def test_each_row_asks_for_the_description_of_its_vector_at_its_layer():
    rows = directions(40)
    texts = [f"text {i}" for i in range(40)]
    for i, example in enumerate(task_features.examples(rows, texts, "full", 0)):
        question = example.question
        assert question.text in [text.replace("12", str(rows.layers[i])) for text in FULL]
        assert question.vector.tolist() == [i + 1.0, 1.0]
        assert (question.layers, question.system, example.explanation) == (
            (rows.layers[i],),
            "",
            f"text {i}",
        )


def test_templates_are_drawn_evenly_and_depend_on_seed_and_row_alone():
    def drawn(n, condition, seed):
        texts = [
            question.text for question in questions(directions(n, layers=(12, 12)), condition, seed)
        ]
        return [(NO_LAYER if condition == "no-layer" else FULL).index(text) for text in texts]

    chosen = drawn(600, "full", 0)
    assert min(Counter(chosen)[template] for template in range(6)) > 60
    assert all(
        drawn(600, condition, 0) == chosen
        for condition in ("zero-vector", "shuffled-vector", "no-layer")
    )
    assert drawn(600, "full", 1) != chosen
    assert drawn(50, "full", 0) == chosen[:50]  # fewer training rows are the first rows of more


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_changes_what_it_says_and_nothing_else(condition):
    rows = directions(40)
    before = rows.vectors.clone()
    for i, (asked, full) in enumerate(
        zip(questions(rows, condition), questions(rows, "full"), strict=True)
    ):
        assert asked.text.count(VECTOR) == 1 and asked.layers == full.layers == (rows.layers[i],)
        other_text, other_vector = (
            asked.text != full.text,
            asked.vector.tolist() != full.vector.tolist(),
        )
        assert other_text == (condition in ("no-layer", "wrong-layer"))
        assert other_vector == (condition in ("zero-vector", "shuffled-vector"))
        if condition == "wrong-layer":
            assert asked.text == full.text.replace(
                str(rows.layers[i]), str(15 - rows.layers[i])
            )  # of layers 3 and 12 the other
        if condition == "zero-vector":
            assert asked.vector.tolist() == [0.0, 0.0]
        if condition == "shuffled-vector":
            source = int(asked.vector[0]) - 1
            assert (rows.layers[source], rows.data[source]) == (rows.layers[i], rows.data[i])
    assert torch.equal(rows.vectors, before)


def test_shuffled_vectors_are_each_taken_once():
    taken = [question.vector.tolist() for question in questions(directions(30), "shuffled-vector")]
    assert sorted(taken) == directions(30).vectors.tolist()


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=30).filter(
        lambda layers: len(set(layers)) > 1
    ),
    st.integers(0, 100),
)
def test_a_wrong_layer_is_another_one_that_occurs(layers, seed):
    wrong = task_features.other_layers(layers, seed)
    assert len(wrong) == len(layers) and set(wrong) <= set(layers)
    assert all(other != own for other, own in zip(wrong, layers, strict=True))


def test_every_other_layer_comes_up():
    wrong = task_features.other_layers([0, 1, 2, 3] * 50, 0)
    assert {(own, other) for own, other in zip([0, 1, 2, 3] * 50, wrong, strict=True)} == {
        (a, b) for a in range(4) for b in range(4) if a != b
    }


def test_controls_that_cannot_be_made():
    with pytest.raises(UserError, match="a single row has no other row's vector"):
        questions(directions(1), "shuffled-vector")
    with pytest.raises(UserError, match="there is no other layer than 3 to name"):
        questions(directions(4, layers=(3,)), "wrong-layer")


def test_descriptions_must_be_as_many_as_directions():
    with pytest.raises(ValueError, match="zip"):
        task_features.examples(directions(3), ["a"] * 2, "full", 0)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_explainer_can_be_asked(condition):
    explainer = make_explainer(d_target=2, projection="always")
    explainer.layer_index = {(3,): 0, (12,): 1}
    assert len(generate(explainer, questions(directions(6), condition), 4, 3)) == 6


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ("words for animals.", "words for animals"),
        ("  words for animals \n\nThis feature", "words for animals"),
        ("\n\nnames of cities.\nmore", "names of cities"),
        ("the abbreviation U.S. in law . . ", "the abbreviation U.S. in law"),
        ("and so on...", "and so on"),
        ("the number 3.14", "the number 3.14"),
        ("", ""),
        (" \n.\n", ""),
    ],
)
def test_the_description_in_a_generation(generation, expected):
    assert task_features.description(generation) == expected


@given(st.text(st.sampled_from("ab. \n\r\t")))
def test_a_description_is_one_line_and_stays_what_it_is(generation):
    found = task_features.description(generation)
    assert task_features.description(found) == found == found.strip()
    assert "\n" not in found and "\r" not in found and found in generation


def test_t_feat_is_the_first_candidate_of_the_highest_score():
    candidates = [["cities", "animals", "days"], ["only"], ["a", "b"]]
    scores = [[0.1, 0.7, 0.7], [-0.3], [-0.2, -0.1]]
    assert task_features.t_feat(candidates, scores) == [
        ("animals", 0.7),
        ("only", -0.3),
        ("b", -0.1),
    ]


def test_a_score_that_is_not_a_number_is_an_error():
    with pytest.raises(UserError, match="direction 1 has .* a score that is not a number"):
        task_features.t_feat([["a"], ["b", "c"]], [[0.5], [0.1, float("nan")]])


def test_t_feat_names_a_direction_without_candidates():
    with pytest.raises(UserError, match="direction 1 has no candidate"):
        task_features.t_feat([["a"], []], [[0.5], []])


@pytest.mark.parametrize("scores", [[[0.5]], [[0.5], [0.1]]])
def test_every_candidate_needs_its_score(scores):
    with pytest.raises(ValueError, match="zip"):
        task_features.t_feat([["a"], ["b", "c"]], scores)


def test_the_most_frequent_description_is_the_first_of_equals():
    assert task_features.most_frequent(["b", "a", "a", "c", "b"]) == "b"
    assert task_features.most_frequent(["b", "a", "a"]) == "a"


def test_tokens_match_by_position():
    assert task_features.token_match([1, 2, 3, 4], [1, 9, 3, 8]) == 0.5
    assert task_features.token_match([1, 2, 3], [2, 3, 1]) == 0  # the same tokens elsewhere


# --- training and test rows


def parts_of(trained, tested, layers=(3, 3, 3)):
    """The split of two training directions, the second the same in all tests, and a test one."""
    vectors = torch.stack([torch.as_tensor(v).float() for v in (trained, [1, 1, 0], tested)])
    names = ("sae/3/0", "sae/3/1", "sae/3/2")
    split = ("train", "train", "test")
    made = Directions(names, ("sae",) * 3, split, layers, vectors, ("",) * 3)
    return task_features.split(made, dict.fromkeys(names, "x"), 2, 0)


@pytest.mark.parametrize(
    ("trained", "tested"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [2, 4, 6]),
        ([1, 2, 3], [1 + 1e-6, 2, 3 - 1e-6]),
        ([0.0, 2, 3], [-0.0, 2, 3]),
        ([1e-12, 3e-12, 0], [1e12, 3e12, 0]),
        ([1e25, 2e25, 0], [1, 2, 1e-3]),
    ],
)
def test_a_direction_of_any_length_is_in_one_part_only(trained, tested):
    with pytest.raises(UserError, match="1 of 1 directions of the test rows stand among the train"):
        parts_of(trained, tested)
    assert parts_of(trained, tested, (3, 3, 4))["test"] == [2]  # another layer's


@pytest.mark.parametrize("tested", [[-1, -2, -3], [1, 2, 3.1], [0, 0, 0]])
def test_directions_that_differ_may_be_in_both_parts(tested):
    assert parts_of([1, 2, 3], tested)["test"] == [2]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 99), st.data())
def test_training_directions_are_of_every_layer_and_else_at_random(layers, seed, data):
    n = data.draw(st.integers(0, len(layers)))
    numbers = list(range(len(layers)))
    drawn = task_features.sample(numbers, layers, n, seed)
    assert len(drawn) == len({*drawn}) == n and {*drawn} <= {*numbers}
    assert len({layers[i] for i in drawn}) == min(n, len({*layers}))
    plain = random.Random(seed).sample(numbers, n)
    if {layers[i] for i in plain} == {*layers}:
        assert drawn == plain


# --- B.4


@pytest.mark.parametrize("form", ["", "authors-base", "authors-qwen"])
def test_the_check_of_the_layer_is_asked_as_the_paper_asks(form):
    rows = directions(240, layers=range(6))  # sae and act in turn, 20 of each layer
    layers = range(12)  # the explainer knows more layers than were drawn
    arms = task_features.layer_check(rows, layers, 0, form, n=30)
    assert list(arms) == list(task_features.LAYER_ARMS)
    assert {len(questions) for questions in arms.values()} == {30}
    [verb] = {"encode"} if form == "authors-base" else {"mean"}
    end = " " if form == "authors-base" else ""
    named = set()
    for full, no_layer, wrong, shuffled, zero in zip(*arms.values(), strict=True):
        [layer] = full.layers
        assert full.text == f"What does [s]v[e] {verb} at layer {layer}?{end}"
        assert no_layer.text == f"What does [s]v[e] {verb}?{end}"
        number = int(wrong.text.split("layer ")[1].split("?")[0])
        assert number != layer and wrong.layers == full.layers
        named.add(number)
        assert shuffled.text == zero.text == full.text and not zero.vector.any()
        assert rows.data[int(full.vector[0]) - 1] == "sae"
        assert not torch.equal(shuffled.vector, full.vector)
    assert Counter(question.layers for question in arms["full"]) == {(i,): 5 for i in range(6)}
    assert len(named) > 8  # any other layer, not only those that occur


def test_a_rollout_has_ten_tokens_whatever_is_said():
    explainer = make_explainer(d_target=2, projection="always")
    explainer.layer_index = {(3,): 0, (12,): 1}
    asked = questions(directions(6), "full")
    rolled = rollouts(explainer, asked, 10, batch_size=4)
    assert [len(tokens) for tokens in rolled] == [10] * 6
    # an end of sequence is a token like any other
    first = rolled[0][2]
    explainer.lm.tokenizer.eos_token_id = first
    assert rollouts(explainer, asked, 10, batch_size=4) == rolled
    explainer.lm.tokenizer.eos_token_id = None


def test_a_token_is_read_behind_the_lead_in():
    target = load_model("tiny-llama")
    ids = target.tokenizer("a b c", add_special_tokens=False)["input_ids"]
    whole = torch.tensor([[*target.encode(LEAD_IN), *ids]])
    hidden = target.model.get_decoder()(whole, output_hidden_states=True).hidden_states[3]
    h = token_activations(target, "a b c", 2)  # the output of layer 2
    torch.testing.assert_close(h, hidden[0, -len(ids) :].detach(), rtol=1e-4, atol=1e-5)


def test_one_vector_or_a_batch_is_described_alike():
    explainer = Explainer(load_model("tiny-llama"), SETTINGS, 32, ((1,), (2,))).eval()
    vectors = torch.randn(3, explainer.d_target)
    said = explainer.describe(vectors, 2, max_new_tokens=4)
    assert said == [explainer.describe(v, 2, max_new_tokens=4) for v in vectors]
    mixed = explainer.describe(vectors, [1, 2, 1], max_new_tokens=4)
    assert mixed[::2] == explainer.describe(vectors[::2], 1, max_new_tokens=4)
    assert mixed[1] == said[1]
    with pytest.raises(UserError, match="knows no vectors from layers"):
        explainer.describe(vectors[0], 3)
