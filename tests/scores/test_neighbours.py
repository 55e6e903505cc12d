import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.features.directions import Directions
from introspect_utils.scores import neighbours
from introspect_utils.scores.neighbours import nearest, nearest_descriptions
from introspect_utils.settings.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "AT_ONCE", 3)


def whole_numbers(n, d, seed):
    """Few different vectors, whose products are exact: ties within and between blocks, and zero
    vectors."""
    return torch.randint(-1, 2, (n, d), generator=torch.Generator().manual_seed(seed)).float()


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 30), st.integers(0, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_the_first_of_the_most_similar_vectors_is_taken(n, m, d, seed):
    train, queries = whole_numbers(n, d, seed), whole_numbers(m, d, seed + 1)
    index, value = nearest(train, queries, "dot")
    assert index.dtype == torch.int64 and value.dtype == torch.float32
    for query, i, v in zip(queries.tolist(), index.tolist(), value.tolist(), strict=True):
        products = [sum(a * b for a, b in zip(query, row, strict=True)) for row in train.tolist()]
        assert (i, v) == (products.index(max(products)), max(products))


@given(
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 8),
    st.integers(0, 10**6),
    st.floats(0.1, 100),
)
def test_cosine_against_brute_force_in_double_precision(n, m, d, seed, scale):
    train = normal(n, d, seed) * torch.logspace(-2, 2, n)[:, None]  # of very different norms
    queries = normal(m, d, seed + 1) * scale
    index, value = nearest(train, queries)
    cosine = torch.nn.functional.cosine_similarity(
        queries.double()[:, None], train.double()[None], dim=-1
    )
    best = cosine.max(1).values
    assert torch.allclose(value.double(), best, atol=1e-5)
    assert torch.allclose(cosine[torch.arange(m), index], best, atol=1e-5)


def test_norms_decide_the_product_and_not_the_cosine():
    train, query = torch.tensor([[1.0, 0.0], [9.0, 9.0]]), torch.tensor([[5.0, 1.0]])
    assert nearest(train, query, "cosine")[0].tolist() == [0]
    assert nearest(train, query, "dot")[0].tolist() == [1]


def test_a_zero_vector_is_similar_to_nothing():
    train = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [0.0, -1.0]])
    assert nearest(train, torch.tensor([[1.0, 1.0]]))[0].tolist() == [1]
    assert [part.tolist() for part in nearest(train, torch.zeros(1, 2))] == [[0], [0.0]]


def test_products_of_half_precision_vectors_are_taken_in_float32():
    """In bfloat16 256 + 1 is 256: the two would be equal, and the first of them be taken."""
    train = torch.tensor([[256.0, 0.0], [256.0, 1.0]], dtype=torch.bfloat16)
    index, value = nearest(train, torch.ones(1, 2, dtype=torch.bfloat16), "dot")
    assert (index.tolist(), value.tolist()) == ([1], [257.0])
    train, queries = normal(9, 8, 0).bfloat16(), normal(2, 8, 1).bfloat16()
    assert torch.allclose(
        nearest(train, queries)[1], nearest(train.float(), queries.float())[1], atol=1e-6
    )


def test_no_product_is_larger_than_a_block_of_training_vectors(monkeypatch):
    rows = []
    monkeypatch.setattr(neighbours, "linear", lambda a, b: rows.append(len(b)) or a @ b.T)
    nearest(normal(50, 2, 0), normal(20, 2, 1))
    assert rows == [3] * 17  # 50 in parts of three


@pytest.mark.parametrize("extra", [1, 2, 5, 8])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_of_equal_vectors_in_two_blocks_the_first_is_taken(monkeypatch, extra, similarity):
    monkeypatch.setattr(neighbours, "AT_ONCE", 2048)
    train = normal(2048 + extra, 576, 0)
    train[2048] = train[0]
    index, _ = nearest(train, train[0] + 0.1 * normal(300, 576, 1), similarity)
    assert not index.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_vector_that_is_not_finite_is_an_error(value):
    """One NaN among the training vectors made index 0 the neighbour of every query."""
    broken = normal(5, 4, 0)
    broken[3, 1] = value
    for similarity in ("cosine", "dot"):
        for pair in ((broken, normal(2, 4, 1)), (normal(2, 4, 1), broken)):
            with pytest.raises(UserError, match="a vector is not finite"):
                nearest(*pair, similarity)


def test_nothing_to_choose_from():
    with pytest.raises(UserError, match="there is no training direction to take"):
        nearest(torch.ones(0, 2), torch.ones(1, 2))


def directions(layers, vectors):
    n = len(layers)
    names = tuple(f"sae/{layer}/{i}" for i, layer in enumerate(layers))
    return Directions(names, ("sae",) * n, ("test",) * n, tuple(layers), vectors, ("",) * n)


TRAIN = directions([3, 3, 7, 7], torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-9.0, -9.0]]))
TEXTS = ["east", "north", "north-east", "south-west"]


@pytest.mark.parametrize(
    ("within_layer", "similarity", "expected"),
    [
        (False, "cosine", ["north", "north", "north-east"]),
        (True, "cosine", ["north-east", "north", "east"]),
        (False, "dot", ["north-east", "north-east", "north-east"]),
        (True, "dot", ["north-east", "north", "east"]),
    ],
)
def test_nn_all_and_nn_layer(within_layer, similarity, expected):
    test = directions([7, 3, 3], torch.tensor([[0.1, 2.0], [0.1, 2.0], [2.0, 1.5]]))
    assert nearest_descriptions(TRAIN, TEXTS, test, within_layer, similarity) == expected


@given(st.lists(st.sampled_from([0, 1, 2]), max_size=12), st.booleans(), st.integers(0, 10**6))
def test_descriptions_against_one_query_at_a_time(layers, within_layer, seed):
    train = directions([0, 1, 2, *layers], normal(3 + len(layers), 3, seed))
    test, texts = directions(layers, normal(len(layers), 3, seed + 1)), list(train.names)
    found = nearest_descriptions(train, texts, test, within_layer, "cosine")
    for i, layer in enumerate(layers):
        rows = train.where(layer=layer) if within_layer else range(len(train))
        cosines = {
            texts[j]: torch.cosine_similarity(
                train.vectors[j].double(), test.vectors[i].double(), 0
            )
            for j in rows
        }
        assert max(cosines.values()) - cosines[found[i]] < 1e-6


def test_a_layer_without_training_directions_is_named():
    test = directions([5, 3], torch.ones(2, 2))
    assert nearest_descriptions(TRAIN, TEXTS, test, False, "cosine") == ["north-east"] * 2
    with pytest.raises(UserError, match=r"NN-layer: no training direction is of layers \[5\]"):
        nearest_descriptions(TRAIN, TEXTS, test, True, "cosine")
