"""SelfIE: a language model that was never trained to explain defines a vector as if it were a word
(sections 3.3 and F.1).

The vector takes the place of the word at the embedding layer, wherever the prompt names it, between
no marks: there is no trained continuous token. All prompts are therefore alike but for the vector,
and a batch needs no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import read_shared
from introspect_utils.models.tokens import token_ids
from introspect_utils.models.weights import generate_greedily
from introspect_utils.settings.errors import UserError

# Norms of the inserted vector. The paper writes v, 5v, ..., 50v, the authors' code takes v / ||v||
# times the factor; so do we.
SCALES = (1, 5, 10, 25, 50)
WORD = "[v]"
BASE = f"What is the meaning of the word '{WORD}'? The meaning of the word '{WORD}' is"
USER, ASSISTANT = f"Briefly define the word '{WORD}'.", f"The meaning of the word '{WORD}' is"


def prompt_ids(lm: LanguageModel, prompt: Literal["base", "chat"]) -> tuple[list[int], list[int]]:
    """The prompt of F.1 as (ids, the two places where the vector goes); what id stands there is of
    no account.

    Raises `UserError` for a chat with a model that has no chat template.
    """
    text = BASE if prompt == "base" else lm.chat(USER) + ASSISTANT
    before, *parts = text.split(WORD)
    ids, places = lm.encode(before, special=True), []
    for part in parts:  # the text around a special token is tokenised on its own, too
        places.append(len(ids))
        ids += [0, *token_ids(lm.tokenizer, part, special=True)]
    return ids, places


@torch.inference_mode()
def selfie(
    lm: LanguageModel,
    vectors: Tensor,
    scales: Sequence[float] = SCALES,
    prompt: Literal["base", "chat"] = "base",
    batch_size: int = 32,
    max_new_tokens: int = 25,
) -> list[list[str]]:
    """What the untrained `lm` says vectors [n, width] mean, inserted at each scale: texts as
    generated, [scale][vector].

    A scale is the norm of what is inserted: scale * v / ||v||. `prompt` is that of F.1 for base
    models or for chat models. Raises `UserError` where the vectors are not of the model's width,
    since nothing here could project them.
    """
    if vectors.shape[-1] != lm.width:
        raise UserError(
            f"SelfIE: vectors of width {vectors.shape[-1]} cannot stand among the embeddings of "
            f"{lm.name} ({lm.width})"
        )
    ids, places = prompt_ids(lm, prompt)
    embedded = lm.model.get_input_embeddings()(
        torch.tensor(ids, device=lm.device)
    )  # [length, width]
    direction = normalize(vectors.to(lm.device).float(), dim=-1)
    tokens = torch.cat([scale * direction for scale in scales]).to(
        embedded.dtype
    )  # [scales * n, width]
    said, tokenizer = [], lm.tokenizer
    with tqdm(total=len(tokens), desc="SelfIE", unit="row", mininterval=10) as progress:
        for start in range(0, len(tokens), batch_size):
            part = tokens[start : start + batch_size]
            inputs = embedded.repeat(len(part), 1, 1)
            inputs[:, places] = part.unsqueeze(1)
            ids = generate_greedily(
                lm,
                max_new_tokens,
                inputs_embeds=inputs,
                attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long, device=lm.device),
                past_key_values=read_shared(lm.model, inputs, places[0]),
            )
            said += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
            progress.update(len(part))
    return [said[i * len(vectors) : (i + 1) * len(vectors)] for i in range(len(scales))]


def best_of(
    descriptions: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]],
    scales: Sequence[float] = SCALES,
) -> list[tuple[str, float, float]]:
    """For each vector (text, scale, score) of the highest simulator score, the first scale of equal
    ones: an upper bound.

    `descriptions` and `scores` are [scale][vector], in the order of `scales`.
    """
    each = [
        zip(texts, [scale] * len(texts), of_scale, strict=True)
        for texts, scale, of_scale in zip(descriptions, scales, scores, strict=True)
    ]
    return [max(of_vector, key=lambda said: said[2]) for of_vector in zip(*each, strict=True)]
