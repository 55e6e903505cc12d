"""SelfIE: an untrained language model defines a vector as if it were a word (sections 3.3 and F.1).

The vector stands among the embeddings wherever the prompt names the word; there is no trained
continuous token. All prompts are alike but for the vector, so a batch needs no padding.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import read_shared
from introspect_utils.models.tokens import token_ids
from introspect_utils.models.weights import generate_tokens
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.task_features import t_feat

WORD = "[v]"
BASE = f"What is the meaning of the word '{WORD}'? The meaning of the word '{WORD}' is"
USER, ASSISTANT = f"Briefly define the word '{WORD}'.", f"The meaning of the word '{WORD}' is"


def prompt_ids(lm: LanguageModel, prompt: Literal["base", "chat"]) -> tuple[list[int], list[int]]:
    """The prompt of F.1 as (ids, the two places where the vector goes). Raises `UserError` for a
    chat with a model without a chat template."""
    text = BASE if prompt == "base" else lm.chat(USER) + ASSISTANT
    before, *parts = text.split(WORD)
    ids, places = lm.encode(before, special=True), []
    for part in parts:
        places.append(len(ids))
        ids += [0, *_ids_behind(lm.tokenizer, part)]
    return ids, places


def _ids_behind(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that stands behind a word: some tokenizers put a space before what comes
    first."""
    word, ids = (token_ids(tokenizer, part, special=True) for part in ("v", f"v{text}"))
    behind = ids[: len(word)] == word
    return ids[len(word) :] if behind else token_ids(tokenizer, text, special=True)


@torch.inference_mode()
def selfie(
    lm: LanguageModel,
    vectors: Tensor,
    scales: Sequence[float],
    prompt: Literal["base", "chat"] = "base",
    batch_size: int = 32,
    max_new_tokens: int = 25,
) -> list[list[str]]:
    """What `lm` says that vectors [n, width] mean, each inserted as scale * v / ||v|| (the paper
    writes v, 5v, ..., 50v; this is what the authors' code does): texts as generated,
    [scale][vector]. Raises `UserError` where the vectors are not of its width."""
    if (width := vectors.shape[-1]) != lm.width:
        raise UserError(f"SelfIE: {lm.name} has width {lm.width}, the vectors {width}")
    ids, places = prompt_ids(lm, prompt)
    embedded = lm.model.get_input_embeddings()(torch.tensor(ids, device=lm.device))
    direction = normalize(vectors.to(lm.device).float(), dim=-1)
    tokens = torch.cat([scale * direction for scale in scales]).to(embedded.dtype)
    said = []
    for start in tqdm(range(0, len(tokens), batch_size), "SelfIE", unit="batch", mininterval=10):
        part = tokens[start : start + batch_size]
        inputs = embedded.repeat(len(part), 1, 1)
        inputs[:, places] = part.unsqueeze(1)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=lm.device)
        given = {"inputs_embeds": inputs, "attention_mask": mask}
        shared = read_shared(lm.model, inputs, places[0])
        ids = generate_tokens(lm, max_new_tokens, **given, past_key_values=shared)
        texts = lm.tokenizer.batch_decode(ids, skip_special_tokens=True)
        said += [text.strip() for text in texts]
    return [said[i * len(vectors) : (i + 1) * len(vectors)] for i in range(len(scales))]


def best_of(
    descriptions: Sequence[list[str]], scores: Sequence[list[float]], scales: Sequence[float]
) -> list[tuple[str, float, float]]:
    """(text, scale, score) of each vector's highest score, the first of equal ones: an upper bound.
    `descriptions` and `scores` are [scale][vector]. Raises `UserError` as `t_feat` does."""
    choices = [list(zip(texts, scales, strict=True)) for texts in zip(*descriptions, strict=True)]
    best = t_feat(choices, list(zip(*scores, strict=True)))
    return [(text, scale, score) for (text, scale), score in best]
