"""Candidate descriptions of directions from a chat model that reads their exemplars.

The format is that of Bills et al. (2023) and Choi et al. (2024): excerpts of text with the most
active tokens marked {{like this}}, a few worked examples, and a short phrase as the answer.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from introspect_utils.models.chat import Endpoint, complete

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from introspect_utils.features.exemplars import Exemplars

MARKED = (
    0.5  # a token is marked from this share of its excerpt's peak on, counted from the corpus mean
)
LONGEST = 200  # characters of a description

PROMPT = """We study a language model. One direction of its activations responds to something particular in text. Below are \
excerpts on which it responds most; the tokens with the highest activation are marked {{{{like this}}}}. Say in one short \
phrase what the marked tokens are, or what about their surroundings makes them marked. Describe what they have in common; \
do not list them, and do not mention the excerpts or the marks.

Example 1
 1. The vet looked at the{{{{ dog}}}} and then at my neighbour's{{{{ horse}}}}.
 2. a farm with forty{{{{ cows}}}}, two{{{{ goats}}}} and no tractor
Description: words for domestic animals

Example 2
 1. at the end of{{{{ March}}}} the river rises
 2. the history of{{{{ glass}}}} is the history of{{{{ trade}}}}
Description: the word after "of"

Example 3
 1. an{{{{ educa}}}}tion in the{{{{ founda}}}}tions of law
 2. their{{{{ separa}}}}tion was final
Description: the beginning of words that end in "-tion"

Now this direction
{excerpts}
Description:"""


def chat_candidates(
    exemplars: Exemplars,
    tokenizer: PreTrainedTokenizerBase,
    endpoint: Endpoint,
    n: int,
    n_shown: int = 5,
    seed: int = 0,
) -> list[list[str]]:
    """Up to `n` different candidate descriptions of each direction, from `n` prompts that show
    `n_shown` top exemplars each.

    The first prompt shows the best exemplars, best first; each other one a random draw of them in
    random order, the same ranks for all directions. Give the half of the exemplars that
    descriptions are written from (`exemplars.describing()`). Raises what `chat.complete` raises.
    """
    n_shown = min(n_shown, exemplars.n_top)
    draw = random.Random(seed)
    orders = [list(range(n_shown))] + [
        draw.sample(range(exemplars.n_top), n_shown) for _ in range(n - 1)
    ]
    prompts = [
        prompt(exemplars, row, order, tokenizer)
        for row in range(len(exemplars))
        for order in orders
    ]
    replies = complete(prompts, endpoint, parse_description)
    return [list(dict.fromkeys(replies[start : start + n])) for start in range(0, len(replies), n)]


def prompt(
    exemplars: Exemplars, row: int, ranks: list[int], tokenizer: PreTrainedTokenizerBase
) -> str:
    """What the chat model is asked about direction `row`, with its exemplars of these ranks."""
    texts = []
    for rank in ranks:
        above = exemplars.activations[row, rank] - exemplars.mean[row]  # [T]
        tokens = exemplars.tokens[exemplars.sequences[row, rank]]
        texts.append(with_marks(tokens, above >= MARKED * above.max(), tokenizer))
    return PROMPT.format(
        excerpts="\n".join(f" {number}. {text}" for number, text in enumerate(texts, 1))
    )


def with_marks(tokens: Tensor, marked: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    """`tokens` [T] as one line of text, each run of `marked` [T] tokens between {{ and }}."""
    starts = [0, *((marked[1:] != marked[:-1]).nonzero()[:, 0] + 1).tolist(), len(tokens)]
    text = ""
    for start, end in zip(starts, starts[1:], strict=False):
        run = tokenizer.decode(tokens[start:end].tolist(), clean_up_tokenization_spaces=False)
        text += f"{{{{{run}}}}}" if marked[start] else run
    return text.strip().replace("\n", "\\n")


def parse_description(reply: str) -> str | None:
    """The first line of a reply without its quotes and full stop; None if that is empty, too long,
    or holds marks."""
    lines = reply.strip().splitlines() or [""]
    text = lines[0].removeprefix("Description:").strip().removesuffix(".").strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip().removesuffix(".")
    return text if text and len(text) <= LONGEST and "{{" not in text else None
