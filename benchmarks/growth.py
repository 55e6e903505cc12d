"""How time and memory grow with the number of fact pairs, directions, tokens of the corpus,
training rows and test rows: one figure. Directions, tokens and test rows go to 100 times those of
`small`; their numbers are made up."""

import argparse
import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks import training
from benchmarks.timing import RESULTS, give_back, machine, seconds
from introspect_utils.data import facts
from introspect_utils.features.exemplars import find_exemplars
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import open_residuals
from introspect_utils.report import style
from introspect_utils.scores.metrics import estimate, f1_rows
from introspect_utils.tasks import patching

SIZES = {
    "fact pairs": (8, 32, 128),
    "directions": (1000, 10_000, 100_000),
    "tokens of the corpus": (320_000, 3_200_000, 32_000_000),
    "training rows": (8, 16, 32, 64),
    "test rows": (600, 6000, 60_000),
}
LENGTH = 32
LOOK = 0.01  # seconds between two looks at the memory


def patched(lm: LanguageModel, n: int) -> Callable:
    """The patching labels of n pairs, four blocks of layers, all positions."""
    everything = facts.load_facts("packaged")
    demonstrations = patching.choose_demonstrations(everything, 2, seed=0)
    pairs = facts.make_pairs(facts.sample_facts(everything, 2500, seed=0), n, seed=0)
    return lambda: list(
        patching.patch_outcomes(lm, pairs, demonstrations, with_options=False, known_only=False)
    )


def searched(lm: LanguageModel, n: int, directions: int = 64) -> Callable:
    """The exemplars of that many directions in a memory map of n tokens' residuals. All but the
    first block of the file is a hole, which is read as zeros and takes no room on the disk."""
    vectors = torch.randn(directions, lm.width, generator=torch.Generator().manual_seed(0))
    shape = (n // LENGTH, LENGTH, lm.width)

    def search() -> None:
        with TemporaryDirectory() as folder:
            raw, described = Path(folder) / "layer0.bf16", Path(folder) / "layer0.json"
            raw.write_bytes(torch.randn(shape[1:]).bfloat16().view(torch.int16).numpy().data)
            os.truncate(raw, 2 * math.prod(shape))
            described.write_text(json.dumps({"shape": shape}))
            h = open_residuals(Path(folder), 0)
            tokens = torch.zeros(1, dtype=torch.int64).expand(shape[:2])
            find_exemplars(h, tokens, vectors, n_top=8, n_random=2, seed=0)

    return search


def found(lm: LanguageModel, n: int) -> Callable:
    """The exemplars of n directions in the residuals of 8,192 tokens, drawn at random."""
    draw = torch.Generator().manual_seed(0)
    residuals, vectors = (
        torch.randn(256, LENGTH, lm.width, generator=draw),
        torch.randn(n, lm.width, generator=draw),
    )
    return lambda: find_exemplars(
        residuals, torch.zeros(256, LENGTH, dtype=torch.int64), vectors, n_top=8, n_random=2, seed=0
    )


def scored(lm: LanguageModel, n: int) -> Callable:
    """Has-changed F1 of n test rows and two seeds, its error by clusters of three rows."""
    truth, *said = np.random.default_rng(0).integers(0, 2, (3, n))
    return lambda: estimate(f1_rows(truth, np.stack(said)), np.arange(n) // 3)


WORK = {
    "fact pairs": patched,
    "directions": found,
    "tokens of the corpus": searched,
    "training rows": lambda lm, n: training.compare(lm, n).ours,
    "test rows": scored,
}


def most_held(run: Callable[[], Any]) -> tuple[float, Any]:
    """(MB of its own that the process holds at most while `run` runs, what it gives). Pages of a
    memory map do not count: the system takes them back when it needs room. Linux only."""
    give_back()
    done, looks = threading.Event(), []

    def look() -> None:
        status = Path("/proc/self/status").read_text()
        looks.append(int(status.partition("RssAnon:")[2].split()[0]) / 1024)

    def watch() -> None:
        while not done.wait(LOOK):
            look()

    look()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output = run()
    finally:
        done.set()
        watcher.join()
    look()
    return max(looks), output


def sweep(lm: LanguageModel, what: str, sizes: tuple[int, ...]) -> dict:
    """{n, seconds, mb (at most held, beyond what was held before), and the slopes of both on
    log-log axes}."""
    times, memory = [], []
    WORK[what](lm, sizes[0])()  # warms up
    for n in sizes:
        run = WORK[what](lm, n)
        before = most_held(lambda: None)[0]
        peak, (took, _) = most_held(partial(seconds, run))
        times.append(took)
        memory.append(max(1.0, peak - before))
    return {
        "n": sizes,
        "seconds": times,
        "mb": memory,
        "slope": slope(sizes, times),
        "slope_mb": slope(sizes, memory),
    }


def slope(n, y) -> float:
    """Of the least-squares line through log y over log n: 1 is proportional to n, 0 does not
    grow."""
    x, y = [math.log(value) for value in n], [math.log(value) for value in y]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum(
        (a - x_mean) ** 2 for a in x
    )


def panels(found: dict[str, dict]) -> Iterator[tuple[int, str, str, dict]]:
    """(row, y, name of the slope, sweep) for each panel, column by column."""
    for of_sweep in found.values():
        yield from (
            (row, y, name, of_sweep)
            for row, (y, name) in enumerate((("seconds", "slope"), ("mb", "slope_mb")))
        )


def draw(found: dict[str, dict]) -> Figure:
    """Above time, below memory, a column for each sweep, log-log, the slope in the title."""
    with matplotlib.rc_context(style.SETTINGS):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        grid = figure.subplots(2, len(found), sharex="col")
        for number, (row, y, name, of_sweep) in enumerate(panels(found)):
            axes = grid[row, number // 2]
            axes.loglog(of_sweep["n"], of_sweep[y], "o-", color=style.BLUE, ms=3.5, lw=1)
            axes.set_title(f"slope {of_sweep[name]:.2f}")
            axes.set_xticks(of_sweep["n"], [f"{n:,}" for n in of_sweep["n"]], minor=False)
            axes.set_ylim(min(of_sweep[y]) / 1.5, max(of_sweep[y]) * 1.5)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_locator(NullLocator())
        for axes, what in zip(grid[1], found, strict=True):
            axes.set_xlabel(what)
        grid[0, 0].set_ylabel("seconds")
        grid[1, 0].set_ylabel("MB beyond the start")
    return figure


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    model = load_model("smollm2-135m-instruct", "cpu", "float32")
    sweeps = {what: sweep(model, what, sizes) for what, sizes in SIZES.items()}
    for what, of_sweep in sweeps.items():
        print(
            f"{what}: time grows as n^{of_sweep['slope']:.2f}, memory as "
            f"n^{of_sweep['slope_mb']:.2f}"
        )
    (RESULTS / "growth.json").write_text(
        json.dumps({"name": "growth", "sweeps": sweeps} | machine(), indent=1) + "\n"
    )
    style.save_figure(draw(sweeps), RESULTS, "growth")
