"""What this package takes for granted of a model, compared once at load with what the model does.

A model that fails is refused by name: its residual stream would be read or patched wrongly.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import (
    clean_run,
    layer_hooks,
    pad_left,
    patched_logits,
    positions,
    recorded,
)
from introspect_utils.settings.errors import UserError

SAMPLE = "The quick brown fox of Berlin reads 12 old books"


def difference(a: Tensor, b: Tensor) -> float:
    """The largest ||a - b|| over ||b||, less b's mean, of rows of logits [n, vocabulary]."""
    a, b = a.float(), b.float()
    centred = (b - b.mean(-1, keepdim=True)).norm(dim=-1).clamp(min=1e-30)
    return ((a - b).norm(dim=-1) / centred).max().item()


def tolerance(lm: LanguageModel) -> float:
    """The largest `difference` of logits that is rounding in the model's precision."""
    return 1e-3 if lm.model.dtype == torch.float32 else 0.1


@torch.inference_mode()
def sample_logits(lm: LanguageModel) -> Tensor:
    """Logits [tokens, vocabulary] of `lm` on a short text: what a change of weights must keep."""
    ids = torch.tensor([lm.encode(SAMPLE)], device=lm.device)
    return lm.model(input_ids=ids, use_cache=False).logits[0]


def check_same_logits(lm: LanguageModel, logits: Tensor, what: str) -> None:
    """Raises `UserError` when `lm` no longer has these `sample_logits`: `what` changed it."""
    change = difference(sample_logits(lm), logits)
    if not change <= tolerance(lm):
        raise UserError(
            f"{what} changes the logits of {lm.name} by {change:.1%}, and should not change them: "
            f"a {type(lm.model).__name__} is built in a way that this does not know"
        )


def check_architecture(lm: LanguageModel) -> None:
    """Reads, resumes and patches a short text in every way that the package does, and compares.
    Raises `UserError` when the decoder's layers are not where they are expected, a layer's output
    is not what the next one reads, embeddings given do not act as tokens do, padding changes an
    answer, or a patch (eq. 4) through the cache differs from the same patch in a whole pass."""
    try:
        wrong = _wrong_reading(lm) or _wrong_patching(lm)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        wrong = f"{type(error).__name__}: {reason}"
    if wrong:
        raise UserError(
            f"{lm.name} is a {type(lm.model).__name__}, which does not work as expected here "
            f"({wrong}): take a model of another family (Llama, Qwen, Gemma, ...)"
        )


@torch.inference_mode()
def _wrong_reading(lm: LanguageModel) -> str | None:
    """What of the model's layers and embeddings is otherwise than expected; None if nothing."""
    layers, read = getattr(lm.model.get_decoder(), "layers", None), []
    if not isinstance(layers, nn.ModuleList) or len(layers) != lm.n_layers:
        return "its decoder layers are not in `layers`"

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        read.append((*args, *kwargs.values())[0])

    with recorded(lm.model, range(lm.n_layers)) as given, ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(note, with_kwargs=True))
        logits = sample_logits(lm)
    for layer, h in given.items():
        if not isinstance(h, Tensor):
            return f"layer {layer} gives a {type(h).__name__} where a tensor is expected"
        if layer + 1 < lm.n_layers and not torch.equal(h, read[layer + 1]):
            return f"layer {layer + 1} does not read what layer {layer} gives"
    ids = torch.tensor([lm.encode(SAMPLE)], device=lm.device)
    embedded = lm.model.get_input_embeddings()(ids)
    as_given = lm.model(inputs_embeds=embedded, use_cache=False).logits[0]
    if not difference(as_given, logits) <= tolerance(lm):
        return "embeddings in place of token ids change its logits"
    return None


@torch.inference_mode()
def _wrong_patching(lm: LanguageModel) -> str | None:
    """What of padding and of a patch of two layers is otherwise than expected; None if nothing."""
    long, logits, from_end = lm.encode(SAMPLE), sample_logits(lm), 2
    rows = [long, long[: len(long) // 2]]  # the second one is padded
    ids, mask = pad_left(rows, lm.tokenizer.pad_token_id, lm.device)
    block = sorted({1 % lm.n_layers, lm.n_layers - 1})
    clean = clean_run(lm.model, ids, mask, layers=block[:1])
    v = 2 * clean.residual[block[0]][:, -from_end] + 1
    both = torch.arange(2, device=lm.device)
    patched = patched_logits(lm.model, clean, block, from_end, both, v)

    def write(output: Tensor) -> Tensor:
        output = output.clone()
        output[:, -from_end] = v
        return output

    def whole_pass(hooks: dict) -> Tensor:
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
        with layer_hooks(lm.model, hooks):
            return lm.model(**given, use_cache=False).logits[:, -1]

    padded, whole = whole_pass({}), whole_pass(dict.fromkeys(block, write))
    if not difference(padded, torch.stack([logits[len(row) - 1] for row in rows])) <= tolerance(lm):
        return "padding on the left changes its logits"
    if not difference(patched, whole) <= tolerance(lm):
        return "a patch through the cache and in a whole pass give other logits"
    if torch.equal(whole, padded):
        return "a patched residual vector does not reach its logits"
    return None
