"""Judges: A.2's prompt and scale against a chat server, the embedding judge against slow means."""

import importlib.util
import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from serving import ChatServer
from transformers import BertConfig, BertModel

from introspect_utils.models.chat import Endpoint
from introspect_utils.models.tiny import tiny_model
from introspect_utils.scores import judge
from introspect_utils.scores.judge import EmbeddingJudge, load_judge, parse_rating, ratings
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError

TEXTS = [
    "commas",
    "names of animals",
    'the word "York" and related names',
    "words ending in '-tion'",
    "years",
    "a",
]


@pytest.fixture(scope="module")
def tiny_judge(one_thread):
    """A random BERT behind a real tokenizer."""
    _, tokenizer = tiny_model("llama")
    tokenizer.padding_side = "right"  # positions are absolute here, and counted from the left
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    return EmbeddingJudge(
        BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).eval(), tokenizer
    )


@pytest.fixture(scope="module")
def fitting():
    """scripts/fit_judge.py as a module."""
    path = paths.REPO / "scripts" / "fit_judge.py"
    spec = importlib.util.spec_from_file_location("fit_judge", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def chat_judge(server, tmp_path, **settings):
    return load_judge(
        "openai", Endpoint("gpt-4.1-mini", server.url, cache_folder=tmp_path, **settings)
    )


def test_the_chat_judge_asks_as_the_paper_does(tmp_path):
    def reply(request):
        predicted, expected = re.findall(r"Predicted: (.*)\nExpected: (.*)\n", request["prompt"])[
            -1
        ]
        return {"{a}": "5", "b": " 3\n", "c": "1"}[predicted] if expected == "e" else "no"

    with ChatServer(reply) as server:
        judge_ = chat_judge(server, tmp_path)
        assert judge_.rate([("{a}", "e"), ("b", "e"), ("c", "e"), ("{a}", "e")]) == [1, 0.5, 0, 1]
    assert (judge_.name, judge_.model) == ("openai", f"gpt-4.1-mini at {server.url}")
    assert server.delivered.total() == 3
    prompt = server.requests[0]["messages"][0]["content"]
    assert prompt.startswith(
        "Does this feature description accurately describe when this feature activates?\nRate on a "
        "scale of:\n"
    )
    assert prompt.endswith("\nReturn a number from 1 to 5 and nothing else.")
    examples = re.findall(r"Predicted: (.*)\nExpected: (.*)\nCorrect rating: (\d)", prompt)
    assert [int(rating) for *_, rating in examples] == [1, 2, 3, 4, 5]
    assert server.requests[0]["temperature"] == 0


def test_an_answer_that_is_no_rating_is_asked_for_again(tmp_path):
    answers = ["4 or 5", "I cannot say", "0", "6", "4"]
    with ChatServer(lambda request: answers[request["nth"] - 1]) as server:
        assert chat_judge(server, tmp_path).rate([("a", "b")]) == [0.75]


def test_a_pair_that_is_never_rated_has_no_rating_and_many_are_an_error(tmp_path):
    def reply(request):
        return "I'm sorry." if "Predicted: x" in request["prompt"] else "4"

    with ChatServer(reply) as server:
        judge = chat_judge(server, tmp_path)
        rated = judge.rate([("x", "b"), ("a", "b"), ("c", "b")])
        assert rated[1:] == [0.75, 0.75] and np.isnan(rated[0])
        assert judge.model.endswith(f" at {server.url}")
        with pytest.raises(UserError, match="no usable reply to 2 of 3 prompts.*Predicted: x"):
            judge.rate([("x", "b"), ("x2", "b"), ("c", "b")])


@pytest.mark.parametrize(
    "reply",
    ["4", " 4. ", "**4**", "Rating: 4", "rating is 4/5", "4/5", "4 out of 5.", "Answer: **4**",
     "4\n\nBoth name animals; 2 of 3 words agree.", "4 - related", "4 (fairly similar)",
     "Correct rating: 4\n\nOn a scale of 1 to 5 ...", "The rating is 4: 'dogs' is narrower", "`4`",
     "Both are about animals.\n\n**Rating: 4**", "Rating - 4", "Score – 4.", "I would give this a 4.",
     "I give it 4", "(4)", "[4]", "<4>", "$4$", "\\boxed{4}", "Rating: [[4]]", "Rating: **(4)**", "4, as both",
     "4, because dogs are animals.", "Score of 4 of 5", "4 (of 5)", "Rating: 4 (out of 5)", "4.\n\nBoth"],
)  # fmt: skip
def test_a_rating_is_read_where_it_is_clearly_meant(reply):
    assert parse_rating(reply) == 4


@pytest.mark.parametrize(
    "reply",
    ["", "0", "6", "45", "4.5", "4 or 5", "4-5", "4/6", "between 3 and 4", "-4", "four animals",
     "I cannot rate these 2 descriptions", "1. The prediction names animals", "Rating: 3 or 4",
     "Rating: 3\nNo, rating: 4", "2 descriptions", "n/a", "Rating: 4.5", "Score: 2 (out of 10)",
     "Score: 2 (of 10)", "2 (out of ten or 10)", "Rating: 2/10", "1.\nThe predicted description",
     "1.\n\n2.", "1)\nBoth", "4, 5", "5, or 4", "Rating: -4", "Rating -4", "(4.5)", "(3) or (4)",
     "Answer: 5 (not 1)", "4%", "[1, 5]", "I give it 4 to 5", "\\boxed{45}"],
)  # fmt: skip
def test_what_is_unclear_is_no_rating(reply):
    assert parse_rating(reply) is None


@given(st.text("12356 *_.#`ab\n²", max_size=4))
def test_short_texts_are_ratings_only_with_their_number(reply):
    rating = parse_rating(reply)
    assert rating is None or reply.strip(' *_`#."\n') == str(rating) or not reply.isprintable()
    if reply.strip() in ("1", "2", "3", "4", "5"):
        assert rating == int(reply)


@pytest.mark.parametrize("said", ["", "  ", "\n"])
def test_an_empty_answer_scores_0_and_is_not_asked_about(tmp_path, tiny_judge, said):
    assert tiny_judge.rate([(said, "cities"), ("cities", "cities"), (said, "")]) == [0, 1, 0]
    with ChatServer(lambda request: "5") as server:
        judge_ = chat_judge(server, tmp_path)
        assert judge_.rate([(said, "b"), ("a", "b")]) == [0, 1] and server.delivered.total() == 1


def test_an_answer_that_is_missing_has_no_score(monkeypatch):
    monkeypatch.setattr(judge, "complete", lambda *_, **__: [None, 2])
    scores = load_judge("openai", Endpoint("m")).rate([("a", "b"), ("", "b"), ("c", "d")])
    assert np.isnan(scores[0]) and scores[1:] == [0, 0.25]


def test_an_embedding_is_the_mean_over_a_texts_own_tokens(tiny_judge):
    embeddings = tiny_judge.embed(TEXTS)
    for text, embedding in zip(TEXTS, embeddings, strict=True):
        ids = torch.tensor([tiny_judge.tokenizer(text)["input_ids"]])
        hidden = tiny_judge.encoder(ids).last_hidden_state[0]
        mean = sum(hidden) / len(hidden)
        torch.testing.assert_close(embedding, mean / mean.square().sum().sqrt())


def test_batches_change_nothing_and_cosines_are_symmetric(tiny_judge):
    pairs = list(itertools.product(TEXTS, TEXTS))
    cosines = tiny_judge.cosines(pairs)
    np.testing.assert_allclose(tiny_judge.cosines(pairs, batch_size=2), cosines, atol=1e-6)
    np.testing.assert_allclose(tiny_judge.cosines([(b, a) for a, b in pairs]), cosines, atol=1e-6)
    direct = torch.cosine_similarity(
        tiny_judge.embed([a for a, _ in pairs]), tiny_judge.embed([b for _, b in pairs])
    )
    np.testing.assert_allclose(direct, cosines, atol=1e-6)
    assert len(set(cosines.round(4))) > 10
    assert tiny_judge.rate([(text, text) for text in TEXTS]) == [1] * len(TEXTS)
    assert tiny_judge.rate([]) == []


def test_a_cosine_that_reaches_a_threshold_has_passed_it():
    assert ratings(np.array([-1, 0.19, 0.2, 0.5, 0.69, 0.7, 1]), (0.2, 0.2, 0.5, 0.7)).tolist() == [
        1,
        1,
        3,
        4,
        4,
        5,
        5,
    ]


def test_under_the_fitted_cuts_each_rating_is_given_as_often_as_by_hand(fitting):
    random = np.random.default_rng(0)
    for _ in range(20):
        rated = np.append(random.integers(1, 6, 30), range(1, 6))
        cosines = rated / 10 + random.normal(0, 0.3, 35)
        given_ = ratings(cosines, fitting.fit(cosines, rated))
        assert np.bincount(given_).tolist() == np.bincount(rated).tolist()


def test_the_rated_pairs(fitting):
    pairs, rated = fitting.rated_pairs()
    assert len(pairs) == len(set(pairs)) == 227
    assert set(np.unique(rated)) == {1, 2, 3, 4, 5} and np.bincount(rated)[1:].min() >= 20
    examples = re.findall(r"Predicted: (.*)\nExpected: (.*)\nCorrect rating: (\d)", judge.PROMPT)
    of_pair = dict(zip(pairs, rated, strict=True))
    assert [of_pair[predicted, expected] for predicted, expected, _ in examples] == [1, 2, 3, 4, 5]


def test_the_judge_can_give_all_five_ratings():
    """.25 never occurred while two thresholds were equal."""
    cosines = np.linspace(-1, 1, 1001)
    assert set(ratings(cosines, judge.THRESHOLDS).tolist()) == {1, 2, 3, 4, 5}
    assert np.diff([0, *judge.THRESHOLDS, 1]).min() > 0.05


def test_embeddings_that_are_not_finite_are_an_error(tiny_judge, monkeypatch):
    """A cosine that is no number was rated 5."""
    nan = torch.full((2, 4), torch.nan)
    monkeypatch.setattr(EmbeddingJudge, "embed", lambda self, texts: nan[: len(texts)])
    with pytest.raises(UserError, match="embeddings that are not finite"):
        tiny_judge.rate([("a", "b")])


def test_another_judge():
    with pytest.raises(UserError, match="no judge is called 'embeding'; did you mean 'embedding'"):
        load_judge("embeding")


@pytest.mark.real
def test_the_embedding_judge_is_the_one_that_was_fitted(fitting):
    embedding = load_judge("embedding", device="cpu")
    pairs, rated = fitting.rated_pairs()
    cosines = embedding.cosines(pairs)
    assert tuple(round(cut, 3) for cut in fitting.fit(cosines, rated)) == judge.THRESHOLDS
    given_ = ratings(cosines, judge.THRESHOLDS)
    assert np.abs(given_ - rated).mean() < 0.85 and abs(given_.mean() - rated.mean()) < 0.03
    assert np.bincount(given_)[1:].min() >= 20
    known = {
        "That is a happy dog": 0.6946,
        "That is a very happy person": 0.9429,
        "Today is a sunny day": 0.2569,
    }
    found = embedding.cosines([("That is a happy person", text) for text in known])
    np.testing.assert_allclose(
        found, list(known.values()), atol=1e-3
    )  # what sentence-transformers gives
    assert embedding.rate(
        [("words for animals", "names of animals"), ("commas", "names of animals")]
    ) == [1, 0]
    assert (embedding.name, embedding.model) == (
        "embedding",
        "all-MiniLM-L6-v2, cut at 0.309, 0.494, 0.577, 0.771",
    )
