"""Training across processes: a step's rows are divided among them, and the losses are those of one
process.

The notebook's process writes the explainer and its rows to files, leaves the GPU, starts the
processes, and reads the checkpoint that they leave. It is the one that a single process would have
written, so an interrupted run may go on with another number of processes. With DDP each process
holds all weights, with FSDP2 its share of them.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing import ProcessRaisedException, spawn

from introspect_utils.explainer.checkpoints import RESUME, checkpoint, own_checkpoint
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import fit
from introspect_utils.explainer.lora import make_trainable, trainable
from introspect_utils.explainer.question_model import Row
from introspect_utils.explainer.steps import loss_of, with_other_vectors
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training
from introspect_utils.tasks.question import Question

HANDED_OVER = "handed_over"  # a folder beside the checkpoint, there while the processes are at work
ROWS, VECTORS = "rows.parquet", "rows.safetensors"
REFUSED = f"{UserError.__module__}.{UserError.__name__}: "


def hand_over(explainer: Explainer, rows: list[Row], folder: Path, processes: int) -> None:
    """Write an explainer before its training, and its training rows; then leave the GPU.

    Raises `UserError` when there are fewer GPUs than processes.
    """
    if explainer.lm.device.type == "cuda" and torch.cuda.device_count() < processes:
        raise UserError(
            f"training.processes is {processes}, and this machine has "
            f"{torch.cuda.device_count()} GPUs: lower it"
        )
    explainer.save(folder / HANDED_OVER)
    columns = {
        "ids": [ids for _, ids, _ in rows],
        "n_prompt": [n_prompt for _, _, n_prompt in rows],
        "layers": [question.layers for question, _, _ in rows],
        "has_vector": [question.vector is not None for question, _, _ in rows],
    }
    pq.write_table(pa.table(columns), folder / HANDED_OVER / ROWS)
    vectors = [question.vector for question, _, _ in rows if question.vector is not None]
    vectors = torch.stack(vectors) if vectors else torch.zeros(0, 1)
    save_file({"vectors": vectors}, folder / HANDED_OVER / VECTORS)
    explainer.to("cpu")
    torch.cuda.empty_cache()  # without a GPU nothing


def handed_over(folder: Path, device: str, dtype: str) -> tuple[Explainer, list[Row]]:
    """What `hand_over` wrote; of a question only what training needs."""
    explainer = Explainer.load(folder / HANDED_OVER, device, dtype)
    vectors = iter(load_file(folder / HANDED_OVER / VECTORS)["vectors"])
    rows = []
    for row in pq.read_table(folder / HANDED_OVER / ROWS).to_pylist():
        v = next(vectors) if row["has_vector"] else None
        rows.append((Question("", v, tuple(row["layers"])), row["ids"], row["n_prompt"]))
    return explainer, rows


def train_together(
    explainer: Explainer,
    steps: list[list[int]],
    settings: Training,
    folder: Path,
    made_from: str,
    seed: int,
    device: torch.device,
) -> None:
    """Train what was handed over, from the explainer's weights or from the checkpoint of an
    interrupted run; what is trained is in the checkpoint afterwards. Raises `UserError` as `fit`
    does."""
    if own_checkpoint(folder / RESUME, made_from) is None:
        checkpoint(folder / RESUME, trainable(explainer), {}, [], 0.0, made_from)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dtype = str(explainer.embed.weight.dtype).removeprefix("torch.")
    try:
        work = (folder, device.type, dtype, port, steps, settings, made_from, seed)
        spawn(_work, work, nprocs=settings.processes)
    except ProcessRaisedException as error:
        last = str(error).strip().splitlines()[-1]
        raise UserError(last.removeprefix(REFUSED)) if last.startswith(REFUSED) else error from None
    explainer.to(device)
    shutil.rmtree(folder / HANDED_OVER)


def _work(
    rank: int,
    folder: Path,
    device: str,
    dtype: str,
    port: int,
    steps: list[list[int]],
    settings: Training,
    made_from: str,
    seed: int,
) -> None:
    """One of the processes."""
    n = settings.processes
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    explainer, rows = handed_over(folder, f"cuda:{rank}" if device == "cuda" else device, dtype)
    rows, pairs = with_other_vectors(rows)
    make_trainable(explainer, settings, seed)
    loss = loss_of(rows, settings, rank, n)
    fit(explainer, loss, steps, settings, folder / RESUME, made_from, seed, {"v": pairs})
