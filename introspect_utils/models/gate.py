"""What this package takes for granted of a model, compared once at load with what the model does.

A model that fails is refused by name: its residual stream would be read or patched wrongly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import (
    clean_run,
    layer_hooks,
    pad_left,
    patched_logits,
    positions,
)
from introspect_utils.settings.errors import UserError

SAMPLE = "The quick brown fox of Berlin reads 12 old books"
TOLERANCE = {torch.float32: 1e-3}  # of logits, relative to their length
COARSE = 0.1  # the same in bfloat16 and float16


def difference(a: Tensor, b: Tensor) -> float:
    """The largest ||a - b|| over ||b||, less b's mean, of rows of logits [n, vocabulary]."""
    a, b = a.float(), b.float()
    centred = (b - b.mean(-1, keepdim=True)).norm(dim=-1).clamp(min=1e-30)
    return ((a - b).norm(dim=-1) / centred).max().item()


def tolerance(lm: LanguageModel) -> float:
    """The largest `difference` of logits that is rounding in the model's precision."""
    return TOLERANCE.get(lm.model.dtype, COARSE)


@torch.inference_mode()
def sample_logits(lm: LanguageModel) -> Tensor:
    """Logits [tokens, vocabulary] of `lm` on a short text: what a change of weights must keep."""
    ids = torch.tensor([lm.encode(SAMPLE)], device=lm.device)
    return lm.model(input_ids=ids, use_cache=False).logits[0]


def check_same_logits(lm: LanguageModel, logits: Tensor, what: str) -> None:
    """Raises `UserError` when `lm` no longer has these `sample_logits`: `what` changed it."""
    found = difference(sample_logits(lm), logits)
    if not found <= tolerance(lm):
        raise UserError(
            f"{what} changes the logits of {lm.name} by {found:.1%}, and should not change them: "
            f"a {type(lm.model).__name__} is built in a way that this does not know"
        )


def check_architecture(lm: LanguageModel) -> None:
    """Reads, resumes and patches a short text in every way that the package does, and compares.

    Raises `UserError` when the decoder's layers are not where they are expected, a layer's output
    is not what the next one reads, embeddings given do not act as tokens do, padding changes an
    answer, or a patch (eq. 4) through the cache differs from the same patch in a whole pass.
    """
    kind = type(lm.model).__name__
    try:
        layers = lm.model.get_decoder().layers
        whole = isinstance(layers, nn.ModuleList) and len(layers) == lm.n_layers
    except AttributeError:
        whole = False
    if not whole:
        raise UserError(
            f"{lm.name} is a {kind}, and its decoder layers are not in `layers`: take a model of "
            "another family (Llama, Qwen, Gemma, ...)"
        )
    try:
        wrong = _wrong(lm, layers)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        wrong = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if wrong:
        raise UserError(
            f"{lm.name} is a {kind}, which does not work as expected here ({wrong}): take a model "
            "of another family (Llama, Qwen, Gemma, ...)"
        )


@torch.inference_mode()
def _wrong(lm: LanguageModel, layers: nn.ModuleList) -> str | None:
    """What the model does otherwise than expected; None if nothing."""
    model, pad = lm.model, lm.tokenizer.pad_token_id
    ids = lm.encode(SAMPLE)
    logits, given, read = _recorded_pass(lm, layers, ids)
    for layer, h in enumerate(given):
        if not isinstance(h, Tensor):
            return f"layer {layer} gives a {type(h).__name__} where a tensor is expected"
        if layer + 1 < lm.n_layers and not torch.equal(h, read[layer + 1]):
            return f"layer {layer + 1} does not read what layer {layer} gives"

    embedded = model.get_input_embeddings()(torch.tensor([ids], device=lm.device))
    if difference(model(inputs_embeds=embedded, use_cache=False).logits[0], logits) > tolerance(lm):
        return "embeddings in place of token ids change its logits"

    # the text beside a shorter one, so that that is padded; then a patch of two layers
    rows, from_end = [ids, ids[: len(ids) // 2]], 2
    clean = clean_run(model, *pad_left(rows, pad, lm.device), layers=[1 % lm.n_layers])
    last = torch.stack([logits[len(row) - 1] for row in rows])
    block = sorted({1 % lm.n_layers, lm.n_layers - 1})
    v = 2 * clean.residual[block[0]][:, -from_end] + 1
    patched = patched_logits(model, clean, block, from_end, torch.arange(2, device=lm.device), v)
    whole, padded = _patched_whole(lm, clean.mask, rows, block, from_end, v)
    if not difference(padded, last) <= tolerance(lm):
        return "padding on the left changes its logits"
    if not difference(patched, whole) <= tolerance(lm):
        return "a patch through the cache and in a whole pass give other logits"
    if torch.equal(whole, padded):
        return "a patched residual vector does not reach its logits"
    return None


def _recorded_pass(
    lm: LanguageModel, layers: nn.ModuleList, ids: list[int]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """(logits [T, vocabulary], what each layer gives, what each layer reads)."""
    model, given, read = lm.model, [], []

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        read.append((*args, *kwargs.values())[0])

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with layer_hooks(model, dict.fromkeys(range(lm.n_layers), lambda h: given.append(h))):
            inputs = torch.tensor([ids], device=lm.device)
            logits = model(input_ids=inputs, use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits, given, read


def _patched_whole(
    lm: LanguageModel, mask: Tensor, rows: list[list[int]], block: list[int], at: int, v: Tensor
) -> tuple[Tensor, Tensor]:
    """(patched, unpatched) next-token logits [rows, vocabulary] of whole passes."""

    def write(output: Tensor) -> Tensor:
        output = output.clone()
        output[:, -at] = v
        return output

    ids, _ = pad_left(rows, lm.tokenizer.pad_token_id, lm.device)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
    with layer_hooks(lm.model, dict.fromkeys(block, write)):
        patched = lm.model(**given, use_cache=False).logits[:, -1]
    return patched, lm.model(**given, use_cache=False).logits[:, -1]
