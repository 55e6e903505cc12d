"""Figure 8 from the records of `results.json`: what is to blame for the judge's zero scores, ours
beside the paper's."""

import matplotlib.pyplot as plt

from introspect_utils.report import style
from introspect_utils.report.paper import LABEL_ERROR, lookup
from introspect_utils.scores.metrics import wilson

SORTED = {"share": "sorted by a person", "share_automatic": "sorted automatically"}
COLOURS = {
    "explainer model error": style.BLUE,
    "noisy/ambiguous label": style.ORANGE,
    "incorrect label": style.VERMILLION,
    LABEL_ERROR: style.PURPLE,
    "judge error": style.GREY,
    "sparse activation": style.SKY,
}


def figure8(records: list[dict]) -> plt.Figure:
    """Figure 8, what is to blame where the judge scores 0: for each target our pie, the paper's,
    and bars with Wilson's 95% intervals, diamonds the paper's shares. A person's categories where
    there are any, else the automatic ones, as the title says.
    """
    ours = _sorted_cases(records) or [("no case that the judge scores 0", 0, {})]
    paper = {row.condition: row.value for row in lookup(table="fig8")}
    with plt.rc_context(style.SETTINGS):
        size = (9.2, 2.6 * len(ours) + 0.5)
        figure, grid = plt.subplots(len(ours), 3, figsize=size, layout="constrained", squeeze=False)
        for (own, published, bars), (title, n, shares) in zip(grid, ours, strict=True):
            _pie(own, title, {name: share for name, share in shares.items() if name != LABEL_ERROR})
            _pie(published, "the paper: 100 cases,\nsorted by people", paper)
            for y, name in enumerate(COLOURS):
                if n:
                    share, low, high = (100 * end for end in wilson(round(shares[name] * n), n))
                    bars.barh(
                        y,
                        share,
                        xerr=[[share - low], [high - share]],
                        color=COLOURS[name],
                        capsize=2,
                        height=0.7,
                    )
                if name in paper:
                    bars.plot(100 * paper[name], y, **style.REFERENCE | {"mfc": "white"})
            bars.set_yticks(range(len(COLOURS)), COLOURS)
            bars.set(
                xlim=(0, 103),
                ylim=(len(COLOURS) - 0.4, -0.6),
                xlabel="cases, %; bars: 95%; diamonds: the paper",
            )
        handles = [
            plt.Rectangle((0, 0), 1, 1, color=colour, label=name)
            for name, colour in COLOURS.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    plt.close(figure)  # shown once, as the value of a cell
    return figure


def _sorted_cases(records: list[dict]) -> list[tuple[str, int, dict[str, float]]]:
    """Of each target (title, number of cases, {category: share}), as a person sorted them or, else,
    the rule."""
    found: dict[str, dict[str, list[dict]]] = {}
    for r in (r for r in records if r["table"] == "fig8"):
        found.setdefault(r["target"], {}).setdefault(r["metric"], []).append(r)
    cases = []
    for target, by_metric in found.items():
        metric = next(metric for metric in SORTED if metric in by_metric)
        n, shares = (
            by_metric[metric][0]["n"],
            {r["condition"]: r["value"] for r in by_metric[metric]},
        )
        cases.append((f"{target}: {n} cases,\n{SORTED[metric]}", n, shares))
    return cases


def _pie(axes: plt.Axes, title: str, shares: dict[str, float]) -> None:
    shown = {name: shares[name] for name in COLOURS if shares.get(name)}
    labels = [
        f"{100 * share:.1f}%" if share > 0.03 else "" for share in shown.values()
    ]  # of slivers the bars tell
    axes.set_axis_off()
    axes.set_title(title)
    if shown:
        axes.pie(
            shown.values(),
            labels=labels,
            colors=[COLOURS[name] for name in shown],
            startangle=90,
            counterclock=False,
        )
