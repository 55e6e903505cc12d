"""Training an explainer (eq. 1): LoRA or full fine-tuning with accelerate, resumable, checked before it starts.

The target stays fixed; what is trained is the explainer and, where there is one, the projection.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from introspect_utils.errors import UserError
from introspect_utils.explainer import Batch, Explainer
from introspect_utils.profiles import Training
from introspect_utils.questions import Example
from introspect_utils.residual import positions

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BUCKET = 8  # batches whose rows are sorted by length together
STATE, WEIGHTS = "state.json", "weights.safetensors"


@dataclass(frozen=True)
class Trained:
    """A finished training run. `losses` has one value a step; `checkpoint` is a folder for `Explainer.load`."""

    checkpoint: Path
    sha256: str
    losses: list[float]
    seconds: float
    trained_parameters: int


def add_lora(explainer: Explainer, settings: Training, seed: int) -> None:
    """LoRA on all linear layers of the decoder. The projection stays outside, so that it is trained in full."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=LINEAR,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    explainer.model = get_peft_model(explainer.lm.model, config)


def batches(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Row numbers of each step: every epoch shuffled by the seed, rows of like length together."""
    for epoch in range(epochs):
        rng = random.Random(f"{seed}-{epoch}")
        order = rng.sample(range(len(lengths)), len(lengths))
        for start in range(0, len(order), BUCKET * batch_size):
            bucket = sorted(order[start : start + BUCKET * batch_size], key=lambda i: lengths[i])
            steps = [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
            yield from rng.sample(steps, len(steps))


def train(explainer: Explainer, examples: Sequence[Example], settings: Training, folder: Path, seed: int = 0) -> Trained:
    """Fit the explainer to the examples and save it in `folder`; a run cut short goes on from its last checkpoint.

    Raises `UserError` when the vector does not reach the logits, or when the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    explainer.fit_center([example.question for example in examples])
    if settings.tuning == "lora":
        add_lora(explainer, settings, seed)  # in fp32 whatever the model is in
    else:
        explainer.model.float().requires_grad_(True)
    rows = [(example.question, *explainer.encode(example.question, example.explanation)) for example in examples]
    check_vector_reaches_logits(explainer, explainer.collate(rows[: settings.batch_size]))

    trainable = {name: parameter for name, parameter in explainer.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trainable.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    mixed = {"float32": "no", "bfloat16": "bf16"}[settings.compute_dtype]
    accelerator = Accelerator(mixed_precision=mixed, cpu=explainer.lm.device.type == "cpu")
    explainer, optimizer = accelerator.prepare(explainer, optimizer)
    steps = list(batches([len(ids) for _, ids, _ in rows], settings.batch_size, settings.epochs, seed))
    losses, seconds = resume(folder, trainable, optimizer, fingerprint(rows, settings, seed))

    explainer.train()
    start = time.monotonic() - seconds
    progress = tqdm(steps[len(losses) :], initial=len(losses), total=len(steps), desc="training", unit="step", mininterval=10)
    for chosen in progress:
        torch.manual_seed(seed * 1_000_003 + len(losses))  # dropout does not depend on where a run was resumed
        with accelerator.autocast():
            loss = explainer.loss(explainer.collate([rows[i] for i in chosen]))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trainable.values(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
        if losses[-1] != losses[-1]:
            raise UserError(f"the loss is not finite at step {len(losses)}: lower training.learning_rate ({settings.learning_rate})")
        if len(losses) % settings.checkpoint_steps == 0 and len(losses) < len(steps):
            checkpoint(folder, trainable, optimizer, losses, time.monotonic() - start, fingerprint(rows, settings, seed))
    explainer.eval()
    explainer.save(folder)
    shutil.rmtree(folder / "resume", ignore_errors=True)
    return Trained(folder, file_sha256(folder), losses, time.monotonic() - start, sum(p.numel() for p in trainable.values()))


def check_vector_reaches_logits(explainer: Explainer, batch: Batch) -> None:
    """The gate of every training run: another v gives other logits, and the projection gets a gradient."""
    if not len(batch.vectors):
        return

    def logits(vectors: torch.Tensor) -> torch.Tensor:
        embedded = explainer.embeddings(batch._replace(vectors=vectors))
        return explainer.model(
            inputs_embeds=embedded, attention_mask=batch.mask, position_ids=positions(batch.mask), logits_to_keep=1, use_cache=False
        ).logits

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch.vectors.shape, generator=generator).to(batch.vectors) * batch.vectors.std()
    with torch.no_grad():
        difference = (logits(batch.vectors) - logits(batch.vectors + noise)).abs().amax(dim=(1, 2))
    with_vector = batch.places.any(-1)
    if not bool((difference[with_vector] > 0).all()):
        raise UserError("changing v does not change the logits: the continuous token is not reaching the forward pass")
    if explainer.projection is not None:
        explainer.loss(batch).backward()
        gradients = [p.grad.abs().sum().item() for p in explainer.projection.parameters() if p.requires_grad and p.grad is not None]
        explainer.zero_grad()
        if not sum(gradients) > 0:
            raise UserError("the projection gets no gradient from the loss: it would stay as it was drawn")


def fingerprint(rows: Sequence, settings: Training, seed: int) -> str:
    """What a checkpoint belongs to: the tokens of every row, the settings and the seed."""
    return hashlib.sha256(repr((settings, seed, [ids for _, ids, _ in rows])).encode()).hexdigest()


def checkpoint(folder: Path, trainable: dict, optimizer, losses: list[float], seconds: float, made_from: str) -> None:
    """Weights and optimizer state in safetensors, put in place whole: an interruption leaves the last one."""
    temporary = folder / "resume.new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    state = {f"weight/{name}": parameter.detach() for name, parameter in trainable.items()}
    for name, parameter in trainable.items():
        state |= {f"{key}/{name}": torch.as_tensor(value) for key, value in optimizer.state[parameter].items()}
    save_file({name: part.contiguous() for name, part in state.items()}, temporary / WEIGHTS)
    (temporary / STATE).write_text(json.dumps({"made_from": made_from, "losses": losses, "seconds": seconds}))
    old = folder / "resume"
    shutil.rmtree(old, ignore_errors=True)
    os.replace(temporary, old)


def resume(folder: Path, trainable: dict, optimizer, made_from: str) -> tuple[list[float], float]:
    """(losses, seconds) so far, weights and optimizer state restored; ([], 0) where there is no checkpoint of this very run."""
    for saved in (folder / "resume", folder / "resume.new"):  # the second, if the run was cut short while putting it in place
        if not (saved / STATE).is_file():
            continue
        state = json.loads((saved / STATE).read_text())
        if state["made_from"] != made_from:
            continue
        tensors = load_file(saved / WEIGHTS)
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(tensors[f"weight/{name}"])
                optimizer.state[parameter] = {key: tensors[f"{key}/{name}"].to(parameter.device if key != "step" else "cpu") for key in ("step", "exp_avg", "exp_avg_sq")}
        print(f"resuming after step {len(state['losses'])}", flush=True)
        return state["losses"], state["seconds"]
    return [], 0.0


def file_sha256(folder: Path) -> str:
    """SHA-256 over the weight files of a checkpoint, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
