"""Judges of a predicted description against the expected one (section 3.3 and A.2).

judge = load_judge("embedding")
judge.rate([("words for animals", "names of animals")])   # [1.0]: one of 0, 0.25, 0.5, 0.75, 1
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from introspect_utils.data.assets import fetch
from introspect_utils.models.chat import Endpoint, complete
from introspect_utils.models.load import choose_device
from introspect_utils.models.products import use_onednn
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.reading import nearest

Pair = tuple[str, str]  # (predicted, expected)

GPT_4_1_MINI = Endpoint("gpt-4.1-mini", max_tokens=8, price_in=0.40, price_out=1.60)  # the paper's

PROMPT = Path(__file__).with_suffix(".txt").read_text("utf-8").removesuffix("\n")  # A.2

# The cosine from which a pair is rated 2, 3, 4 and 5, fitted by scripts/fit_judge.py to hand-rated
# pairs that are rows of no test set. Do not change them after a look at results.
THRESHOLDS = (0.309, 0.494, 0.577, 0.771)
LONGEST = 256  # tokens; what the embedding model was made for
# A number that a line begins with, or that is called a rating, and no other number behind it. What
# begins with "1." and goes on is a list.
RATING = re.compile(
    r"(?:\A\s*(?!1[.)]\s*\S)|\b(?:rating|score|answer|give (?:it|this|them))(?: is| of| an?)*"
    r"\s*(?:[:=]|[–—-]\s)?\s*)([1-5])(?:\s*/\s*5|\s*\(?(?:out )?of 5\)?)?\.?"
    r"(?=\s*\Z|\s*\n|\s*[:,(–—-]\s*[^\s\d][^\d\n]*$)",
    re.I | re.M,
)
WRAPPED = re.compile(r"(?:\\boxed)?[<({$\[]+([1-5])[>)}$\]]+")


class Judge(ABC):
    """What rates predicted descriptions: `name` is the engine, `model` what runs in it."""

    name: str
    model: str

    def rate(self, pairs: Sequence[Pair]) -> list[float]:
        """0 (unrelated) to 1 (the same) in steps of 0.25 for each (predicted, expected).

        An empty prediction is 0 unasked, a missing answer NaN.
        """
        ratings = iter(self.ratings([pair for pair in pairs if pair[0].strip()]))
        return [(next(ratings) - 1) / 4 if predicted.strip() else 0.0 for predicted, _ in pairs]

    @abstractmethod
    def ratings(self, pairs: Sequence[Pair]) -> list[float]:
        """1 to 5 for each (predicted, expected), NaN for a missing answer."""


def load_judge(name: str, endpoint: Endpoint = GPT_4_1_MINI, device: str = "auto") -> Judge:
    """The judge "embedding" (all-MiniLM-L6-v2, on `device`) or "openai" (`endpoint`'s model)."""
    if name == "openai":
        return ChatJudge(endpoint)
    if name != "embedding":
        raise UserError(f"no judge is called {name!r}; {nearest(name, ['embedding', 'openai'])}")
    folder = fetch("all-minilm-l6-v2")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    model = model.to(choose_device(device)).eval()
    use_onednn(model)
    return EmbeddingJudge(model, AutoTokenizer.from_pretrained(folder))


class ChatJudge(Judge):
    """The paper's judge: a chat model with the prompt of A.2."""

    name = "openai"

    def __init__(self, endpoint: Endpoint):
        self.endpoint, self.model = endpoint, endpoint.label

    def ratings(self, pairs: Sequence[Pair]) -> list[float]:
        """As in `Judge`; not a number where the model gives no rating. Raises what `chat.complete`
        raises, for example when that is too often."""
        prompts = [PROMPT.format(predicted=a, expected=b) for a, b in pairs]
        answers = complete(prompts, self.endpoint, parse_rating, whole=False)
        return [np.nan if answer is None else answer for answer in answers]


def parse_rating(reply: str) -> int | None:
    """The number from 1 to 5 that a reply begins with or calls its rating; None where there is
    none, or several."""
    bare = WRAPPED.sub(r"\1", re.sub(r"[*_`#\"]", "", reply))
    said = set(RATING.findall(bare))
    return int(said.pop()) if len(said) == 1 else None


class EmbeddingJudge(Judge):
    """The judge without a network: the cosine of two sentence embeddings, cut at `THRESHOLDS`."""

    name = "embedding"
    model = f"all-MiniLM-L6-v2, cut at {', '.join(map(str, THRESHOLDS))}"

    def __init__(self, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.encoder, self.tokenizer = encoder, tokenizer

    def ratings(self, pairs: Sequence[Pair]) -> list[float]:
        """As in `Judge`; no answer is missing."""
        return ratings(self.cosines(pairs), THRESHOLDS).tolist()

    def cosines(self, pairs: Sequence[Pair], batch_size: int = 256) -> np.ndarray:
        """Cosine similarity of each pair, float64 [n]. Raises `UserError` where it is no number."""
        texts = sorted({text for pair in pairs for text in pair}, key=len)  # a batch pads little
        rows = {text: row for row, text in enumerate(texts)}
        starts = range(0, len(texts), batch_size)
        batches = [self.embed(texts[start : start + batch_size]) for start in starts]
        embeddings = torch.cat(batches).double().cpu().numpy() if batches else np.zeros((0, 1))
        first, second = ([rows[pair[side]] for pair in pairs] for side in (0, 1))
        cosines = (embeddings[first] * embeddings[second]).sum(1)
        if not np.isfinite(cosines).all():
            raise UserError(f"{self.model} gives embeddings that are not finite: fetch it again")
        return cosines

    @torch.inference_mode()
    def embed(self, texts: list[str]) -> Tensor:
        """Sentence embeddings [n, width] of length 1: the mean of the last hidden states over a
        text's own tokens."""
        form = {"padding": True, "truncation": True, "max_length": LONGEST, "return_tensors": "pt"}
        form |= {"split_special_tokens": True}  # "[SEP]" in a description is text
        batch = self.tokenizer(texts, **form).to(self.encoder.device)
        mask = batch["attention_mask"][:, :, None]
        hidden = self.encoder(**batch).last_hidden_state  # [n, tokens, width]
        return normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def ratings(cosines: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """1 + the number of thresholds that each cosine reaches: [n] int."""
    return 1 + np.searchsorted(thresholds, cosines, side="right")
