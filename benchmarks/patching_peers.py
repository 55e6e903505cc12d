"""The peers of benchmarks/patching.py: each gives {(number of the pair, block, position from the
end): the next token}."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import clean_run, layer_hooks, pad_left, positions


@dataclass(frozen=True)
class Pair:
    """x and x' as texts and as token ids, and at how many positions, counted from the end, x is
    patched."""

    texts: tuple[str, str]
    ids: list[int]
    other: list[int]
    n_aligned: int


def vectors(
    lm: LanguageModel, pair: Pair, blocks: Sequence[tuple[int, ...]]
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """(block, v at every position [length, width]) of a pair, from one run of x': for the peers
    that go pair by pair."""
    run = clean_run(lm.model, *pad_left([pair.other], 0), layers=range(lm.n_layers))
    for block in blocks:
        yield block, torch.stack([run.residual[layer][0] for layer in block]).mean(0)


@torch.inference_mode()
def plain(
    lm: LanguageModel, pairs: Sequence[Pair], blocks: Sequence[tuple[int, ...]]
) -> dict[tuple, str]:
    """A whole forward pass for each label, in batches of pairs of like length."""
    found, order = {}, sorted(range(len(pairs)), key=lambda i: len(pairs[i].ids))
    for batch in (order[start : start + 16] for start in range(0, len(order), 16)):
        ids, mask = pad_left([pairs[i].ids for i in batch], lm.tokenizer.pad_token_id)
        other = pad_left([pairs[i].other for i in batch], lm.tokenizer.pad_token_id)
        residual = clean_run(lm.model, *other, layers=range(lm.n_layers)).residual
        for block in blocks:
            v = torch.stack([residual[layer] for layer in block]).mean(0)
            for from_end in range(1, max(pairs[i].n_aligned for i in batch) + 1):
                rows = [row for row, i in enumerate(batch) if pairs[i].n_aligned >= from_end]

                def write(h: Tensor, from_end=from_end, v=v[rows, -from_end]) -> Tensor:
                    h[:, -from_end] = v
                    return h

                with layer_hooks(lm.model, dict.fromkeys(block, write)):
                    inputs = {
                        "input_ids": ids[rows],
                        "attention_mask": mask[rows],
                        "position_ids": positions(mask[rows]),
                    }
                    logits = lm.model(**inputs, logits_to_keep=1, use_cache=False).logits
                for row, token in zip(rows, logits[:, -1].argmax(-1).tolist(), strict=True):
                    found[batch[row], block, from_end] = lm.tokenizer.decode([token])
    return found


def transformer_lens(
    lm: LanguageModel, pairs: dict[int, Pair], blocks: Sequence[tuple[int, ...]]
) -> dict[tuple, str]:
    """One run with hooks for each label, as `transformer_lens.patching.generic_activation_patch`
    makes them."""
    bridge, found = bridge_of(lm), {}
    for number, pair in pairs.items():
        for block, v in vectors(lm, pair, blocks):
            for from_end in range(1, pair.n_aligned + 1):

                def write(h: Tensor, hook, from_end=from_end, v=v[-from_end]) -> Tensor:
                    h[:, -from_end] = v
                    return h

                with torch.inference_mode():
                    hooks = [(f"blocks.{layer}.hook_out", write) for layer in block]
                    logits = bridge.run_with_hooks(torch.tensor([pair.ids]), fwd_hooks=hooks)
                found[number, block, from_end] = lm.tokenizer.decode(
                    [logits[0, -1].argmax().item()]
                )
    return found


bridges = {}  # booting one is not part of what is timed


def bridge_of(lm: LanguageModel):
    from transformer_lens.model_bridge.bridge import TransformerBridge

    if lm.name not in bridges:
        with TemporaryDirectory() as folder:
            lm.model.config.save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)
            bridges[lm.name] = TransformerBridge.boot_transformers(
                folder, hf_model=copy.deepcopy(lm.model)
            )
    return bridges[lm.name]


def nnsight(
    lm: LanguageModel, pairs: dict[int, Pair], blocks: Sequence[tuple[int, ...]], together: bool
) -> dict[tuple, str]:
    """A trace for each label; or, `together`, one for each pair and block, with an invocation for
    each position: nnsight batches these.
    """
    from nnsight import TransformersModel

    model, found = TransformersModel(lm.model, tokenizer=lm.tokenizer, task="text-generation"), {}
    for number, pair in pairs.items():
        ids, every = torch.tensor([pair.ids]), range(1, pair.n_aligned + 1)
        for block, v in vectors(lm, pair, blocks):
            for of_trace in [every] if together else [[from_end] for from_end in every]:
                with torch.inference_mode(), model.trace() as tracer:
                    answers = [].save()
                    for from_end in of_trace:
                        with tracer.invoke(ids):
                            for layer in block:
                                model.model.layers[layer].output[:, -from_end] = v[-from_end]
                            answers.append(model.lm_head.output[0, -1].argmax())
                for from_end, token in zip(of_trace, answers, strict=True):
                    found[number, block, from_end] = lm.tokenizer.decode([token.item()])
    return found
