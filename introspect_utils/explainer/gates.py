"""Gates: what would spoil a run in silence stops it here with a `UserError`. They are cheap, and on
in every run.

`training` passes an explainer through those of training, `generation` through that of padding, the
readers of training and test rows through `check_disjoint`, `provenance.run_record` through
`check_checkpoint`. What an honest run can have too is no error: `warnings`, which
`record.write_run` prints and puts into the run's record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from introspect_utils.explainer.explainer import Batch, Explainer
    from introspect_utils.tasks.question import Example

SAMPLED = 256  # values of a tensor that are compared
HANDFUL = 10  # training rows after which an explainer that always says the same is a surprise
TOLERANCE = {
    "float32": 1e-3,
    "bfloat16": 0.1,
}  # of padding, in logits: the difference of two vectors over the length of one
Samples = dict[
    str, tuple["nn.Parameter", "Tensor", bool]
]  # name -> (parameter, some of its values, is it to be trained?)


def check_explanations(examples: Sequence[Example]) -> None:
    """There are training rows, and each has something to learn beside the EOS."""
    if not examples:
        raise UserError(
            "there are no training rows: raise the size, or look at what was filtered out of the "
            "data"
        )
    for number, example in enumerate(examples):
        if not example.explanation.strip():
            raise UserError(
                f"training row {number} has an empty explanation: leave it out "
                f"({example.question.text[:80]!r})"
            )


def check_labels(batch: Batch) -> None:
    """The labels of no row are all masked, or masked but for the EOS: the loss is over the
    explanations."""
    labelled = (batch.labels != -100).sum(1)
    if not bool((labelled > 1).all()):
        raise UserError(
            f"the labels of row {int(labelled.argmin())} of the first batch are masked: nothing "
            "would be learned"
        )


def check_vector_reaches_logits(explainer: Explainer, batch: Batch) -> None:
    """Another v gives other logits, and the projection gets a gradient."""
    import torch

    if not len(batch.vectors):
        return
    explainer.eval()  # dropout would change the logits too
    other = 1 - batch.vectors  # not along v, which a scale would undo, and not zero where v is
    with torch.no_grad():
        difference = (
            (next_logits(explainer, batch) - next_logits(explainer, batch._replace(vectors=other)))
            .abs()
            .amax(1)
        )
    with_vector = batch.places.any(-1)
    if not bool((difference[with_vector] > 0).all()):
        raise UserError(
            "changing v does not change the logits: the continuous token is not reaching the "
            "forward pass"
        )
    if explainer.projection is not None:
        weights = [p for p in explainer.projection.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(explainer.loss(batch), weights, allow_unused=True)
        if not any(gradient is not None and gradient.any() for gradient in gradients):
            raise UserError(
                "the projection gets no gradient from the loss: it would stay as it was drawn"
            )


def next_logits(explainer: Explainer, batch: Batch) -> Tensor:
    """Logits of the token behind each row of a left-padded batch, [batch, vocabulary]."""
    import torch

    last = torch.tensor([batch.ids.shape[1] - 1], device=batch.ids.device)
    return explainer.logits(batch, last)[:, -1]


def check_memory(explainer: Explainer, tokens: int) -> None:
    """What training needs at the very least fits into the memory that is free; `tokens`: of the
    largest batch.

    Counted are gradients and AdamW's moments in float32 and one hidden state a layer in bfloat16:
    more is needed, never less.
    """
    import psutil
    import torch

    lm = explainer.lm
    trained = sum(
        parameter.numel() for parameter in explainer.parameters() if parameter.requires_grad
    )
    needed = 12 * trained + 2 * tokens * lm.width * lm.n_layers
    free = (
        torch.cuda.mem_get_info(lm.device)[0]
        if lm.device.type == "cuda"
        else psutil.virtual_memory().available
    )
    if needed > free:
        raise UserError(
            f"training {lm.name} needs at least {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} "
            f"GB are free on {lm.device}: "
            "lower batch_size, set tuning: lora, or take a smaller model"
        )


def sampled(module: nn.Module) -> Samples:
    """Some values of every parameter, as they are now, for `check_trained`."""
    return {name: (p, _some(p).clone(), p.requires_grad) for name, p in module.named_parameters()}


def _some(tensor: Tensor) -> Tensor:
    flat = tensor.detach().flatten()
    return flat[:: max(1, len(flat) // SAMPLED)].cpu()


def check_trained(before: Samples) -> None:
    """What was to be trained (in each part: the model, the projection, the head) has changed since;
    what was frozen has not."""
    import torch

    moved: dict[str, bool] = {}
    for name, (parameter, values, to_train) in before.items():
        changed = not torch.equal(_some(parameter), values)
        if changed and not to_train:
            raise UserError(
                f"{name} is frozen, and training changed it: the optimizer has a parameter that is "
                "not its own"
            )
        if to_train:
            part = name.partition(".")[0]
            moved[part] = moved.get(part, False) or changed
    still = [part for part, changed in moved.items() if not changed]
    if still:
        raise UserError(
            f"training changed nothing in the {', '.join(still)}: raise learning_rate, or train in "
            "float32"
        )


def check_saved(explainer: Explainer, folder: Path) -> None:
    """What was trained stands in the files of the checkpoint as it is in memory: what is evaluated
    is what was saved."""
    import torch
    from safetensors import safe_open

    trained = {name: p for name, p in explainer.named_parameters() if p.requires_grad}
    wanted = {
        name.replace(".default", "").removeprefix("model.").removeprefix("projection."): p
        for name, p in trained.items()
    }
    found = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as saved:
            for name in set(saved.keys()) & wanted.keys():
                if not torch.equal(_some(saved.get_tensor(name)), _some(wanted[name])):
                    raise UserError(
                        f"{path}: {name} is not what was trained; delete {folder} and train again"
                    )
                found.add(name)
    missing = sorted(wanted.keys() - found)
    if missing:
        raise UserError(
            f"{folder} lacks {missing[0]} ({len(missing)} in all), which was trained: delete it "
            "and train again"
        )


def file_sha256(folder: Path) -> str:
    """SHA-256 over the weight files of a checkpoint, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_checkpoint(checkpoint: Path, sha256: str) -> None:
    """The files of a checkpoint are still those that were trained and evaluated, whose hash goes
    into the record."""
    if file_sha256(checkpoint) != sha256:
        raise UserError(
            f"{checkpoint} has changed since its explainer was trained: does another run write "
            "there? Run this again"
        )


def check_padding(explainer: Explainer, rows: Sequence[tuple]) -> None:
    """The shortest, the middle and the longest of rows (question, ids, length of the prompt) are
    continued alike alone and padded on the left in one batch."""
    import torch

    by_length = sorted(rows, key=lambda row: len(row[1]))
    some = [by_length[0], by_length[len(rows) // 2], by_length[-1]]
    together = next_logits(explainer, explainer.collate(some)).float()
    alone = torch.cat([next_logits(explainer, explainer.collate([row])) for row in some]).float()
    difference = (
        ((together - alone).norm(dim=1) / (alone - alone.mean(1, keepdim=True)).norm(dim=1))
        .max()
        .item()
    )
    if not difference <= TOLERANCE.get(str(explainer.lm.model.dtype).removeprefix("torch."), 0.1):
        raise UserError(
            f"{explainer.lm.name} answers a question otherwise beside longer ones than alone (its "
            "logits differ by "
            f"{difference:.1%}): padding is not masked; set generation.batch_size: 1, or take "
            "another version of transformers"
        )


def warnings(run: dict, predictions: pd.DataFrame) -> list[str]:
    """What is strange in a run's predictions but can be honest: a line each.

    An explainer that says the same of every row has probably learned nothing but the answer's form.
    That is a result, which a small model trained for a few steps gives honestly, so it does not
    stop the run; a zero vector at test may well do it. A test set of one class makes has-changed F1
    meaningless, and is what some targets give.
    """
    found = []
    if run["checkpoint"] and (run["n_train"] or 0) > HANDFUL:
        for (explainer, condition), said in predictions.groupby(["explainer", "condition"])[
            "generation"
        ]:
            if len(said) > 1 and said.nunique() == 1 and condition != "zero-vector":
                found.append(
                    f"{explainer}, {condition}: all {len(said)} predictions are the same "
                    f"({said.iloc[0][:80]!r})"
                )
    if (
        "is_different" in predictions
        and len(predictions)
        and predictions["is_different"].nunique() == 1
    ):
        label = "changed" if predictions["is_different"].iloc[0] else "unchanged"
        found.append(f"all test rows are {label}: has-changed F1 over one class says nothing")
    return found
