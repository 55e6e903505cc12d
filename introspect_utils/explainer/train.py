"""Training an explainer (eq. 1) by LoRA or in full: the target stays fixed, the explainer and, if
there is one, the projection are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from introspect_utils.explainer import gates, processes
from introspect_utils.explainer.checkpoints import RESUME
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import Trained, fit
from introspect_utils.explainer.published import is_published, published_folder
from introspect_utils.explainer.tuning import (
    batches,
    in_file_order,
    loss_of,
    make_trainable,
    trainable,
    with_other_vectors,
)
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
    its last checkpoint, a finished one is read back, a published explainer stays as it is.

    Raises `UserError` when the explainer has been trained before, the loss is not finite, or
    another of the `gates` fails.
    """
    if is_published(explainer.lm.name):
        return as_published(explainer, folder)
    if trainable(explainer.model) or hasattr(explainer.model, "peft_config"):
        raise UserError(
            "this explainer has been trained before: make a new one (load_model, then Explainer) "
            "and train that"
        )
    gates.check_explanations(examples)
    asked = [(example.question, example.explanation) for example in examples]
    rows = [(question, *explainer.encode(question, said)) for question, said in asked]
    longest, alone = max(len(ids) for _, ids, _ in rows), settings.processes == 1
    (folder / RESUME).parent.mkdir(parents=True, exist_ok=True)
    explainer.fit_center([question for question, _ in asked])
    made_from, device = fingerprint(explainer, rows, settings, seed), explainer.lm.device
    if not alone:
        processes.hand_over(explainer, rows, folder, settings.processes)
    make_trainable(explainer, settings, seed)
    explainer.longest_explanation = max(len(ids) - n_prompt for _, ids, n_prompt in rows)
    if alone:
        gates.check_memory(explainer, settings.batch_size * longest)
    gates.check_labels(explainer.collate(rows[: settings.batch_size]))

    lengths, n, epochs = [len(ids) for _, ids, _ in rows], settings.batch_size, settings.epochs
    in_order = settings.order == "file"
    steps = in_file_order(len(rows), n, epochs) if in_order else batches(lengths, n, epochs, seed)
    steps = list(steps)
    if not alone:
        work = processes.Work(folder, device, rows, steps, settings, made_from, seed)
        processes.train_together(explainer, work)
    rows, pairs = with_other_vectors(rows)
    loss, depends = loss_of(rows, settings), {"v": pairs}
    path = folder / RESUME
    losses, seconds = fit(explainer, loss, steps, settings, path, made_from, seed, depends)
    explainer.save(folder)
    gates.check_saved(explainer, folder)
    trained = sum(parameter.numel() for parameter in trainable(explainer).values())
    return Trained(folder, gates.file_sha256(folder), losses, seconds, trained)


def as_published(explainer: Explainer, folder: Path) -> Trained:
    """An explainer that its authors have trained: `folder` holds links to its files, by which a run
    knows what it tested."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in published_folder(explainer.lm.name).iterdir():
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path.resolve())
    return Trained(folder, gates.file_sha256(folder), [], 0.0, 0)


def fingerprint(explainer: Explainer, rows: Sequence, settings: Training, seed: int) -> str:
    """What a checkpoint belongs to: the explainer as it was made, the rows' tokens and vectors, the
    settings that a result depends on and the seed."""
    ids, lm = [ids for _, ids, _ in rows], explainer.lm
    made = (lm.name, explainer.settings, explainer.layers, settings, seed, ids)
    digest = hashlib.sha256(repr(made).encode())
    for question, _, _ in rows:
        if question.vector is not None:
            v = question.vector.float().cpu().numpy()
            digest.update(repr(question.layers).encode() + v.tobytes())
    if explainer.projection is not None:
        digest.update(explainer.projection.weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
