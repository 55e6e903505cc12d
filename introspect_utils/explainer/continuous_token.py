"""The continuous token (section 2.2): the placeholder in whose place a vector stands, and how long
the vector is made there."""

from __future__ import annotations

import torch
from transformers import AddedToken

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import recorded
from introspect_utils.models.tokens import forget

# (begin, placeholder, end) that a family has reserved in its vocabulary; the first triple that is
# there is taken
CONTINUOUS_TOKENS = (
    (
        "<|reserved_special_token_10|>",
        "<|reserved_special_token_12|>",
        "<|reserved_special_token_11|>",
    ),  # Llama 3
    ("<|vision_start|>", "<|vision_pad|>", "<|vision_end|>"),  # Qwen3
    ("<unused0>", "<unused1>", "<unused2>"),  # Gemma
    ("<jupyter_start>", "<empty_output>", "<jupyter_output>"),  # SmolLM2
)
ADDED_TOKENS = ("<|vector_start|>", "<|vector|>", "<|vector_end|>")
SAMPLE = (
    "In the summer of 1858 the first message went under the ocean from Ireland to Newfoundland. It "
    "took sixteen hours, and "
    "people on both shores lit fires to celebrate; three weeks later the cable was dead. What does "
    "a machine know about itself? "
    "A teacher asked her pupils this, wrote “we don't know yet” on the board, and went home "
    "through the rain to feed two cats."
)
SINKS = 4  # tokens at the beginning, whose residuals can be a hundred times as long as all others


def reserve_tokens(lm: LanguageModel) -> tuple[int, int, int]:
    """Ids of (begin, placeholder, end): reserved ones of the family, else three added ones with the
    mean embedding."""
    vocabulary, known = lm.tokenizer.get_vocab(), len(lm.tokenizer)
    triple = next(
        (
            triple
            for triple in (*CONTINUOUS_TOKENS, ADDED_TOKENS)
            if all(token in vocabulary for token in triple)
        ),
        None,
    )
    lm.tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in triple or ADDED_TOKENS]
    )
    forget(lm.tokenizer)
    ids = lm.tokenizer.convert_tokens_to_ids(list(triple or ADDED_TOKENS))
    if triple is None:
        if len(lm.tokenizer) > lm.model.get_input_embeddings().num_embeddings:
            lm.model.resize_token_embeddings(len(lm.tokenizer), mean_resizing=False)
        weights = {
            id(w): w.data
            for w in (
                lm.model.get_input_embeddings().weight,
                lm.model.get_output_embeddings().weight,
            )
        }
        for weight in weights.values():  # one where they are tied
            weight[ids] = weight[:known].mean(0)
    return tuple(ids)


def token_norm(lm: LanguageModel, scale: str) -> float | None:
    """How long a vector is made, for a `vector_scale` of the profile; None where it stays as it is
    ("raw")."""
    return {"raw": lambda lm: None, "embedding": mean_embedding_norm, "residual": residual_norm}[
        scale
    ](lm)


@torch.inference_mode()
def mean_embedding_norm(lm: LanguageModel) -> float:
    """Mean norm of what the embedding layer gives out, its own scaling (Gemma) included."""
    embed = lm.model.get_input_embeddings()
    every = torch.arange(embed.num_embeddings, device=lm.device)
    return torch.cat([embed(part).float().norm(dim=-1) for part in every.split(8192)]).mean().item()


@torch.inference_mode()
def residual_norm(lm: LanguageModel) -> float:
    """Median norm that the residual stream of a text has at a quarter of the model's depth, less
    its mean.

    There a vector is about as long as those that the layers above are used to. At the norm of an
    embedding, which is a few hundredths of that in a small Llama, it is lost in what the first
    layers add: the layers in which it would mean something hardly see it.
    """
    layer, ids = lm.n_layers // 4, torch.tensor([lm.encode(SAMPLE)], device=lm.device)
    with recorded(lm.model, [layer]) as found:
        lm.model(input_ids=ids, use_cache=False, logits_to_keep=1)
    h = found[layer][0, SINKS:].float()
    return (h - h.mean(0)).norm(dim=-1).median().item()
