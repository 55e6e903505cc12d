"""The continuous token (section 2.2): the placeholder that a vector replaces, and its norm."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import AddedToken

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import decoder_layers, recorded
from introspect_utils.models.tokens import spellings
from introspect_utils.settings.errors import UserError

ADDED = ("<|vector_start|>", "<|vector|>", "<|vector_end|>")
# (begin, placeholder, end) that a family has in its vocabulary; the first complete triple is taken
RESERVED = (
    tuple(f"<|reserved_special_token_{i}|>" for i in (10, 12, 11)),  # Llama 3
    ("<|vision_start|>", "<|vision_pad|>", "<|vision_end|>"),  # Qwen
    ("<unused0>", "<unused1>", "<unused2>"),  # Gemma
    ("<jupyter_start>", "<empty_output>", "<jupyter_output>"),  # SmolLM2
    ADDED,
)
SAMPLE = (
    "In the summer of 1858 the first message went under the ocean from Ireland to Newfoundland. It "
    "took sixteen hours, and people on both shores lit fires to celebrate; three weeks later the "
    "cable was dead. What does a machine know about itself? A teacher asked her pupils this, wrote "
    "“we don't know yet” on the board, and went home through the rain to feed two cats."
)
SINKS = 4  # tokens at the beginning, whose residuals can be a hundred times as long as all others


def reserve_tokens(lm: LanguageModel) -> tuple[LanguageModel, tuple[int, int, int]]:
    """`lm` with three special tokens, and their ids (begin, placeholder, end): reserved ones of its
    family, else added ones with the mean embedding. Tokenizer and embeddings are copied if they
    have to change."""
    known = lm.tokenizer.get_vocab()
    there = [triple for triple in RESERVED if known.keys() >= set(triple)]
    tokens = list(there[0] if there else ADDED)
    added = lm.tokenizer.added_tokens_decoder.values()
    if not set(tokens) <= {str(token) for token in added if token.special}:
        lm = replace(lm, tokenizer=copy.deepcopy(lm.tokenizer))
        lm.tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])
        spellings.cache_clear()
    ids = lm.tokenizer.convert_tokens_to_ids(tokens)
    if not there:
        if max(ids) >= lm.model.get_input_embeddings().num_embeddings:
            lm.model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        ends = (lm.model.get_input_embeddings(), lm.model.get_output_embeddings())
        for weight in {end.weight for end in ends}:  # one if tied
            weight.data = weight.data.clone()
            weight.data[ids] = weight.data[: len(known)].mean(0)
    return replace(lm), tuple(ids)  # anew: a resized head is checked, too


@torch.inference_mode()
def token_norm(lm: LanguageModel, scale: str) -> float | None:
    """The norm that a vector is given, for a `vector_scale` of the profile: "raw" None, "embedding"
    the mean norm of what layer 0 reads for a token of the vocabulary.

    "residual": the median norm of the residual stream, less its mean, at a quarter of the model's
    depth. The layers above are used to vectors of this length; an embedding is a few hundredths as
    long in a small Llama, and is lost in what the first layers add.
    """
    if scale == "raw":
        return None
    if scale == "embedding":
        embed = lm.model.get_input_embeddings()
        every = torch.arange(embed.num_embeddings, device=lm.device)
        norms = [embed(part).float().norm(dim=-1) for part in every.split(8192)]
        return torch.cat(norms).mean().item() * input_scale(lm)
    layer = lm.n_layers // 4
    with recorded(lm.model, [layer]) as residual:
        lm.model(inputs_embeds=_embedded_sample(lm), use_cache=False, logits_to_keep=1)
    h = residual[layer][0, SINKS:].float()
    return (h - h.mean(0)).norm(dim=-1).median().item()


@torch.inference_mode()
def input_scale(lm: LanguageModel) -> float:
    """What the model multiplies its input embeddings by before layer 0 (12 in Granite, 1 in most).
    Raises `UserError` for a model that does something else to them."""
    seen, embedded = [], _embedded_sample(lm)

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append((*args, *kwargs.values())[0].float())

    with decoder_layers(lm.model)[0].register_forward_pre_hook(note, with_kwargs=True):
        lm.model(inputs_embeds=embedded, use_cache=False, logits_to_keep=1)
    read, embedded = seen[0], embedded.float()
    scale = ((read * embedded).sum() / (embedded * embedded).sum()).item()
    if not torch.allclose(read, scale * embedded, rtol=0.02, atol=0.02 * read.std().item()):
        raise UserError(
            f"{lm.name} ({type(lm.model).__name__}) changes its input embeddings before layer 0 by "
            "more than a factor: a vector would not arrive as given; take another explainer"
        )
    return 1.0 if abs(scale - 1) < 0.01 else scale


def _embedded_sample(lm: LanguageModel) -> Tensor:
    ids = torch.tensor([lm.encode(SAMPLE)], device=lm.device)
    return lm.model.get_input_embeddings()(ids)
