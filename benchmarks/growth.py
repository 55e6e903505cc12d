"""How time and memory grow with the number of fact pairs, directions, tokens of the corpus, and
training rows: one figure."""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks import training
from benchmarks.timing import RESULTS, machine, peak_memory, seconds
from introspect_utils.data import facts, text
from introspect_utils.features.exemplars import find_exemplars
from introspect_utils.models.contexts import contexts
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import open_residuals, store_residuals
from introspect_utils.report import style
from introspect_utils.tasks import patching

SIZES = {
    "fact pairs": (2, 4, 8, 16),
    "directions": (512, 1024, 2048, 4096),
    "tokens of the corpus": (2048, 4096, 8192, 16_384),
}
SIZES |= {"training rows": (8, 16, 32, 64)}
LENGTH = 32


def patched(lm: LanguageModel, n: int) -> Callable:
    """The patching labels of n pairs, four blocks of layers, all positions."""
    everything = facts.load_facts("packaged")
    demonstrations = patching.choose_demonstrations(everything, 2, seed=0)
    pairs = facts.make_pairs(facts.sample_facts(everything, 2500, seed=0), n, seed=0)
    return lambda: list(
        patching.patch_outcomes(lm, pairs, demonstrations, with_options=False, known_only=False)
    )


def searched(lm: LanguageModel, n: int, directions: int = 512) -> Callable:
    """From a corpus of n tokens to the exemplars of that many directions of the middle layer."""
    corpus = contexts(lm, text.corpus_texts("packaged", 0), LENGTH, n // LENGTH)
    vectors, layer = (
        torch.randn(directions, lm.width, generator=torch.Generator().manual_seed(0)),
        lm.n_layers // 2,
    )

    def search() -> None:
        with TemporaryDirectory() as folder:
            store_residuals(lm, corpus, [layer], Path(folder), batch_size=32)
            find_exemplars(
                open_residuals(Path(folder), layer), corpus, vectors, n_top=8, n_random=2, seed=0
            )

    return search


def found(lm: LanguageModel, n: int) -> Callable:
    """The exemplars of n directions in residuals that are there: 8,192 tokens, drawn at random."""
    draw = torch.Generator().manual_seed(0)
    residuals, vectors = (
        torch.randn(256, LENGTH, lm.width, generator=draw),
        torch.randn(n, lm.width, generator=draw),
    )
    return lambda: find_exemplars(
        residuals, torch.zeros(256, LENGTH, dtype=torch.int64), vectors, n_top=8, n_random=2, seed=0
    )


WORK = {"fact pairs": patched, "directions": found, "tokens of the corpus": searched}
WORK |= {"training rows": lambda lm, n: training.compare(lm, n).ours}


def sweep(lm: LanguageModel, what: str, sizes: tuple[int, ...]) -> dict:
    """{n, seconds, mb (at most held, beyond what was held before), and the slopes of both on
    log-log axes}."""
    times, memory = [], []
    WORK[what](lm, sizes[0])()  # warms up
    for n in sizes:
        run = WORK[what](lm, n)
        before = peak_memory(lambda: None)[0]
        peak, (time, _) = peak_memory(partial(seconds, run))
        times.append(time)
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
        figure = Figure(figsize=(8, 3.8), layout="constrained")
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
