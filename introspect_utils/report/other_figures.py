"""How often hints are followed, and Table 3 as a matrix, from the records of `results.json`. A
function gives None where there is nothing to show."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from introspect_utils.report import result_figures as plot
from introspect_utils.report import style
from introspect_utils.report.figures import hints_followed
from introspect_utils.report.paper import PATCHING_METRICS as OUTCOMES


def figure_ablation(records: list[dict]) -> Figure | None:
    """`figures.hints_followed` from records."""
    cells: dict[str, list[dict]] = {}
    for r in (r for r in records if r["table"] == "hints"):
        subject, right = r["condition"].rsplit(" / ", 1)
        cell = {"subject": subject, "right": right == "right", "n": r["n"]}
        cells.setdefault(r["target"], []).append(cell | {"followed": round(r["value"] * r["n"])})
    return hints_followed(cells) if cells else None


@style.STYLED
def figure_matrix(records: list[dict]) -> Figure | None:
    """Table 3 as a matrix, targets × explainers, where there are two targets or more."""
    cells = pd.DataFrame([r for r in records if (r["table"], r["condition"]) == ("3", "full")])
    models = sorted(cells["target"].unique()) if len(cells) else []
    if len(models) < 2:
        return None
    cells["explainer"] = cells["explainer"].where(cells["explainer"] != "self", cells["target"])
    seeds = cells.loc[cells["explainer"].isin(models), "seeds"].map(len).min()
    cells = cells.pivot(index=["metric", "target"], columns="explainer", values="value")
    cells = cells.reindex(columns=models)
    compared = cells[cells.index.isin(OUTCOMES, level="metric") & (cells.count(axis=1) > 1)]
    own = sum(compared.loc[key].idxmax() == key[1] for key in compared.index)
    title = f"Self is the best explainer in {own} of {len(compared)} pairs of target and score"
    title += " (one training seed: no verdict)" if seeds < 2 else ""
    height = 0.35 * len(models) + 1.2
    made, grid = plot.figure(style.PAGE, height, title, 1, len(OUTCOMES), sharey=True)
    names = [name.replace("-", "-\n", 1) for name in models]
    look = {"cmap": "Blues", "vmin": 0, "vmax": 150, "cbar": False, "annot": True, "fmt": ".1f"}
    look |= {"annot_kws": {"size": 7, "color": style.BLACK}}
    look |= {"xticklabels": names, "yticklabels": names}
    for axes, metric in zip(grid[0], OUTCOMES, strict=True):
        sns.heatmap(100 * cells.loc[metric].loc[models], ax=axes, **look)
        axes.set(title=style.LABELS[metric], xlabel="explainer", ylabel="")
        axes.tick_params(axis="both", rotation=0, length=0)
    grid[0, 0].set_ylabel("target")
    return made
