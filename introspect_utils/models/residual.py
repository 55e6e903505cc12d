"""Read and write the residual stream h(l, t): the output of decoder layer l at token position t,
batched.

Batches are padded on the left, so the last tokens of all rows line up and "the k-th position from
the end" is one column.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from introspect_utils.settings.errors import UserError

SAVED = 32  # tokens that a pass of its own has to save: on a CPU it reads all weights once more


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    return model.get_decoder().layers


# --- batches


def pad_left(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device | str = "cpu", shared: int = 0
) -> tuple[Tensor, Tensor]:
    """(ids, mask) [batch, longest], padded behind the first `shared` tokens of a row."""
    longest = max(map(len, rows))
    ids = [[*row[:shared], *[pad] * (longest - len(row)), *row[shared:]] for row in rows]
    mask = [[1] * shared + [0] * (longest - len(row)) + [1] * (len(row) - shared) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions(mask: Tensor) -> Tensor:
    """Position ids [batch, length] that count from a row's first token."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, less one where a row would keep none to read."""
    shortest = min(map(len, rows)) - 1
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)


def worth_sharing(starts: Sequence[Sequence[int]], length: int, window: int) -> int:
    """How many of the first tokens of a batch of `length` columns are read once for all rows: those
    that its `starts` have in common. 0 where that saves less than a pass of their own costs, and
    where an attention `window` would count the padding behind them."""
    shared = common_prefix(starts)
    return shared if shared * (len(starts) - 1) >= SAVED and length <= window else 0


def read_shared(model: PreTrainedModel, embedded: Tensor, shared: int) -> DynamicCache | None:
    """Keys and values of the first `shared` columns of `embedded` [batch, length, width], which are
    the same in all rows and pass the model once; None where there are none. Gradients flow."""
    if not shared:
        return None
    cache = DynamicCache()
    model.get_decoder()(inputs_embeds=embedded[:1, :shared], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(embedded))
    return cache


# --- reading h(l, t)


@contextmanager
def layer_hooks(model: PreTrainedModel, hooks: dict) -> Iterator[None]:
    """Within the context, `hooks[l](output)` sees layer l's output [batch, length, width] and may
    return another in its place. Raises `UserError` for a layer that the model has not."""
    layers = decoder_layers(model)
    n = len(layers)
    with ExitStack() as handles:
        for layer, f in hooks.items():
            if not 0 <= layer < n:
                raise UserError(
                    f"there is no layer {layer}: the model has {n} layers, 0 to {n - 1}"
                )
            hook = layers[layer].register_forward_hook
            handles.enter_context(hook(lambda module, args, output, f=f: f(output)))
        yield


@contextmanager
def recorded(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Within the context the yielded dictionary is given h [batch, length, width] of each of
    `layers` at every pass."""
    h: dict[int, Tensor] = {}
    hooks = {layer: lambda output, layer=layer: h.__setitem__(layer, output) for layer in layers}
    with layer_hooks(model, hooks):
        yield h


@contextmanager
def with_layers(model: PreTrainedModel, layers: nn.ModuleList) -> Iterator[None]:
    """Within the context the model computes only these layers."""
    decoder, own = model.get_decoder(), decoder_layers(model)
    decoder.layers = layers
    try:
        yield
    finally:
        decoder.layers = own


def check_finite(residual: dict[int, Tensor], mask: Tensor) -> None:
    """Raises `UserError` with layer and token where a residual [batch, length, width] is not
    finite; padding does not count."""
    for layer, h in residual.items():
        broken = ~h.isfinite().all(-1) & mask.bool()
        if broken.any():
            row, column = broken.nonzero()[0].tolist()
            raise UserError(
                f"the residual stream at layer {layer}, token {int(mask[row, :column].sum())} of "
                f"text {row} of its batch is not finite: the model is damaged, or its numbers "
                "outgrow its dtype; set dtype: float32"
            )


@dataclass(frozen=True)
class CleanRun:
    """One unpatched forward pass over a left-padded batch."""

    mask: Tensor  # [batch, length]
    next_token: Tensor  # [batch]: the greedy continuation
    residual: dict[int, Tensor]  # l -> [batch, length, width] for the layers asked for
    cache: DynamicCache  # keys and values of every layer


@torch.inference_mode()
def clean_run(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, layers: Sequence[int] = ()
) -> CleanRun:
    """The pass over `ids`, `mask` [batch, length]. Raises `UserError` for a residual not finite."""
    # the model's own cache forgets the keys that have left an attention window; a patch needs them
    with recorded(model, layers) as residual:
        try:
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions(mask),
                past_key_values=DynamicCache(),
                use_cache=True,
                logits_to_keep=1,
            )
        finally:
            check_finite(residual, mask)  # says where, which an error about the logits does not
    return CleanRun(mask, output.logits[:, -1].argmax(-1), residual, output.past_key_values)


# --- patching, eq. 4


class _Passed(nn.Module):
    """Stands in for a layer that a run resumed above it does not compute."""

    def forward(self, hidden: Tensor, *args, **kwargs) -> Tensor:
        return hidden


@torch.inference_mode()
def patched_logits(
    model: PreTrainedModel,
    clean: CleanRun,
    block: Sequence[int],
    from_end: int,
    rows: Tensor,
    v: Tensor,
) -> Tensor:
    """Eq. 4 for a block of layers: next-token logits [len(rows), vocabulary] when h(l, t) <- v for
    its every layer l.

    t is the position `from_end` from the right (1 = last token); `rows` [n] are rows of the clean
    run, v [n, width]. Causality makes most of the pass trivial: positions before t and layers up to
    the block's first are those of the clean run, so only the last `from_end` tokens pass only the
    layers above, reading the clean keys and values of the tokens before t. `clean.residual` must
    hold the block's first layer.
    """
    first = block[0]
    hidden = clean.residual[first][rows, -from_end:].clone()  # [n, from_end, width]
    hidden[:, 0] = v
    before = clean.mask.shape[1] - from_end
    cache = DynamicCache()
    for index, layer in enumerate(clean.cache.layers):
        # layers up to `first` are passed over: their slot only has to have the right length
        kept = rows if index > first else slice(1)
        cache.update(layer.keys[kept, :, :before], layer.values[kept, :, :before], index)

    def write(output: Tensor) -> Tensor:
        output[:, 0] = v
        return output

    mask, passed = clean.mask[rows], [_Passed() for _ in range(first + 1)]
    above = nn.ModuleList([*passed, *decoder_layers(model)[first + 1 :]])
    with with_layers(model, above), layer_hooks(model, dict.fromkeys(block[1:], write)):
        output = model(
            inputs_embeds=hidden,
            attention_mask=mask,
            position_ids=positions(mask)[:, before:],
            past_key_values=cache,
            logits_to_keep=1,
        )
    return output.logits[:, -1]
