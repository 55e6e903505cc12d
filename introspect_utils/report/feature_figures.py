"""Pictures of feature descriptions for the notebooks: dictionaries, scores, simulator. Tables 1 and
4 are in feature_report."""

from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML

from introspect_utils.report import style
from introspect_utils.scores.metrics import mean_score

PEAK = 10  # activations are binned 0..10
QUALITY = {
    "explained_variance": "explained variance",
    "l0": "latents active at once",
    "dead": "share of dead latents",
}


def score_distribution(scores: Sequence[float], layers: Sequence[int]) -> plt.Figure:
    """Histograms of the description scores (eq. 2, -1..1) of n directions, a panel for each of
    their `layers` [n]; a line at the median."""
    scores, layers = np.asarray(scores, dtype=float), np.asarray(layers)
    shown = sorted(set(layers.tolist()))
    columns = min(len(shown), 5)
    lines = -(-len(shown) // columns)
    bins = np.histogram_bin_edges(scores, bins=20)
    with plt.rc_context(style.SETTINGS):
        size = (1.7 * columns + 0.8, 1.5 * lines + 0.4)
        figure, grid = plt.subplots(
            lines,
            columns,
            figsize=size,
            layout="constrained",
            squeeze=False,
            sharex=True,
            sharey=True,
        )
        for ax, layer in zip(grid.flat, shown, strict=False):
            of_layer = scores[layers == layer]
            ax.hist(of_layer, bins=bins, color=style.BLUE)
            ax.axvline(np.median(of_layer), color=style.ORANGE, lw=1.2)
            ax.tick_params(labelbottom=True)
            ax.set_title(f"layer {layer} (median {np.median(of_layer):.2f})", fontsize=8)
        for ax in grid.flat[len(shown) :]:
            ax.set_axis_off()
        figure.supxlabel("score of the description (mean correlation)", fontsize=8)
        figure.supylabel("directions", fontsize=8)
    plt.close(figure)  # shown once, as the value of a cell
    return figure


def dictionary_quality(reports: Mapping[int, Mapping[str, float]]) -> plt.Figure:
    """Explained variance, active latents (L0) and dead latents of the dictionary of each layer;
    `reports`: layer -> its `dictionary_report`."""
    layers = sorted(reports)
    with plt.rc_context(style.SETTINGS):
        figure, panels = plt.subplots(1, len(QUALITY), figsize=(7.2, 2), layout="constrained")
        for ax, (name, label) in zip(panels, QUALITY.items(), strict=True):
            ax.plot(
                layers, [reports[layer][name] for layer in layers], "o-", color=style.BLUE, ms=4
            )
            ax.set(
                title=label, xlabel="layer", xticks=layers, ylim=(0, None if name == "l0" else 1.02)
            )
            ax.grid(axis="y", lw=0.4, alpha=0.5)
    plt.close(figure)
    return figure


def score_bars(
    scores: Mapping[str, Sequence[float]], ylabel: str = "simulator score (mean correlation)"
) -> plt.Figure:
    """Mean of each of `scores` (name -> scores [n] of n directions; the first is what the others
    are baselines of), 95% bars."""
    with plt.rc_context(style.SETTINGS):
        figure, ax = plt.subplots(figsize=(0.95 * len(scores) + 1.2, 2.6), layout="constrained")
        for x, (name, values) in enumerate(scores.items()):
            mean, stderr = mean_score(np.asarray(values, dtype=float)[None])
            ax.bar(
                x,
                mean,
                yerr=1.96 * stderr,
                color=style.GREY if x else style.BLUE,
                capsize=3,
                width=0.65,
                label=name,
            )
        ax.axhline(0, color=style.BLACK, lw=0.6)
        ax.set_xticks(range(len(scores)), [name.replace(" ", "\n") for name in scores])
        ax.set_ylabel(f"{ylabel}, 95%")
    plt.close(figure)
    return figure


def calibration_plot(predicted: np.ndarray, true: np.ndarray) -> plt.Figure:
    """Mean true activation against the predicted one, both 0..10 and [m, k, T] (directions,
    exemplars, tokens), in steps of one.

    Bars: 95%, the tokens of a direction taken together (`calibration`). Grey columns: share of the
    tokens in each step.
    """
    steps = calibration(predicted, true)
    with plt.rc_context(style.SETTINGS):
        figure, ax = plt.subplots(figsize=(3.6, 3.2), layout="constrained")
        share = [100 * step["n"] / sum(step["n"] for step in steps) for step in steps]
        behind = ax.twinx()
        behind.bar([step["value"] for step in steps], share, color=style.FAINT, width=0.8)
        behind.set(ylabel="tokens, %", ylim=(0, 100))
        behind.spines["right"].set_visible(True)
        ax.set_zorder(behind.get_zorder() + 1)
        ax.patch.set_visible(False)
        ax.plot([0, PEAK], [0, PEAK], color=style.GREY, lw=0.8, ls="--")
        means = ([step[name] for step in steps] for name in ("predicted", "true"))
        ax.errorbar(
            *means,
            yerr=[1.96 * step["stderr"] for step in steps],
            fmt="o",
            color=style.BLUE,
            ms=4,
            capsize=2,
            lw=1.2,
        )
        ax.set(
            xlabel="predicted activation",
            ylabel="mean true activation",
            xlim=(-0.6, PEAK + 0.6),
            ylim=(-0.6, PEAK + 0.6),
        )
    plt.close(figure)
    return figure


def calibration(predicted: np.ndarray, true: np.ndarray) -> list[dict[str, float]]:
    """For each rounded prediction 0..10 that occurs: mean prediction, mean true value, its standard
    error, number of tokens.

    `predicted`, `true`: [m, k, T], of m directions. Tokens of one direction are alike, so the error
    is that of a mean over m clusters (0 where only one direction has such tokens), not over tokens.
    """
    predicted, true = (
        np.asarray(values, dtype=float).reshape(len(values), -1) for values in (predicted, true)
    )
    steps = []
    for value in range(PEAK + 1):
        where = np.round(predicted) == value  # [m, k * T]
        n, clusters = int(where.sum()), int(where.any(axis=1).sum())
        if n:
            mean = true[where].mean()
            residuals = ((true - mean) * where).sum(axis=1)  # [m]
            stderr = (
                np.sqrt((residuals**2).sum() * clusters / (clusters - 1)) / n
                if clusters > 1
                else 0.0
            )
            means = {"predicted": float(predicted[where].mean()), "true": float(mean)}
            steps.append({"value": value, **means, "stderr": float(stderr), "n": n})
    return steps


def token_html(
    description: str,
    tokens: Sequence[Sequence[str]],
    true: np.ndarray,
    simulated: np.ndarray,
    score: float | None = None,
) -> HTML:
    """A description over its exemplars, each twice: tokens shaded by the true activation, then by
    the simulated one.

    `tokens`: k texts as T token strings each; `true`, `simulated`: [k, T], 0..10. White is 0, sky
    blue 10: one hue of falling lightness, which every kind of colour vision can read; a token's
    numbers show when the pointer rests on it.
    """
    head = escape(description) + ("" if score is None else f" ({score:.2f})")
    lines = []
    for texts, *both in zip(tokens, true, simulated, strict=True):
        for name, values in zip(("true", "simulated"), both, strict=True):
            spans = "".join(
                _span(text, float(value)) for text, value in zip(texts, values, strict=True)
            )
            lines.append(
                f'<div style="white-space:pre-wrap"><span style="{_NAME}">{name}</span>{spans}</div>'
            )
    return HTML(f'<div style="{_BOX}"><b>{head}</b>{"".join(lines)}</div>')


_BOX = (
    "background:#ffffff;color:#000000;font-size:90%;line-height:1.7;padding:4px;margin-bottom:8px"
)
_NAME = "display:inline-block;width:6em;color:#666666"


def _span(text: str, value: float) -> str:
    """One token, its line breaks visible; its background between white (0) and sky blue (10), on
    which black text can be read."""
    share = min(max(value / PEAK, 0.0), 1.0)
    sky = (int(style.SKY[i : i + 2], 16) for i in (1, 3, 5))
    colour = "".join(f"{round(255 + share * (part - 255)):02x}" for part in sky)
    shown = escape(text.replace("\n", "⏎"))
    return f'<span style="background:#{colour}" title="{value:.1f}">{shown}</span>'
