"""Judges of a predicted description against the expected one (section 3.3 and A.2), and the
agreement between judges.

judge = load_judge("embedding")
judge.rate([("words for animals", "names of animals")])   # [1.0]: one of 0, 0.25, 0.5, 0.75, 1
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from introspect_utils.data.assets import fetch
from introspect_utils.models.chat import Endpoint, complete
from introspect_utils.models.load import choose_device
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.reading import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pair = tuple[str, str]  # (predicted, expected)

GPT_4_1_MINI = Endpoint(
    "gpt-4.1-mini", max_tokens=8, price_in=0.40, price_out=1.60
)  # the paper's judge

PROMPT = """Does this feature description accurately describe when this feature activates?
Rate on a scale of:
- 1 = completely unrelated to expected
- 2 = mostly unrelated
- 3 = somewhat related
- 4 = related and fairly similar
- 5 = same as expected, or highly similar (treat this as a correct match)

If unsure between 4 and 5, choose 5.

Examples:

Predicted: mentions of cooking recipes
Expected: references to financial transactions
Correct rating: 1

Predicted: mentions of dogs and cats
Expected: references to farm animals
Correct rating: 2

Predicted: mentions of sunny weather and rain
Expected: references to climate conditions
Correct rating: 3

Predicted: mentions of jazz musicians and concerts
Expected: references to music
Correct rating: 4

Predicted: mentions of Shakespeare's plays
Expected: references to works by Shakespeare
Correct rating: 5

Now rate the following pair:

Predicted: {predicted}
Expected: {expected}

Return a number from 1 to 5 and nothing else."""

# The cosine from which a pair is rated 2, 3, 4 and 5. Made by scripts/fit_judge.py from the 107
# hand-rated pairs of RATED_PAIRS, which are rows of no test set; not to be changed after a look at
# results. Mean absolute error 0.55 of a rating, 0.63 for a pair left out of the fit (1.21 for a
# constant). The first two are equal, so a rating of 2 is never given: the cosine does not tell "of
# one kind but apart" (2) from "often go together" (3).
THRESHOLDS = (0.246, 0.246, 0.485, 0.724)
RATED_PAIRS = Path(__file__).parent.parent / "data" / "judge_pairs.json"
RATING = re.compile(
    r"(?:\A\s*|\b(?:rating|score|answer)(?:\s+is)?\s*[:=]?\s*)([1-5])(?:\s*/\s*5|\s+out of 5)?\.?"
    r"(?=\s*\Z|\s*\n|\s*[:(–—-]\s*[^\s\d])",
    re.I,
)
LONGEST = 256  # tokens; what the embedding model was made for


class Judge(Protocol):
    """What rates predicted descriptions. `name` is the engine ("embedding" or "openai"), `model`
    what runs in it."""

    name: str
    model: str

    def rate(self, pairs: Sequence[Pair]) -> list[float]:
        """0 (unrelated) to 1 (the same) in steps of 0.25 for each (predicted, expected)."""


def load_judge(name: str, endpoint: Endpoint = GPT_4_1_MINI, device: str = "auto") -> Judge:
    """The judge of that name: "embedding" (all-MiniLM-L6-v2, on `device`) or "openai" (the chat
    model of `endpoint`)."""
    match name:
        case "embedding":
            from transformers import AutoModel, AutoTokenizer

            folder = fetch("all-minilm-l6-v2")
            model = (
                AutoModel.from_pretrained(folder, dtype=torch.float32)
                .to(choose_device(device))
                .eval()
            )
            return EmbeddingJudge(model, AutoTokenizer.from_pretrained(folder))
        case "openai":
            return ChatJudge(endpoint)
    raise UserError(f"no judge is called {name!r}; {nearest(name, ['embedding', 'openai'])}")


@dataclass(frozen=True)
class ChatJudge:
    """The paper's judge: a chat model with the prompt of A.2."""

    endpoint: Endpoint
    name: str = "openai"

    @property
    def model(self) -> str:
        return self.endpoint.label

    def rate(self, pairs: Sequence[Pair]) -> list[float]:
        """As in `Judge`; not a number where the model gives no rating. Raises what `chat.complete`
        raises, for example when that is too often."""
        prompts = [
            PROMPT.format(predicted=predicted, expected=expected) for predicted, expected in pairs
        ]
        ratings = complete(prompts, self.endpoint, parse_rating, whole=False)
        return [float("nan") if rating is None else score(rating) for rating in ratings]


def parse_rating(reply: str) -> int | None:
    """The number from 1 to 5 that a reply begins with or calls its rating; None where there is
    none, or several."""
    said = set(RATING.findall(re.sub(r"[*_`#\"]", "", reply)))
    return int(said.pop()) if len(said) == 1 else None


def score(rating: int) -> float:
    """A rating of 1..5 on the paper's scale of 0..1."""
    return (rating - 1) / 4


class EmbeddingJudge:
    """The judge that needs no network: cosine of two sentence embeddings, cut into ratings at
    `THRESHOLDS`."""

    name = "embedding"
    model = "all-MiniLM-L6-v2"

    def __init__(self, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.encoder, self.tokenizer = encoder, tokenizer

    def rate(self, pairs: Sequence[Pair]) -> list[float]:
        """As in `Judge`."""
        return [score(int(rating)) for rating in ratings(self.cosines(pairs), THRESHOLDS)]

    def cosines(self, pairs: Sequence[Pair], batch_size: int = 256) -> np.ndarray:
        """Cosine similarity of each pair, float64 [n]."""
        texts = sorted(
            {text for pair in pairs for text in pair}, key=len
        )  # of like length: a batch pads little
        rows = {text: row for row, text in enumerate(texts)}
        batches = [
            self.embed(texts[start : start + batch_size])
            for start in range(0, len(texts), batch_size)
        ]
        embeddings = torch.cat(batches).double().cpu().numpy() if batches else np.zeros((0, 1))
        first, second = ([rows[pair[side]] for pair in pairs] for side in (0, 1))
        return (embeddings[first] * embeddings[second]).sum(1)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Sentence embeddings [n, width] of length 1: the mean of the last hidden states over a
        text's own tokens."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        batch = batch.to(self.encoder.device)
        mask = batch["attention_mask"][:, :, None]
        hidden = self.encoder(**batch).last_hidden_state  # [n, tokens, width]
        return normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def ratings(cosines: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """1 + the number of thresholds that each cosine reaches: [n] int."""
    return 1 + np.searchsorted(thresholds, cosines, side="right")


def rated_pairs() -> tuple[list[Pair], np.ndarray]:
    """The hand-rated pairs behind `THRESHOLDS`, and their ratings 1..5 [n]."""
    rows = json.loads(RATED_PAIRS.read_text("utf-8"))
    return [(row["predicted"], row["expected"]) for row in rows], np.array(
        [row["rating"] for row in rows]
    )


@dataclass(frozen=True)
class Agreement:
    """Shares of n comparisons (A.2): the same preference; the same with near-agreement counted in
    part; opposite preferences."""

    exact: float
    graded: float
    opposed: float
    n: int


def agreement(a: Sequence[float], b: Sequence[float]) -> Agreement:
    """Agreement of the preferences of two judges over the same comparisons of two predictions each.

    `a`, `b`: by how much each judge puts prediction 1 above prediction 2: a difference of scores,
    or +1, -1, 0 for the labels 1, 2, 0 of a person. The same sign agrees. Where one sees a tie and
    the other a difference of 0.25 (0.5), 0.75 (0.5) of an agreement is counted. A person's
    preference has no size: against a judge's tie it counts as 1, thus as none. Raises `ValueError`
    without a comparison.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not len(a) or len(a) != len(b):
        raise ValueError(f"{len(a)} preferences against {len(b)}")
    exact, opposed = np.sign(a) == np.sign(b), a * b < 0
    size = np.maximum(np.abs(a), np.abs(b))
    near = ~exact & ~opposed & (size <= 0.5)  # one of the two is a tie
    return Agreement(exact.mean(), np.where(near, 1 - size, exact).mean(), opposed.mean(), len(a))
