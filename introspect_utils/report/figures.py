"""Pictures of single steps, shown in the notebook that asks for them; the tables' own figures are
in `result_figures`."""

from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from matplotlib.colors import LinearSegmentedColormap, to_hex

from introspect_utils.report import style
from introspect_utils.scores.metrics import estimate, wilson

PEAK = 10  # activations are binned 0..10
SHADES = LinearSegmentedColormap.from_list("active", ["#FFFFFF", style.SKY])


def _axes(width: float, height: float) -> plt.Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def closed(figure: plt.Figure) -> plt.Figure:
    """A figure that is shown once, as the value of a cell."""
    plt.close(figure)
    return figure


@style.STYLED
def facts_kept(asked: Sequence, kept: Sequence) -> None:
    """Per relation, how many facts the target was asked and how many it answered."""
    counts = {name: pd.Series([fact.relation for fact in facts]).value_counts()
              for name, facts in (("asked", asked), ("answered, and kept", kept))}  # fmt: skip
    table = pd.DataFrame(counts).fillna(0).sort_values("asked")
    axes = _axes(style.PAGE, 0.16 * len(table) + 0.8)
    table.plot.barh(ax=axes, color=[style.FAINT, style.BLUE], width=0.8, xlabel="facts", ylabel="")
    display(closed(axes.figure))


@style.STYLED
def patch_grid(rows: Sequence[dict]) -> None:
    """Figure 3B for one pair: the next token after patching each token of x (columns) at each block
    of layers (rows)."""
    import seaborn as sns  # here and below: it takes a second to load, with scipy.stats

    cells = pd.DataFrame(
        {
            "block": row["layer"][0],
            "layers": f"{row['layer'][0]}–{row['layer'][-1]}",
            "position": row["patch_position"]["orig_pos"],
            "token": row["patch_position"]["orig_text_token"],
            "said": repr(row["ablated_continuation"][0])[1:-1],
            "changed": float(row["is_different"]),
        }
        for row in rows
    )
    grid = cells.pivot(index=["block", "layers"], columns=["position", "token"])
    tokens, layers = grid["said"].columns.get_level_values(1), grid.index.get_level_values(1)
    axes = _axes(0.6 * len(tokens) + 1.2, 0.3 * len(layers) + 1)
    look = {"cmap": style.CHANGED, "vmin": 0, "vmax": 1, "cbar": False, "linewidths": 0.5}
    look |= {"annot": grid["said"].fillna("").to_numpy(), "fmt": "", "annot_kws": {"size": 7}}
    sns.heatmap(grid["changed"], ax=axes, xticklabels=tokens, yticklabels=layers, **look)
    before = rows[0]["original_continuation"][0]
    axes.set(xlabel="patched token of x", ylabel="layers of the block")
    axes.set_title(f"Next token after the patch (without it: {before!r}); shaded: changed")
    axes.tick_params(axis="y", rotation=0)
    display(closed(axes.figure))


@style.STYLED
def loss_curve(losses: Sequence[float]) -> None:
    """Cross-entropy per explanation token (eq. 1) at each step."""
    axes = _axes(style.COLUMN, 1.8)
    axes.plot(range(1, len(losses) + 1), losses, color=style.BLUE)
    axes.set(xlabel="training step", ylabel="loss (nats per token)", ylim=(0, None))
    display(closed(axes.figure))


@style.STYLED
def score_distribution(scores: Sequence[float], layers: Sequence[int]) -> plt.Figure:
    """Histograms of the description scores (eq. 2, -1..1) of n directions, a panel for each of
    their `layers` [n]; a line at the median."""
    import seaborn as sns

    data = pd.DataFrame({"score": np.asarray(scores, dtype=float), "layer": layers})
    look = {"bins": 20, "color": style.BLUE, "height": 1.3}
    grid = sns.displot(data, x="score", col="layer", col_wrap=5, **look)
    for layer, axes in grid.axes_dict.items():
        median = data.loc[data["layer"] == layer, "score"].median()
        axes.axvline(median, color=style.ORANGE, lw=1.2)
        axes.set_title(f"layer {layer} (median {median:.2f})")
    grid.set_axis_labels("score (mean r)", "directions")
    return closed(grid.figure)


@style.STYLED
def dictionary_quality(reports: Mapping[int, Mapping[str, float]]) -> plt.Figure:
    """Explained variance, active latents (L0) and dead latents of the dictionary of each layer;
    `reports`: layer -> its `dictionary_report`."""
    names = {"explained_variance": "explained variance", "l0": "latents active at once"}
    names |= {"dead": "share of dead latents"}
    table = pd.DataFrame(reports).T.sort_index()[list(names)].rename(columns=names)
    look = {"style": "o-", "color": style.BLUE, "legend": False, "xlabel": "layer", "ms": 3}
    shape = {"subplots": True, "layout": (1, 3), "figsize": (style.PAGE, 1.7)}
    panels = table.plot(**look, **shape, title=list(names.values()), xticks=table.index)
    for axes in panels[0]:
        axes.set_ylim(0, None)
    panels[0, 0].figure.set_layout_engine("constrained")
    return closed(panels[0, 0].figure)


@style.STYLED
def score_bars(scores: Mapping[str, Sequence[float]]) -> plt.Figure:
    """Mean simulator score of each of `scores` (name -> scores [n] of n directions; the first is
    what the others are baselines of), 95% bars."""
    axes = _axes(0.8 * len(scores) + 0.8, 2.2)
    for number, (name, values) in enumerate(scores.items()):
        mean = estimate(np.asarray(values, dtype=float)[None])
        look = {"color": style.GREY if number else style.BLUE, "capsize": 3, "width": 0.65}
        axes.bar(name.replace(" ", "\n"), mean.value, yerr=mean.value - mean.low, **look)
    axes.axhline(0, color=style.BLACK, lw=0.6)
    axes.set_ylabel("simulator score (mean correlation), 95%")
    return closed(axes.figure)


@style.STYLED
def calibration_plot(predicted: np.ndarray, true: np.ndarray) -> plt.Figure:
    """Mean true activation against the predicted one, both 0..10 and [m, k, T] (directions,
    exemplars, tokens), in steps of one. Bars: 95%. Grey columns: share of the tokens in a step."""
    steps = calibration(predicted, true)
    axes = _axes(style.COLUMN, 2.8)
    behind = axes.twinx()
    behind.bar(steps["value"], 100 * steps["n"] / steps["n"].sum(), color=style.FAINT, width=0.8)
    behind.set(ylabel="tokens, %", ylim=(0, 100))
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot([0, PEAK], [0, PEAK], color=style.GREY, lw=0.8, ls="--")
    look = {"fmt": "o", "color": style.BLUE, "ms": 3.5, "capsize": 2, "lw": 1}
    axes.errorbar(steps["predicted"], steps["true"], yerr=1.96 * steps["stderr"], **look)
    axes.set(xlabel="predicted activation", ylabel="mean true activation")
    return closed(axes.figure)


def calibration(predicted: np.ndarray, true: np.ndarray) -> pd.DataFrame:
    """For each rounded prediction 0..10 (`value`) that occurs: mean `predicted`, mean `true`, its
    `stderr`, number of tokens `n`.

    `predicted`, `true`: [m, k, T], of m directions. Tokens of one direction are alike, so the error
    is that of a mean over m clusters (0 where only one direction has such tokens), not over tokens.
    """
    flat = {"predicted": np.ravel(predicted).astype(float), "true": np.ravel(true).astype(float)}
    tokens = pd.DataFrame(flat | {"cluster": np.repeat(range(len(true)), np.size(true[0]))})
    steps = []
    for value, step in tokens.groupby(tokens["predicted"].round().astype(int)):
        mean = estimate(step["true"].to_numpy()[None], step["cluster"])
        steps.append((value, step["predicted"].mean(), mean.value, mean.stderr or 0.0, len(step)))
    return pd.DataFrame(steps, columns=["value", "predicted", "true", "stderr", "n"])


@style.STYLED
def hints_followed(cells: Mapping[str, Sequence[dict]]) -> plt.Figure:
    """How often the answer becomes the hint's letter where the hint names another, in MMLU's four
    areas, for questions that the target answers right and wrong without it; 95% bars.

    `cells`: target -> the cells of `tasks.ablation.followed`; a panel for each target.
    """
    import seaborn as sns

    areas = {name: area for area, names in style.WORDS["areas"].items() for name in names.split()}
    rows = []
    for target, cell in ((target, cell) for target, found in cells.items() for cell in found):
        answers = [100] * cell["followed"] + [0] * (cell["n"] - cell["followed"])
        right, area = "right" if cell["right"] else "wrong", areas.get(cell["subject"], "other")
        rows += [(target, right, a, answer) for a in ("all", area) for answer in answers]
    asked = pd.DataFrame(rows, columns=["target", "without the hint", "area", "followed"])
    look = {"linestyle": "none", "dodge": 0.45, "markers": ["o", "s"], "markersize": 4}
    look |= {"palette": [style.BLUE, style.ORANGE], "hue_order": ["right", "wrong"]}
    look |= {"err_kws": {"lw": 1}, "order": ["all", *style.WORDS["areas"], "other"]}
    grid = sns.catplot(
        asked, x="followed", y="area", hue="without the hint", col="target", kind="point",
        errorbar=lambda x: [100 * end for end in wilson(int(x.sum() / 100), len(x))[1:]], **look,
    )  # fmt: skip
    shares = asked[asked["area"] == "all"].groupby("target")["followed"].mean()
    followed = ", ".join(f"{target} {share:.0f}%" for target, share in shares.items())
    grid.set(xlim=(-2, 102)).set_titles("{col_name}")
    grid.set_axis_labels("% of questions; bars: 95%", "")
    title = f"How often a hint to another letter is followed: {followed}"
    grid.figure.suptitle(title, x=0.01, ha="left", weight="bold")
    grid.figure.set(size_inches=(style.PAGE, 2.1), layout_engine="constrained")
    sns.move_legend(grid, "outside lower center", ncols=2)
    return closed(grid.figure)


def shaded(tokens: Sequence[str], values: Sequence[float]) -> str:
    """Tokens as HTML, shaded by their activations: white is 0, sky blue PEAK (one hue, which every
    kind of colour vision can read). A token's number shows when the pointer rests on it."""
    spans = []
    for token, value in zip(tokens, map(float, values), strict=True):
        colour = to_hex(SHADES(min(max(value / PEAK, 0.0), 1.0)))
        shown = escape(token.replace("\n", "⏎"))
        spans.append(f'<span style="background:{colour}" title="{value:.1f}">{shown}</span>')
    return f'<span style="white-space:pre-wrap;color:#000">{"".join(spans)}</span>'


def token_html(
    description: str,
    tokens: Sequence[Sequence[str]],
    true: np.ndarray,
    simulated: np.ndarray,
    score: float | None = None,
) -> HTML:
    """A description over its k exemplars (T token strings each), each twice: shaded by the `true`,
    then by the `simulated` activation, both [k, T] and 0..10."""
    html = f"<b>{escape(description)}{'' if score is None else f' ({score:.2f})'}</b>"
    for texts, *both in zip(tokens, true, simulated, strict=True):
        for name, values in zip(("true", "simulated"), both, strict=True):
            label = f'<span style="display:inline-block;width:6em">{name}</span>'
            html += f"<div>{label}{shaded(texts, values)}</div>"
    box = "background:#fff;color:#000;font-size:90%;line-height:1.7;padding:4px"
    return HTML(f'<div style="{box}">{html}</div>')
