"""Gates: what would spoil a run in silence stops it here with a `UserError`, in every run.

What an honest run can have too is no error: `warnings`, which go into the run's record.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from introspect_utils.explainer.question_model import Batch, QuestionModel
    from introspect_utils.tasks.question import Example

SAMPLED = 256  # values of a tensor that are compared
HANDFUL = 10  # training rows after which an explainer that always says the same is a surprise
BESIDE = ("adapter_config.json", "config.json", "explainer.json", "simulator.json")
NO_SETTINGS = ("base_model_name_or_path", "peft_version", "transformers_version")
Samples = dict[str, tuple["Tensor", bool]]  # name -> (some values, is it to be trained?)


def check_explanations(examples: Sequence[Example]) -> None:
    """There are training rows, and each has something to learn beside the EOS."""
    if not examples:
        raise UserError("there are no training rows: raise the size, or look at what was left out")
    for number, example in enumerate(examples):
        if not example.explanation.strip():
            empty = f"training row {number} has an empty explanation"
            raise UserError(f"{empty}: leave it out ({example.question.text[:80]!r})")


def check_labels(batch: Batch) -> None:
    """Each row of a batch has a label beside the EOS: the loss is over the explanations."""
    labelled = (batch.labels != -100).sum(1)
    if labelled.min() <= 1:
        row = f"row {int(labelled.argmin())} of the first batch"
        raise UserError(f"the labels of {row} are masked: nothing would be learned")


def check_loss_depends(what: str, losses: Sequence[tuple[float, float]]) -> None:
    """Of each pair of losses, of rows that differ in `what` alone, the two differ."""
    if any(one == other and math.isfinite(one) for one, other in losses):
        raise UserError(
            f"changing {what} does not change the loss: it is not reaching the forward pass; set "
            "training.gradient_checkpointing: false, or take another version of transformers"
        )


def check_gradients(weights: dict[str, nn.Parameter]) -> None:
    """In each part (the model, the projection, the head) some weight gets a gradient."""
    import torch

    from introspect_utils.explainer.checkpoints import whole

    parts: dict[str, list[Tensor]] = {}
    for name, weight in weights.items():
        of_part = parts.setdefault(name.partition(".")[0], [])
        of_part += [] if weight.grad is None else [weight.grad]
    for part, gradients in parts.items():
        if not gradients or whole(torch.nn.utils.get_total_norm(gradients)).item() == 0:
            raise UserError(f"the {part} gets no gradient from the loss: it would not be trained")


def sampled(module: nn.Module) -> Samples:
    """Some values of every parameter, as they are now, for `check_trained`."""
    return {name: (_some(p).clone(), p.requires_grad) for name, p in module.named_parameters()}


def _some(tensor: Tensor) -> Tensor:
    flat = tensor.detach().flatten()
    return flat[:: max(1, len(flat) // SAMPLED)].cpu()


def check_trained(module: nn.Module, before: Samples) -> None:
    """In each part (the model, the projection, the head) something that was to be trained has
    changed; what was frozen has not."""
    parameters, changed = dict(module.named_parameters()), {}
    for name, (values, to_train) in before.items():
        moved = bool((_some(parameters[name]) != values).any())
        if moved and not to_train:
            raise UserError(
                f"{name} is frozen, and training changed it: the optimizer has a parameter that is "
                "not its own"
            )
        if to_train:
            part = name.partition(".")[0]
            changed[part] = changed.get(part, False) or moved
    if still := ", ".join(part for part, moved in changed.items() if not moved):
        raise UserError(
            f"training changed nothing in the {still}: raise learning_rate, or train in float32"
        )


def check_saved(explainer: QuestionModel, folder: Path) -> None:
    """The files of a checkpoint hold what was trained: what is evaluated is what was saved."""
    import torch
    from safetensors import safe_open

    trained = {
        name.replace(".default", "").removeprefix("model.").removeprefix("projection."): p
        for name, p in explainer.named_parameters()
        if p.requires_grad
    }
    missing = set(trained)
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as saved:
            for name in set(saved.keys()) & trained.keys():
                if not torch.equal(_some(saved.get_tensor(name)), _some(trained[name])):
                    raise UserError(
                        f"{path}: {name} is not what was trained; delete {folder} and train again"
                    )
                missing.discard(name)
    if missing:
        raise UserError(
            f"{folder} lacks {min(missing)} ({len(missing)} in all), which was trained: delete it "
            "and train again"
        )


def file_sha256(folder: Path) -> str:
    """SHA-256 over what a checkpoint's answers come from: its weight files, in order of name, and
    the settings beside them, less versions and places."""
    digest = hashlib.sha256()
    for path in map(folder.joinpath, BESIDE):
        if path.is_file():
            settings = json.loads(path.read_text("utf-8")).items()
            kept = {name: _in_order(value) for name, value in settings if name not in NO_SETTINGS}
            digest.update(json.dumps(kept, sort_keys=True).encode())
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def _in_order(value: Any) -> Any:
    """PEFT writes the names of modules in an order of no meaning."""
    return sorted(value) if value and isinstance(value, list) and type(value[0]) is str else value


def check_checkpoint(checkpoint: Path, sha256: str) -> None:
    """The files of a checkpoint are still those that were trained and evaluated."""
    if file_sha256(checkpoint) != sha256:
        raise UserError(
            f"{checkpoint} has changed since its explainer was trained: does another run write "
            "there? Run this again"
        )


def check_padding(explainer: QuestionModel, rows: Sequence[tuple], ahead: int = 0) -> None:
    """The shortest, the middle and the longest of rows (question, ids, length of the prompt) get
    the same next-token logits alone and in one batch; `ahead` as for `collate`."""
    import torch

    from introspect_utils.models.gate import difference, tolerance

    def next_logits(some: Sequence[tuple]) -> Tensor:
        batch = explainer.collate(some, ahead)
        last = torch.tensor([batch.ids.shape[1] - 1], device=batch.ids.device)
        return explainer.logits(batch, last)[:, -1]

    by_length = sorted(rows, key=lambda row: len(row[1]))
    some = [by_length[0], by_length[len(rows) // 2], by_length[-1]]
    change = difference(next_logits(some), torch.cat([next_logits([row]) for row in some]))
    if not math.isfinite(change):
        raise UserError(
            f"the logits of {explainer.lm.name} for {some[0][0].text[:80]!r} or a longer question "
            "are not finite: the model is damaged, or its numbers outgrow its dtype; set dtype: "
            "float32, or train it again"
        )
    if not change <= tolerance(explainer.lm):
        raise UserError(
            f"{explainer.lm.name} answers a question otherwise beside longer ones than alone (its "
            f"logits differ by {change:.1%}): padding is not masked; set generation.batch_size: 1, "
            "or take another version of transformers"
        )


def warnings(run: dict, predictions: pd.DataFrame) -> list[str]:
    """Predictions that look wrong but may be genuine: a line each. A small model trained for a few
    steps may say the same of every row; with a zero vector at test any may. A test set of one class
    makes has-changed F1 meaningless."""
    lines = []
    if run["checkpoint"] and (run["n_train"] or 0) > HANDFUL:
        conditions = predictions.groupby(["explainer", "condition"])["generation"]
        for (explainer, condition), said in conditions:
            if len(said) > 1 and said.nunique() == 1 and condition != "zero-vector":
                same = f"all {len(said)} predictions are the same ({said.iloc[0][:80]!r})"
                lines.append(f"{explainer}, {condition}: {same}")
    if "is_different" in predictions and predictions["is_different"].nunique() == 1:
        label = "changed" if predictions["is_different"].iloc[0] else "unchanged"
        lines.append(f"all test rows are {label}: has-changed F1 over one class says nothing")
    return lines
