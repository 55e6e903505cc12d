"""Training across processes: a step's rows are divided among them, and the losses are those of one
process.

The process of the notebook hands the explainer and its rows over as files, leaves the GPU, starts
the processes, and reads back the checkpoint that they leave (`training.RESUME`), which is the one
that it would have written itself. So a run may be cut short with one number of processes and go on
with another.

With DDP each process holds all weights, with FSDP2 its share of them. In their checkpoints tensors
are whole.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate.state import PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.multiprocessing import ProcessRaisedException, spawn
from transformers.modeling_layers import GradientCheckpointingLayer

from introspect_utils.explainer.explainer import Explainer, Projection
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import Training
from introspect_utils.tasks.question import Question

HANDED_OVER = "handed_over"  # a folder beside the checkpoint, there while the processes are at work
ROWS, VECTORS = "rows.parquet", "rows.safetensors"
REFUSED = f"{UserError.__module__}.{UserError.__name__}: "


def hand_over(
    explainer: Explainer, rows: Sequence[tuple[Question, list[int], int]], folder: Path
) -> None:
    """Write an explainer before its training, and the rows (question, ids, length of the prompt)
    that it is trained on."""
    explainer.save(folder / HANDED_OVER)
    columns = {
        "ids": [ids for _, ids, _ in rows],
        "n_prompt": [n_prompt for _, _, n_prompt in rows],
        "layers": [question.layers for question, _, _ in rows],
        "has_vector": [question.vector is not None for question, _, _ in rows],
    }
    pq.write_table(pa.table(columns), folder / HANDED_OVER / ROWS)
    vectors = [question.vector for question, _, _ in rows if question.vector is not None]
    save_file(
        {"vectors": torch.stack(vectors) if vectors else torch.zeros(0, 1)},
        folder / HANDED_OVER / VECTORS,
    )


def handed_over(
    folder: Path, device: str, dtype: str
) -> tuple[Explainer, list[tuple[Question, list[int], int]]]:
    """What `hand_over` wrote; of a question only what training needs."""
    explainer = Explainer.load(folder / HANDED_OVER, device, dtype)
    vectors = iter(load_file(folder / HANDED_OVER / VECTORS)["vectors"])
    return explainer, [
        (
            Question("", next(vectors) if row["has_vector"] else None, tuple(row["layers"])),
            row["ids"],
            row["n_prompt"],
        )
        for row in pq.read_table(folder / HANDED_OVER / ROWS).to_pylist()
    ]


def train(
    explainer: Explainer,
    steps: list[list[int]],
    settings: Training,
    folder: Path,
    made_from: str,
    seed: int,
) -> None:
    """Train what was handed over in `settings.processes` processes, from the weights that the
    explainer has now, or from the checkpoint of a run cut short; what is trained ends in the
    checkpoint.

    Raises `UserError` when there are fewer GPUs than processes, or as `training.fit` does.
    """
    from introspect_utils.explainer.checkpoints import RESUME, checkpoint, own_checkpoint
    from introspect_utils.explainer.train import trainable

    device = explainer.lm.device
    if device.type == "cuda" and torch.cuda.device_count() < settings.processes:
        raise UserError(
            f"training.processes is {settings.processes}, and this machine has "
            f"{torch.cuda.device_count()} GPUs: lower it"
        )
    if own_checkpoint(folder / RESUME, made_from) is None:
        checkpoint(folder / RESUME, trainable(explainer), {}, [], 0.0, made_from)
    dtype = str(explainer.embed.weight.dtype).removeprefix("torch.")
    explainer.to("cpu")
    torch.cuda.empty_cache()  # without a GPU nothing
    try:
        work = (folder, device.type, dtype, _free_port(), steps, settings, made_from, seed)
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
    from introspect_utils.explainer.checkpoints import RESUME
    from introspect_utils.explainer.train import fit, loss_of, make_trainable

    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": settings.processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in place.items()}
    explainer, rows = handed_over(folder, f"cuda:{rank}" if device == "cuda" else device, dtype)
    make_trainable(explainer, settings, seed)
    loss = loss_of(rows, settings, rank, settings.processes)
    fit(explainer, loss, steps, settings, folder / RESUME, made_from, seed)


def sharding(module: nn.Module) -> FullyShardedDataParallelPlugin:
    """FSDP2 with a unit for each decoder layer, one for the projection, and one for the rest."""
    units = {
        type(part).__name__
        for part in module.modules()
        if isinstance(part, (GradientCheckpointingLayer, Projection))
    }
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=sorted(units),
        cpu_ram_efficient_loading=False,  # each process has read the whole explainer
    )


def whole(tensor: Tensor) -> Tensor:
    """A tensor as a file holds it; to be asked for by all processes that share it, and empty in all
    but the first."""
    if not isinstance(tensor, DTensor):
        return tensor.contiguous()
    full = tensor.full_tensor()
    return full.cpu() if PartialState().is_main_process else full.new_empty(0)


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor where `like` is: on its device, or divided as it is."""
    tensor = tensor.to(like.device)
    return (
        distribute_tensor(tensor, like.device_mesh, like.placements)
        if isinstance(like, DTensor)
        else tensor
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
