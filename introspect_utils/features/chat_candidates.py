"""Candidate descriptions of directions from a chat model that reads their exemplars.

The format is that of Bills et al. (2023) and Choi et al. (2024): excerpts of text with the most
active tokens marked {{like this}}, a few worked examples, and a short phrase as the answer.
"""

import random
import re
from itertools import product
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.chat import Endpoint, complete
from introspect_utils.models.tokens import texts_of

MARKED = 0.5  # share of an excerpt's peak, from the corpus mean, from which a token is marked
LONGEST = 200  # characters of a description
YES = "sure|certainly|absolutely|definitely|of course|okay|ok|yes|great|got it"
# words of which an introduction, up to its colon, is made; it names what follows, or says "here"
NAMED = "description|answer|phrase|label|here"
AROUND = (
    f"{NAMED}|{YES}|is|are|s|the|a|an|my|one|this|that|it|for|of|short|final|best|marked|feature"
    "|direction|words?|tokens?|describes|describing"
)
INTRODUCTION = re.compile(
    rf"(?=[^:]*\b(?:{NAMED})\b)(?:\b(?:{AROUND})\b[^\w:(]*)+(?:\(\w+\)\s*)?:\s*", re.I
)
INTERJECTION = re.compile(rf"(?:{YES})\s*[!.:]+\s*", re.I)
MARKUP = re.compile(r"\*\*|__|`|<\|[^|]*\|>|^\s*(?:[-*•]|\d+[.)]|#+)\s+")
HEADING = re.compile(r"^(#+\s+.*\b(?:description|answer)\b.*?):?$", re.I | re.M)
# what stands around all of an answer; a quotation mark is not within
WRAPPED = re.compile(
    r"""\s*(?:"([^"]*)"|'([^']*)'|“([^”]*)”|‘([^’]*)’|«([^»]*)»|<(?P<tag>\w+)>(.*)</(?P=tag)>"""
    r"""|\\boxed{(.*)}|\\text{(.*)}|{\s*"\w+"\s*:\s*"([^"\\]*)"\s*})[\s.]*""",
    re.DOTALL,
)
QUOTED = re.compile(r""""[^"]*"|“[^”]*”|‘[^’]*’|(?<!\w)'[^']*'(?!\w)""")
# A phrase is about text: nobody speaks in it, and it does not say what it was made from. A word may
# be named in it without quotation marks ("I and my", "sorry as an apology").
IS_NAMED = r"(?!\s+(?:and|or|as|in|at|of|before|after|when|followed)\b)"
SPOKEN = re.compile(
    rf"(?:^you|(?:^|[.,;:!?]\s+)(?:(?:but|so)\s+)?(?:i|we))(?:['’]\w+)?{IS_NAMED}\s+\w"
    rf"|^(?:sorry|please|unfortunately|apologies|let me|there(?:['’]s| is| are)|it(?:['’]s| is)"
    rf"|as an? [\w ]*\b(?:ai|model)|(?:can|could|would) you)\b{IS_NAMED}(?!\s*,.*\b(?:and|or)\b)"
    r"|\bexcerpts?\b|\bno (?:\w+ )?(?:pattern|theme|description)\b"
    r"|^(?:n/?a|none|null|unknown|unclear|nothing|error\s*:.*)$",
    re.I,
)
PROMPT = Path(__file__).with_suffix(".txt").read_text("utf-8").removesuffix("\n")


def chat_candidates(
    exemplars: Exemplars,
    tokenizer: PreTrainedTokenizerBase,
    endpoint: Endpoint,
    n: int,
    n_shown: int = 5,
) -> list[list[str]]:
    """Up to `n` different candidate descriptions of each direction from `n` prompts: the first
    shows the `n_shown` best exemplars, each other one a random draw, the same ranks for all.

    Give the half of the exemplars that descriptions are written from (`exemplars.describing()`). A
    reply without a description is left out. Raises what `chat.complete` raises.
    """
    n_shown, draw = min(n_shown, exemplars.n_top), random.Random(0)
    drawn = [draw.sample(range(exemplars.n_top), n_shown) for _ in range(n - 1)]
    asked = product(range(len(exemplars)), [list(range(n_shown)), *drawn])
    prompts = [prompt(exemplars, row, ranks, tokenizer) for row, ranks in asked]
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
    """The phrase in a reply, without introduction, label, markup, quotes and full stop.
    None for what somebody says (a refusal, a question), and for what is empty, unfinished, too long
    or holds marks."""
    answer = unwrapped(re.sub(r"^```\w*$", "", reply, flags=re.M))
    lines = [MARKUP.sub("", line).strip() for line in HEADING.sub(r"\1:", answer).splitlines()]
    introduced = [n for n, line in enumerate(lines) if INTRODUCTION.match(line)]
    for line in lines[introduced[0] if introduced else 0 :]:
        text = INTERJECTION.sub("", line, count=1)
        text = unwrapped(INTRODUCTION.sub("", text, count=1)).rstrip(". ")
        if text:
            marked = "{{" in text or text.startswith("{")
            wrong = marked or len(text) > LONGEST or SPOKEN.search(QUOTED.sub("", text))
            return None if wrong else text
    return None


def unwrapped(text: str) -> str:
    """`text` without the quotation marks, tags or braces that stand around all of it."""
    while inside := WRAPPED.fullmatch(text):
        text = inside[inside.lastindex]
    return text.strip()
