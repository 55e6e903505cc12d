"""Explainers made from the target, so that how similar the two are is set and not only observed.

*rotated*: the same function in another basis. The gains of the norms are folded into the matrices
that read the stream, the embeddings untied, and an orthogonal Q applied: h -> Q h. *sibling*: the
target trained a little further on other text. `name@share` is a point on the way: `rotated@0.5`
turns by half the angles of Q, `sibling@0.5` has the mean of both weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from torch import Tensor, nn

from introspect_utils.data.text import corpus_texts
from introspect_utils.explainer.fit import fit
from introspect_utils.models.contexts import contexts
from introspect_utils.models.fingerprint import identity
from introspect_utils.models.gate import check_same_logits, sample_logits
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.models.residual import decoder_layers
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir
from introspect_utils.settings.profile import Profile


def orthogonal(width: int, share: float = 1.0, seed: int = 0) -> Tensor:
    """Q^share [width, width] float64, Q a random rotation: each of its planes is turned by `share`
    of its angle."""
    from scipy.stats import special_ortho_group

    q = special_ortho_group.rvs(width, random_state=seed)
    angles, planes = np.linalg.eig(q)  # e^(i angle), and planes @ planes^H = 1, since Q is normal
    return torch.from_numpy(((planes * angles**share) @ planes.conj().T).real.copy())


@torch.no_grad()
def rotate(lm: LanguageModel, q: Tensor) -> LanguageModel:
    """`lm` with its residual stream in another basis, h -> Q h, changed in place: q [width, width]
    orthogonal. Its logits are compared with those before. Raises `UserError` for an architecture of
    which that does not make the same function."""
    model, before, q = lm.model, sample_logits(lm), q.to(lm.device)
    head, embed = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embed.weight:
        head.weight = nn.Parameter(embed.weight.clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
    try:
        for layer in decoder_layers(model):
            attention, mlp = layer.self_attn, layer.mlp
            _turn_block(layer.input_layernorm, attention, attention.o_proj, q)
            _turn_block(layer.post_attention_layernorm, mlp, mlp.down_proj, q)
        _turn_reading(model.get_decoder().norm, [head], q)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{lm.name} cannot be rotated: a {type(model).__name__} is not built as expected "
            f"({error}); take a Llama or Qwen3 as the target"
        ) from error
    embed.weight.copy_(embed.weight.double() @ q.T)
    check_same_logits(lm, before, "rotated")
    return lm


def _turn_block(norm: nn.Module, block: nn.Module, writing: nn.Linear, q: Tensor) -> None:
    """What a block of a layer reads of the stream, and what it writes."""
    linear = [part for part in block.children() if isinstance(part, nn.Linear)]
    _turn_reading(norm, [part for part in linear if part is not writing], q)
    for written in (writing.weight, writing.bias):
        if written is not None:
            written.copy_(q @ written.double())


def _turn_reading(norm: nn.Module, matrices: list[nn.Module], q: Tensor) -> None:
    """W diag(gain) Q^T in place of each W: with a gain of 1, the norm of Q h is Q times that of
    h. The gain (w, or 1 + w in Gemma) is what the norm makes of a vector of ones."""
    ones = torch.ones(len(norm.weight), device=norm.weight.device)
    gain = norm(1000 * ones).double()  # 1000: whatever is added to the variance
    for matrix in matrices:
        matrix.weight.copy_((matrix.weight.double() * gain) @ q.T)
    norm.weight.fill_(1.0)
    norm.weight.fill_(1.0 if norm(ones).mean() < 1.5 else 0.0)


def sibling(profile: Profile, lm: LanguageModel, share: float = 1.0) -> LanguageModel:
    """`lm` with `share` of the way to a model trained further from it, changed in place. The
    training is done once and kept."""
    with safe_open(_sibling_weights(profile, lm), "pt") as trained, torch.no_grad():
        for name, weight in lm.model.named_parameters():
            weight.lerp_(trained.get_tensor(f"weight/{name}").to(weight), share)
    return lm


def _sibling_weights(profile: Profile, lm: LanguageModel) -> Path:
    """The file with the sibling's weights, trained on text that no corpus of the target holds."""
    settings = profile.variants
    compute_dtype = choose_compute_dtype(profile.training.compute_dtype, lm.device.type)
    made_from = json.dumps([identity(lm), asdict(settings), compute_dtype])
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:12]
    path = artifacts_dir(profile.name) / "siblings" / f"{folder_name(lm.name)}-{digest}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.is_file():
            return path
        n = settings.sibling_steps * settings.sibling_batch_size
        unread = corpus_texts(settings.text, n)[::-1]  # a corpus is cut from the other end
        ids = contexts(lm, unread, settings.context, n).to(lm.device)
        model = copy.deepcopy(lm.model).float().requires_grad_(True)

        def loss(model: nn.Module, rows: Tensor) -> Tensor:
            return model(input_ids=rows, labels=rows, use_cache=False).loss

        rate = {"learning_rate": settings.sibling_learning_rate, "weight_decay": 0.0}
        training, unfinished = replace(profile.training, **rate), path.with_suffix(".unfinished")
        steps = ids.split(settings.sibling_batch_size)
        fit(model, loss, steps, training, unfinished, made_from, seed=0)
        os.replace(unfinished, path)
    return path
