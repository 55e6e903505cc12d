"""Candidate descriptions from a chat model: what it is shown of the exemplars, and what is taken
from its reply."""

import re

import pytest
import torch
from serving import ChatServer
from spelling import prepending_tokenizer

from introspect_utils.features.chat_candidates import (
    PROMPT,
    chat_candidates,
    parse_description,
    prompt,
    with_marks,
)
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.chat import Endpoint
from introspect_utils.models.tiny import tiny_model


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_model("llama")[1]


def make_exemplars(tokenizer, texts: list[str], n_directions: int) -> Exemplars:
    """Every text is a top exemplar of every direction; direction i is most active on token i of
    each, a little on the next."""
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    length = min(map(len, rows))
    tokens = torch.tensor([row[:length] for row in rows])
    activations = torch.zeros(n_directions, len(texts), length)
    for i in range(n_directions):
        activations[i, :, i], activations[i, :, i + 1] = 4.0, 1.9
    sequences = torch.arange(len(texts)).expand(n_directions, -1)
    moments = [torch.full((n_directions,), value) for value in (-0.1, 4.0)]
    return Exemplars(tokens, sequences, activations, *moments, n_top=len(texts))


def test_the_most_active_tokens_are_marked(tokenizer):
    exemplars = make_exemplars(
        tokenizer,
        ["Paris is located in the country of", "Rome is located in the country of Italy"],
        2,
    )
    shown = prompt(exemplars, 1, [1, 0], tokenizer).removeprefix(
        PROMPT[: PROMPT.index("{excerpts}")]
    )
    first, second = re.findall(r" \d\. (.*)", shown)[-2:]
    for text, row in ((first, 1), (second, 0)):
        token = tokenizer.decode(exemplars.tokens[row, 1])
        assert re.findall(r"{{(.*?)}}", text) == [token]
        assert (
            text.replace("{{", "").replace("}}", "")
            == tokenizer.decode(exemplars.tokens[row]).strip()
        )


def test_runs_are_marked_once_and_whole(tokenizer):
    tokens = torch.tensor(tokenizer("naïve\nRome — Paris", add_special_tokens=False)["input_ids"])
    all_marked = torch.ones(len(tokens), dtype=torch.bool)
    assert with_marks(tokens, all_marked, tokenizer) == "{{naïve\\nRome — Paris}}"
    assert with_marks(tokens, ~all_marked, tokenizer) == "naïve\\nRome — Paris"
    ends = all_marked.clone()
    ends[1:-1] = False
    assert with_marks(tokens, ends, tokenizer).count("{{") == 2


@pytest.mark.parametrize("text", ["Rome of the city", "a b c d e f", "of"])
def test_the_space_before_a_run_is_kept_where_the_decoder_drops_the_first(text):
    tokenizer = prepending_tokenizer()
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert tokenizer.decode(ids[:1]) == ""  # that is the trap
    for marked in (range(0, len(ids), 2), [len(ids) // 2], [0, len(ids) - 1]):
        marks = torch.zeros(len(ids), dtype=torch.bool)
        marks[list(marked)] = True
        shown = with_marks(ids, marks, tokenizer)
        assert re.sub("{{|}}", "", shown).strip() == text
        assert shown.count("{{") == sum(i - 1 not in marked for i in marked)


def test_several_candidates_for_each_direction(tokenizer, tmp_path):
    texts = [
        f"{name} is located in the country of Italy"
        for name in ("Rome", "Milan", "Turin", "Naples", "Bari", "Genoa")
    ]
    exemplars = make_exemplars(tokenizer, texts, 3)
    marked = [tokenizer.decode(exemplars.tokens[0, i]) for i in range(3)]

    def reply(request):
        found = re.findall(r"{{(.*?)}}", request["prompt"].split("Now this direction")[1])
        assert len(found) == 4
        return f'"the token {found[0].strip()}, number {len(server.requests)}".\nI hope this helps'

    with ChatServer(reply) as server:
        endpoint = Endpoint("model-x", server.url, concurrency=1, cache_folder=tmp_path)
        found = chat_candidates(exemplars, tokenizer, endpoint, n=3, n_shown=4)
        assert found == chat_candidates(exemplars, tokenizer, endpoint, n=3, n_shown=4)
    assert server.delivered.total() == 9 == len(server.delivered)
    assert [len(candidates) for candidates in found] == [3, 3, 3]
    assert found[1][0] == f"the token {marked[1].strip()}, number 4"


def test_equal_descriptions_are_one_candidate(tokenizer, tmp_path):
    exemplars = make_exemplars(
        tokenizer,
        ["Rome is located in the country of Italy", "Bari is located in the country of"],
        1,
    )
    with ChatServer(lambda request: "names of cities") as server:
        endpoint = Endpoint("model-x", server.url, cache_folder=tmp_path)
        assert chat_candidates(exemplars, tokenizer, endpoint, n=4, n_shown=9) == [
            ["names of cities"]
        ]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("words for animals", "words for animals"),
        (' "words for animals".\n', "words for animals"),
        ('"words for animals."', "words for animals"),
        ('the word "York"', 'the word "York"'),
        ('"York" and "Paris"', '"York" and "Paris"'),
        ("Description: commas.\n\nThe marked tokens", "commas"),
        ("Sure! Here is a short phrase:\n\n**words for animals**", "words for animals"),
        ("Here's the description: words for animals.", "words for animals"),
        ("**Description:** words for animals", "words for animals"),
        ("Okay.\n\nDescription:\nwords for `animals`", "words for animals"),
        ("I'm sorry, but I can't help with that.", None),
        ("As an AI, I do not see a pattern", None),
        ("", None),
        ('""', None),
        (".", None),
        ("tokens such as {{ dog}}", None),
        ("long " * 50, None),
    ],
)
def test_what_is_taken_from_a_reply(reply, text):
    assert parse_description(reply) == text


@pytest.mark.parametrize(
    "around",
    [
        "Absolutely! Here is the description: {}", "The description is: {}", "Final answer: {}",
        "Short phrase: {}", "Great! {}", "- {}", "1. {}", "* {}", "# Description\n{}", "### {}",
        "### Short description:\n\n{}", "“{}”", "'{}'", "«{}».", "Here are the words: {}", "```\n{}\n```",
        '```json\n{{\n  "description": "{}"\n}}\n```', '{{"description": "{}"}}', "<answer>{}</answer>",
        "\\boxed{{{}}}", "\\boxed{{\\text{{{}}}}}", "{} <|im_end|>", "Description (short): {}", "Answer: “{}.”",
        "Certainly, here's one short phrase that describes this feature:\n- **{}**", "OK: {}", "Label: `{}`",
        "{}\n\nI hope this helps!", "<answer>\n\"{}\"\n</answer>", "{}\n\nExplanation: they are pets", "Of course!\n\n{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("phrase", ["names of animals", "words before ':', for example titles"])
def test_what_stands_around_a_phrase_is_cut(around, phrase):
    if not (around.startswith("'") and "'" in phrase):
        assert parse_description(around.format(phrase)) == phrase


@pytest.mark.parametrize(
    "reply",
    [
        "Unfortunately, I cannot see a clear pattern.", "I apologize, but I cannot help with that.",
        "There is no clear pattern in these excerpts.", "I don't see any excerpts.", "It is not possible to say.",
        "N/A", "None", "unknown", "I won't describe this.", "Error: model overloaded", "Sorry", "Sorry, no theme.",
        "Please provide the excerpts.", "I need more context to determine this.", "As a language model, I cannot",
        "Let me think about it. The words are animals.", "We need a phrase.", "You provided no text", "no clear pattern",
        "Could you send the text?", "Description: I’m not sure", '"I cannot tell."', "Sure!", "Of course.", "Description:",
        "Here is the description:\n", "The excerpts are about animals", '{"a": "x", "b": "y"}', "Hm, but we can’t know",
    ],
)  # fmt: skip
def test_what_somebody_says_is_no_description(reply):
    assert parse_description(reply) is None


@pytest.mark.parametrize(
    "phrase",
    [
        "okay as an interjection", "certainly, surely and other adverbs", "the pronoun I", "I and my", "I, me and we",
        "the word 'I' before verbs", '"I am" and "we are"', "sorry and other apologies", "sorry, please and thank you",
        "World War I battles", "the word answer", "the word 'none'", "error messages", "there and here",
        "legal terms: court, judge", "the hyphen in 'e-mail'", "it and its", "please as a polite word",
        "HTML tags such as <b>", "a colon, as in 'note:'", "numbers such as 3.5", "the sign {", "you and your",
        "words in job descriptions: duties and skills", "i.e. and e.g", "modal verbs such as can and cannot",
        "'s after names", "patterns of stripes", "nothing and nobody", "#hashtags", "the sure sign", "-ing forms",
    ],
)  # fmt: skip
def test_an_honest_phrase_stays_as_it_is(phrase):
    assert parse_description(phrase) == phrase
    assert parse_description(f"{phrase}.\nmore") == phrase


@pytest.mark.parametrize("phrase", ["absolutely", "of course", "sure", "Okay"])
def test_an_introduction_is_cut_only_where_it_is_one(phrase):
    assert parse_description(phrase) == parse_description(f"{phrase}\nthings") == phrase
    assert parse_description(f"{phrase}.\nthings") == "things"
