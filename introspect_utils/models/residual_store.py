"""The residual stream h(l, t) of a target over a corpus: computed once, kept on disk a layer a
file, read as a memory map.

Every context is a window of exactly T tokens, so nothing is padded or masked. The target reads it
behind one BOS (where its tokenizer has one) and a line break, which are left out of what is kept:
the residuals of the first tokens can be a hundred times as long as all others.
"""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from introspect_utils.models.fingerprint import identity
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import check_finite, decoder_layers, recorded, with_layers
from introspect_utils.models.tokens import token_ids
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import MEANS, opened, replaced

LEAD_IN = "\n"
BYTES = 2  # of a bfloat16
MAKER = "notebooks/01_data_features.ipynb"


@torch.inference_mode()
def read_residuals(
    lm: LanguageModel, contexts: Tensor, layers: Sequence[int], batch_size: int
) -> Iterator[tuple[slice, dict[int, Tensor]]]:
    """Batch after batch of `contexts` [N, T]: its rows and {l: h [batch, T, d]}. Layers above the
    highest are not computed. Raises `UserError` when a context is longer than the model reads, or a
    residual is not finite."""
    lm.check_length(contexts.shape[1], "a context")
    lead_in = torch.tensor(lm.encode(LEAD_IN), device=lm.device)
    lower = decoder_layers(lm.model)[: max(layers) + 1]
    for start in range(0, len(contexts), batch_size):
        batch = contexts[start : start + batch_size].to(lm.device)
        ids = torch.cat([lead_in.expand(len(batch), -1), batch], 1)
        with recorded(lm.model, layers) as residual, with_layers(lm.model, lower):
            lm.model.get_decoder()(input_ids=ids, use_cache=False)
        h = {layer: residual[layer][:, len(lead_in) :] for layer in layers}
        check_finite(h, torch.ones_like(batch))
        yield slice(start, start + len(batch)), h


def token_activations(target: LanguageModel, text: str, layer: int) -> Tensor:
    """h(l, t) of every token of a text, [T, d_target] float32, BOS not counted: read like the
    contexts of `read_residuals`. Raises `UserError` where the text has no token."""
    ids = token_ids(target.tokenizer, text)
    if not ids:
        raise UserError("the text is empty: give at least one word")
    [(_, h)] = read_residuals(target, torch.tensor([ids]), [layer], batch_size=1)
    return h[layer][0].float()


def store_residuals(
    lm: LanguageModel, contexts: Tensor, layers: Sequence[int], folder: Path, batch_size: int
) -> None:
    """One pass over `contexts` [N, T] int64: for every layer a raw bfloat16 file [N, T, d], and
    JSON that says what it holds.

    A pass cut short goes on where it stopped. What is whole, and of the same contexts and target,
    is left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{identity(lm)} {lm.encode(LEAD_IN)}".encode())
    digest.update(contexts.cpu().numpy().tobytes())
    shape = [*contexts.shape, lm.width]
    about = {"shape": shape, "dtype": "bfloat16", "made_from": digest.hexdigest()[:16]}
    n_bytes, unfinished = BYTES * math.prod(shape[1:]), {}  # of a context; {layer: file}
    for layer in layers:
        raw, described = _files(folder, layer)
        if _about(folder, layer) != about or raw.stat().st_size > len(contexts) * n_bytes:
            raw.write_bytes(b"")
            with replaced(described) as temporary:
                temporary.write_text(json.dumps(about) + "\n", "utf-8")
        if raw.stat().st_size < len(contexts) * n_bytes:
            unfinished[layer] = raw
    if not unfinished:
        return
    done = min(path.stat().st_size for path in unfinished.values()) // n_bytes
    for path in unfinished.values():
        os.truncate(path, done * n_bytes)
    settings = {"desc": "residuals", "unit": "token", "unit_scale": True, "mininterval": 10}
    with tqdm(total=contexts.numel(), initial=done * contexts.shape[1], **settings) as progress:
        for rows, h in read_residuals(lm, contexts[done:], list(unfinished), batch_size):
            for layer, path in unfinished.items():
                values = h[layer].to("cpu", torch.bfloat16).contiguous().view(torch.int16)
                with path.open("ab") as file:
                    file.write(values.numpy().data)
            progress.update((rows.stop - rows.start) * contexts.shape[1])


def open_residuals(folder: Path, layer: int) -> Tensor:
    """h(l, t) over the corpus, [N, T, d] bfloat16: a memory map of the store, only to be read from.
    Raises `UserError` when the store is missing, unfinished or damaged."""
    raw, about = _files(folder, layer)[0], _about(folder, layer)
    if about is None:
        raise UserError(f"{folder} holds no residuals of layer {layer}: {MAKER} stores them")
    shape = about["shape"]
    if raw.stat().st_size != BYTES * math.prod(shape):
        wrong = f"{raw} is unfinished or damaged (its size is not that of {shape})"
        raise UserError(f"{wrong}: run {MAKER} again")
    # Read-only: a private map that may be written to counts as memory, and one larger than the
    # machine's is refused.
    h = np.memmap(raw, np.int16, mode="r", shape=tuple(shape))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(h).view(torch.bfloat16)


def mean_residual(residuals: Tensor) -> Tensor:
    """The mean [d] float32 of residuals [N, T, d], taken in blocks."""
    total = sum(block.double().sum((0, 1)) for block in residuals.split(1024))
    return (total / residuals.shape[:2].numel()).float()


def layer_means(folder: Path, layers: Sequence[int]) -> dict[int, Tensor]:
    """{l: the mean residual [d] float32} of stored layers, kept in a file beside the store, so that
    they can be had without it. Raises `UserError` where there is neither."""
    path = folder / MEANS
    made_from = {str(layer): json.dumps(_about(folder, layer)) for layer in layers}
    if path.is_file():
        with opened(path, MAKER) as saved:
            stored = [about for about in made_from.items() if about[1] != "null"]
            if {*stored} <= {*saved.metadata().items()} and {*made_from} <= {*saved.keys()}:
                return {layer: saved.get_tensor(str(layer)) for layer in layers}
    means = {layer: mean_residual(open_residuals(folder, layer)) for layer in layers}
    with replaced(path) as temporary:
        save_file({str(layer): mean for layer, mean in means.items()}, temporary, made_from)
    return means


def _files(folder: Path, layer: int) -> tuple[Path, Path]:
    """(values, description) of a layer's store."""
    return folder / f"layer{layer}.bf16", folder / f"layer{layer}.json"


def _about(folder: Path, layer: int) -> dict | None:
    """What a layer's store holds, or is to hold; None where there is none."""
    raw, described = _files(folder, layer)
    there = raw.is_file() and described.is_file()
    return json.loads(described.read_text("utf-8")) if there else None
