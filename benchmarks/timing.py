"""What the comparisons share: ours and its peers in turn, on outputs that are checked equal, and
the floor under ours."""

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.products import linear
from introspect_utils.models.residual import decoder_layers
from introspect_utils.runs.record import commit
from introspect_utils.settings.paths import replaced

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "transformer-lens",
    "nnsight",
    "eai-delphi",
    "faiss-cpu",
)
SIDE = 1536  # of the matrices whose product is timed


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, what `run` gives). On one thread they are the processor's, which other runs on the
    machine do not lengthen."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    output = run()
    return clock() - start, output


def give_back() -> None:
    """What earlier runs freed goes back to the system."""
    ctypes.CDLL(None).malloc_trim(0)


def peak_memory(run: Callable[[], Any]) -> tuple[float, Any]:
    """(MB that the process holds at most while `run` runs, what it gives). What it held before
    counts too. Linux only."""
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    output = run()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024, output


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@dataclass(frozen=True)
class Peer:
    """Another way to our outputs, or to the first `n` units of them. `target`: the ratio that ours
    is to reach.

    `check(ours, its)` raises AssertionError where outputs differ; `package`: the module that must
    be installed.
    """

    name: str
    run: Callable[[], Any]
    n: int
    target: float
    check: Callable[[Any, Any], None]
    package: str = ""

    @property
    def installed(self) -> bool:
        return not self.package or installed(self.package)


@dataclass(frozen=True)
class Comparison:
    """`ours()` does `n` units of work, whose matrix products need `macs` multiply-adds whatever the
    program, in `dtype`."""

    name: str
    unit: str
    ours: Callable[[], Any]
    n: int
    peers: Sequence[Peer]
    macs: float = 0.0
    measure: Callable[[Callable[[], Any]], tuple[float, Any]] = seconds
    dtype: str = "float32"


def turn(comparison: Comparison) -> dict[str, float]:
    """One run of ours and of every peer that is installed, outputs checked: {name: cost of a unit
    (seconds, or MB)}."""
    cost, ours = comparison.measure(comparison.ours)
    costs = {"ours": cost / comparison.n}
    for peer in comparison.peers:
        if peer.installed:
            cost, its = comparison.measure(peer.run)
            peer.check(ours, its)
            costs[peer.name] = cost / peer.n
    return costs


@torch.no_grad()
def products_per_second(dtype: str = "float32") -> float:
    """Multiply-adds a second of a large matrix product, on the threads that torch has: the best of
    five."""
    a, b = torch.randn(2, SIDE, SIDE).to(getattr(torch, dtype))
    return SIDE**3 / min(seconds(lambda: linear(a, b))[0] for _ in range(5))


def decoder_macs(
    lm: LanguageModel, tokens: float, n_layers: int | None = None, logits: float = 0
) -> float:
    """Multiply-adds of `tokens` through n layers (all, if None) and `logits` of them through the
    head; attention is left out."""
    layers = decoder_layers(lm.model)[:n_layers]
    weights = sum(
        p.numel() for name, p in layers.named_parameters() if p.dim() == 2 and "lora_" not in name
    )
    return tokens * weights + logits * lm.model.get_output_embeddings().weight.numel()


def measure(comparison: Comparison, rounds: int) -> dict:
    """The record of a comparison: what is in its result file."""
    turns, rates = [], []
    for _ in range(rounds):
        rates.append(products_per_second(comparison.dtype))
        turns.append(turn(comparison))
    cost = statistics.median(costs["ours"] for costs in turns)
    floor = comparison.macs / statistics.median(rates) / comparison.n
    peers = []
    for peer in comparison.peers:
        row = {"peer": peer.name, "target": peer.target, "n": peer.n}
        if peer.installed:
            ratios = [costs[peer.name] / costs["ours"] for costs in turns]
            row |= {
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
            row["cost"] = statistics.median(costs[peer.name] for costs in turns)
        peers.append(row)
    record = {
        "name": comparison.name,
        "unit": comparison.unit,
        "n": comparison.n,
        "rounds": rounds,
        "ours": cost,
        "peers": peers,
    }
    record |= {
        "measure": comparison.measure.__name__,
        "dtype": comparison.dtype,
        "floor": floor,
        "share_of_floor": floor / cost if floor else None,
    }
    return record | {"products_per_second": statistics.median(rates)} | machine()


def machine() -> dict:
    """Where and when it was measured, and with what."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").open()
        if line.startswith("model name")
    )
    threads, others = (
        torch.get_num_threads(),
        max(0.0, os.getloadavg()[0] - torch.get_num_threads()),
    )
    about = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "load_of_others": round(others, 1),
    }
    return about | {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "versions": versions,
    }


def main(
    compare: Callable[[LanguageModel, int], Comparison], n: int, check: int, unit: str
) -> None:
    """The command line of a comparison: a run of size `check` to check outputs and warm up, timed
    ones of size `n`, the file."""
    parser = argparse.ArgumentParser(description=compare.__doc__)
    parser.add_argument(f"--{unit}", dest="n", type=int, default=n, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    lm = load_model("smollm2-135m-instruct", "cpu", "float32")
    turn(compare(lm, min(check, arguments.n)))
    save(measure(compare(lm, arguments.n), arguments.rounds))


def save(record: dict) -> None:
    """Print a record and write its result file."""
    for row in record["peers"]:
        name, target = f"{record['name']}, {row['peer']}", row["target"]
        said = (
            f"{row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
            if "ratio" in row
            else "not installed"
        )
        print(f"{name}: {said}, to reach {target}")
    RESULTS.mkdir(exist_ok=True)
    with replaced(RESULTS / f"{record['name']}.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
