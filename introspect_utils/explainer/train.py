"""Training an explainer (eq. 1) by LoRA or in full: the target stays fixed, the explainer and, if
there is one, the projection are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from introspect_utils.explainer import gates
from introspect_utils.explainer.checkpoints import RESUME
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import Trained, fit
from introspect_utils.explainer.processes import train_together
from introspect_utils.explainer.published import is_published, published_folder
from introspect_utils.explainer.tuning import (
    batches,
    loss_of,
    make_trainable,
    trainable,
    with_other_vectors,
)
from introspect_utils.models.fingerprint import identity
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training
from introspect_utils.tasks.question import Example


def train(
    explainer: Explainer,
    examples: Sequence[Example],
    settings: Training,
    folder: Path,
    seed: int = 0,
) -> Trained:
    """Fit the explainer to the examples and save it in `folder`; an interrupted run goes on from
    its last checkpoint, a finished one is read back, a published explainer stays as it is. Raises
    `UserError` when the explainer has been trained before, the loss is not finite, or another of
    the `gates` fails."""
    if is_published(explainer.lm.name):
        return _as_published(explainer, folder)
    if trainable(explainer.model) or hasattr(explainer.model, "peft_config"):
        raise UserError(
            "this explainer has been trained before: make a new one (load_model, then Explainer) "
            "and train that"
        )
    gates.check_explanations(examples)
    rows = [(e.question, *explainer.encode(e.question, e.explanation)) for e in examples]
    gates.check_labels(explainer.collate(rows[: settings.batch_size]))
    path = folder / RESUME
    path.parent.mkdir(parents=True, exist_ok=True)
    explainer.fit_center([example.question for example in examples])
    explainer.longest_explanation = max(len(ids) - n_prompt for _, ids, n_prompt in rows)
    lengths, n, epochs = [len(ids) for _, ids, _ in rows], settings.batch_size, settings.epochs
    steps = list(batches(lengths, n, epochs, seed, settings.order))
    work = {"steps": steps, "settings": settings, "path": path, "seed": seed}
    work["made_from"] = _fingerprint(explainer, rows, settings, seed)
    if settings.processes > 1:
        train_together(explainer, rows, folder, settings.processes, work)
    make_trainable(explainer, settings, seed)
    rows, pairs = with_other_vectors(rows)
    losses, seconds = fit(explainer, loss_of(rows, settings), **work, depends={"v": pairs})
    explainer.save(folder)
    gates.check_saved(explainer, folder)
    trained = sum(parameter.numel() for parameter in trainable(explainer).values())
    return Trained(folder, gates.file_sha256(folder), losses, seconds, trained)


def _as_published(explainer: Explainer, folder: Path) -> Trained:
    """An explainer that its authors have trained: `folder` holds links to its files, by which a run
    knows what it tested."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in published_folder(explainer.lm.name).iterdir():
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path.resolve())
    return Trained(folder, gates.file_sha256(folder), [], 0.0, 0)


def _fingerprint(explainer: Explainer, rows: Sequence, settings: Training, seed: int) -> str:
    """What a checkpoint belongs to: the explainer as it was made, the rows' tokens and vectors, the
    settings that a result depends on and the seed."""
    ids, lm = [ids for _, ids, _ in rows], explainer.lm
    compute_dtype = choose_compute_dtype(settings.compute_dtype, lm.device.type)
    made = (identity(lm), compute_dtype, explainer.settings, explainer.layers, settings, seed, ids)
    digest = hashlib.sha256(repr(made).encode())
    for question, _, _ in rows:
        if question.vector is not None:
            v = question.vector.float().cpu().numpy()
            digest.update(repr(question.layers).encode() + v.tobytes())
    if explainer.projection is not None:
        digest.update(explainer.projection.weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def held_out_loss(explainer: Explainer, examples: Sequence[Example], batch_size: int = 8) -> float:
    """Eq. 1 of examples that nothing is trained on: nats per token of the explanations that there
    are, however they are batched."""
    said = [example for example in examples if example.explanation]
    rows = [(e.question, *explainer.encode(e.question, e.explanation)) for e in said]
    explainer.eval()
    total, n_tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = explainer.collate(rows[start : start + batch_size])
        n = int((batch.labels != -100).sum())
        total += n * explainer.loss(batch).item()
        n_tokens += n
    return total / n_tokens
