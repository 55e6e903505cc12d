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
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.distributed import TCPStore
from torch.multiprocessing import ProcessRaisedException, spawn

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import fit
from introspect_utils.explainer.question_model import Row
from introspect_utils.explainer.tuning import loss_of, make_trainable, with_other_vectors
from introspect_utils.settings.errors import UserError

HANDED_OVER = "handed_over"  # a folder beside the checkpoint, there while the processes are at work
ROWS = "rows.safetensors"
REFUSED = f"{UserError.__module__}.{UserError.__name__}: "


def train_together(explainer: Explainer, rows: list[Row], folder: Path, n: int, work: dict) -> None:
    """Train an explainer's files in `n` processes, as `fit` is told by `work`; what is trained is
    in the checkpoint of `folder` afterwards. Raises `UserError` as `fit` does, and when there are
    fewer GPUs than processes."""
    device, n_gpus = explainer.lm.device, torch.cuda.device_count()
    if device.type == "cuda" and n_gpus < n:
        raise UserError(f"training.processes is {n}, and this machine has {n_gpus} GPUs: lower it")
    explainer.save(folder / HANDED_OVER)
    vectors = [question.vector for question, _, _ in rows if question.vector is not None]
    vectors = torch.stack(vectors) if vectors else torch.zeros(0, 1)
    save_file({"vectors": vectors}, folder / HANDED_OVER / ROWS)
    explainer.to("cpu")
    torch.cuda.empty_cache()  # without a GPU nothing
    dtype = str(explainer.embed.weight.dtype).removeprefix("torch.")
    bare = [(replace(question, vector=None), *rest) for question, *rest in rows]
    store = meeting_place()
    try:
        spawn(_work, (n, store.port, device.type, dtype, bare, folder, work), nprocs=n)
    except ProcessRaisedException as error:
        last = str(error).strip().splitlines()[-1]
        raise UserError(last.removeprefix(REFUSED)) if last.startswith(REFUSED) else error from None
    explainer.to(device)
    shutil.rmtree(folder / HANDED_OVER)


def _work(
    rank: int, n: int, port: int, device: str, dtype: str, bare: list[Row], folder: Path, work: dict
) -> None:
    """One of `n` processes."""
    handed_over = folder / HANDED_OVER
    meet(rank, n, port)
    explainer = Explainer.load(handed_over, f"cuda:{rank}" if device == "cuda" else device, dtype)
    vectors, rows = iter(load_file(handed_over / ROWS)["vectors"]), []
    for question, ids, n_prompt in bare:
        asked = explainer.placeholder in ids
        rows.append((question.with_vector(next(vectors)) if asked else question, ids, n_prompt))
    rows, pairs = with_other_vectors(rows)
    make_trainable(explainer, work["settings"], work["seed"])
    loss = loss_of(rows, work["settings"], rank, n)
    fit(explainer, loss, **work, depends={"v": pairs})


def meeting_place() -> TCPStore:
    """Where processes find each other. The parent holds it, so that nothing else takes its port
    before the first of them is there, and it outlives whichever of them ends first."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def meet(rank: int, n: int, port: int) -> None:
    """Make this process the `rank`-th of `n` that meet at the port, for accelerate and torch."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_PORT": port}
    place |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ |= {name: str(value) for name, value in place.items()}
