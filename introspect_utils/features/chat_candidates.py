"""Candidate descriptions of directions from a chat model that reads their exemplars.

The format is that of Bills et al. (2023) and Choi et al. (2024): excerpts of text with the most
active tokens marked {{like this}}, a few worked examples, and a short phrase as the answer.
"""

import random
import re
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.features.words import texts_of
from introspect_utils.models.chat import Endpoint, complete

MARKED = 0.5  # share of an excerpt's peak, from the corpus mean, from which a token is marked
LONGEST = 200  # characters of a description
LABEL = re.compile(r"^(short )?(description|answer)\s*:\s*", re.I)
INTRODUCTION = re.compile(r"(sure|certainly|of course|okay|here is|here's|here’s)\b", re.I)
REFUSAL = re.compile(r"(i['’]m |i am )?(sorry|unable)|i can('t|’t|not)\b|as an ai\b", re.I)
PROMPT = Path(__file__).with_suffix(".txt").read_text("utf-8").removesuffix("\n")


def chat_candidates(
    exemplars: Exemplars,
    tokenizer: PreTrainedTokenizerBase,
    endpoint: Endpoint,
    n: int,
    n_shown: int = 5,
    seed: int = 0,
) -> list[list[str]]:
    """Up to `n` different candidate descriptions of each direction from `n` prompts: the first
    shows the `n_shown` best exemplars, each other one a random draw, the same ranks for all.

    Give the half of the exemplars that descriptions are written from (`exemplars.describing()`). A
    reply without a description is left out. Raises what `chat.complete` raises.
    """
    n_shown, draw = min(n_shown, exemplars.n_top), random.Random(seed)
    drawn = [draw.sample(range(exemplars.n_top), n_shown) for _ in range(n - 1)]
    orders = [list(range(n_shown)), *drawn]
    prompts = [
        prompt(exemplars, row, order, tokenizer)
        for row in range(len(exemplars))
        for order in orders
    ]
    replies = complete(prompts, endpoint, parse_description)
    of_directions = (replies[start : start + n] for start in range(0, len(replies), n))
    return [list(dict.fromkeys(filter(None, texts))) for texts in of_directions]


def prompt(
    exemplars: Exemplars, row: int, ranks: list[int], tokenizer: PreTrainedTokenizerBase
) -> str:
    """What the chat model is asked about direction `row`, with its exemplars of these ranks."""
    texts = []
    for number, rank in enumerate(ranks, 1):
        above = exemplars.activations[row, rank] - exemplars.mean[row]  # [T]
        tokens = exemplars.tokens[exemplars.sequences[row, rank]]
        texts.append(f" {number}. {with_marks(tokens, above >= MARKED * above.max(), tokenizer)}")
    return PROMPT.replace("{excerpts}", "\n".join(texts))


def with_marks(tokens: Tensor, marked: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    """`tokens` [T] as one line of text, each run of `marked` [T] tokens between {{ and }}."""
    starts = [0, *((marked[1:] != marked[:-1]).nonzero()[:, 0] + 1).tolist()]
    runs = texts_of(tokenizer, (run.tolist() for run in tokens.tensor_split(starts[1:])))
    parts = zip(runs, marked[starts].tolist(), strict=True)
    text = "".join(f"{{{{{run}}}}}" if is_marked else run for run, is_marked in parts)
    return text.strip().replace("\n", "\\n")


def parse_description(reply: str) -> str | None:
    """The phrase in a reply, without thoughts, introduction, label, markup, quotes and full stop.
    None for a refusal, and for what is empty, unfinished, too long or holds marks."""
    reply = re.sub(r"<think>.*?</think>", "", reply, flags=re.DOTALL)
    lines = [re.sub(r"\*\*|__|`", "", line).strip() for line in reply.splitlines()]
    labelled = [number for number, line in enumerate(lines) if LABEL.match(line)]
    for line in lines[labelled[0] if labelled else 0 :]:
        text = LABEL.sub("", line)
        text = text.partition(":")[2] if INTRODUCTION.match(text) else text
        text = text.strip().removesuffix(".").strip()
        if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
            text = text[1:-1].strip().removesuffix(".")
        if text:
            wrong = len(text) > LONGEST or "{{" in text or "<think>" in text or REFUSAL.match(text)
            return None if wrong else text
    return None
