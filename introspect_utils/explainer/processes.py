"""Training across processes: a step's rows are divided among them, and the losses are those of one
process.

The notebook's process writes the explainer to files, leaves the GPU, starts the processes, and
reads the checkpoint that they leave. It is the one that a single process would have written, so an
interrupted run may go on with another number of processes. With DDP each process holds all
weights, with FSDP2 its share of them.
"""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing import ProcessRaisedException, spawn

from introspect_utils.explainer.checkpoints import RESUME, checkpoint, own_checkpoint
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import fit
from introspect_utils.explainer.question_model import Row
from introspect_utils.explainer.tuning import loss_of, make_trainable, trainable, with_other_vectors
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training

HANDED_OVER = "handed_over"  # a folder beside the checkpoint, there while the processes are at work
ROWS = "rows.safetensors"
REFUSED = f"{UserError.__module__}.{UserError.__name__}: "


class Work(NamedTuple):
    """What several processes train."""

    folder: Path
    device: torch.device
    rows: list[Row]
    steps: list[list[int]]
    settings: Training
    made_from: str
    seed: int


def hand_over(explainer: Explainer, rows: list[Row], folder: Path, processes: int) -> None:
    """Write an explainer before its training, and its rows' vectors; then leave the GPU.

    Raises `UserError` when there are fewer GPUs than processes.
    """
    n_gpus = torch.cuda.device_count()
    if explainer.lm.device.type == "cuda" and n_gpus < processes:
        raise UserError(
            f"training.processes is {processes}, and this machine has {n_gpus} GPUs: lower it"
        )
    explainer.save(folder / HANDED_OVER)
    vectors = [question.vector for question, _, _ in rows if question.vector is not None]
    vectors = torch.stack(vectors) if vectors else torch.zeros(0, 1)
    save_file({"vectors": vectors}, folder / HANDED_OVER / ROWS)
    explainer.to("cpu")
    torch.cuda.empty_cache()  # without a GPU nothing


def train_together(explainer: Explainer, work: Work) -> None:
    """Train what was handed over, from the explainer's weights or from the checkpoint of an
    interrupted run; what is trained is in the checkpoint afterwards. Raises `UserError` as `fit`
    does."""
    path, made_from = work.folder / RESUME, work.made_from
    if own_checkpoint(path, made_from) is None:
        checkpoint(path, trainable(explainer), {}, [], 0.0, made_from)
    dtype = str(explainer.embed.weight.dtype).removeprefix("torch.")
    bare = [(replace(question, vector=None), *rest) for question, *rest in work.rows]
    try:
        given = (work._replace(rows=bare), dtype, free_port())
        spawn(_work, given, nprocs=work.settings.processes)
    except ProcessRaisedException as error:
        last = str(error).strip().splitlines()[-1]
        raise UserError(last.removeprefix(REFUSED)) if last.startswith(REFUSED) else error from None
    explainer.to(work.device)
    shutil.rmtree(work.folder / HANDED_OVER)


def _work(rank: int, work: Work, dtype: str, port: int) -> None:
    """One of the processes."""
    n, folder = work.settings.processes, work.folder / HANDED_OVER
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    device = f"cuda:{rank}" if work.device.type == "cuda" else work.device.type
    explainer = Explainer.load(folder, device, dtype)
    vectors, rows = iter(load_file(folder / ROWS)["vectors"]), []
    for question, ids, n_prompt in work.rows:
        asked = explainer.placeholder in ids
        rows.append((question.with_vector(next(vectors)) if asked else question, ids, n_prompt))
    rows, pairs = with_other_vectors(rows)
    make_trainable(explainer, work.settings, work.seed)
    loss, path = loss_of(rows, work.settings, rank, n), work.folder / RESUME
    about = (work.settings, path, work.made_from, work.seed)
    fit(explainer, loss, work.steps, *about, {"v": pairs})


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
