"""Pictures of single steps, shown in the notebook that asks for them; the tables' own figures are
in report.py."""

from collections import Counter
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

from introspect_utils.report import style
from introspect_utils.scores.metrics import wilson

ALL = "all subjects"


def _show(figure: plt.Figure) -> None:
    """Display once, whatever the backend does with open figures."""
    display(figure)
    plt.close(figure)


def facts_kept(asked: Sequence, kept: Sequence) -> None:
    """Per relation, how many facts the target was asked and how many it answered."""
    asked, kept = (Counter(fact.relation for fact in facts) for facts in (asked, kept))
    relations = sorted(asked, key=asked.get)
    with plt.rc_context(style.SETTINGS):
        figure, ax = plt.subplots(figsize=(5.5, 0.22 * len(relations) + 1), layout="constrained")
        ax.barh(relations, [asked[r] for r in relations], color=style.FAINT, label="asked")
        ax.barh(
            relations,
            [kept[r] for r in relations],
            color=style.BLUE,
            label="kept: the target answers them",
        )
        ax.set_xlabel("facts")
        ax.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(frameon=False, loc="outside upper center", ncols=2)
    _show(figure)


def patch_grid(rows: Sequence[dict]) -> None:
    """Figure 3B for one pair: the next token after patching each token of x (columns) at each block
    of layers (rows)."""
    columns = sorted({row["patch_position"]["orig_pos"] for row in rows})
    blocks = sorted({tuple(row["layer"]) for row in rows})
    tokens = {
        row["patch_position"]["orig_pos"]: row["patch_position"]["orig_text_token"] for row in rows
    }
    changed = np.zeros((len(blocks), len(columns)))
    with plt.rc_context(style.SETTINGS):
        figure, ax = plt.subplots(
            figsize=(0.75 * len(columns) + 1.5, 0.42 * len(blocks) + 1.2), layout="constrained"
        )
        for row in rows:
            i, j = (
                blocks.index(tuple(row["layer"])),
                columns.index(row["patch_position"]["orig_pos"]),
            )
            changed[i, j] = row["is_different"]
            ax.text(
                j,
                i,
                repr(row["ablated_continuation"][0])[1:-1],
                ha="center",
                va="center",
                fontsize=7,
            )
        ax.imshow(changed, cmap=style.CHANGED, vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(
            range(len(columns)), [tokens[column] for column in columns], rotation=30, ha="right"
        )
        ax.set_yticks(range(len(blocks)), [f"{block[0]}–{block[-1]}" for block in blocks])
        ax.set(xlabel="patched token of x", ylabel="layers of the block")
        ax.set_title(
            f"Next token after the patch (without it: {rows[0]['original_continuation'][0]!r}); "
            "shaded: changed"
        )
    _show(figure)


def loss_curve(losses: Sequence[float]) -> None:
    """Cross-entropy per explanation token (eq. 1) at each step."""
    with plt.rc_context(style.SETTINGS):
        figure, ax = plt.subplots(figsize=(4.5, 2.4), layout="constrained")
        ax.plot(range(1, len(losses) + 1), losses, color=style.BLUE)
        ax.set(xlabel="training step", ylabel="loss (nats per token)", ylim=(0, None))
    _show(figure)


def hints_followed(cells: dict[str, Sequence[dict]], least: int = 4) -> plt.Figure:
    """How often the answer becomes the hint's letter where the hint names another, with 95% bars,
    for questions that the target answers right and wrong without it: all subjects together, then
    those with at least `least` such questions.

    `cells`: target -> the cells of `tasks.ablate.followed`; a panel for each target.
    """
    asked = {target: Counter() for target in cells}
    for target, of_target in cells.items():
        for cell in of_target:
            asked[target].update({cell["subject"]: cell["n"], ALL: cell["n"]})
    tallest = max(sum(n >= least for n in counts.values()) for counts in asked.values())
    with plt.rc_context(style.SETTINGS):
        size = (1.3 + 4.2 * len(cells), 0.19 * max(tallest, 1) + 1.4)
        figure, panels = plt.subplots(
            1, len(cells), figsize=size, layout="constrained", squeeze=False
        )
        for ax, target in zip(panels[0], cells, strict=True):
            subjects = [
                subject
                for subject, n in asked[target].most_common()
                if n >= least or subject == ALL
            ]
            for y, subject in enumerate(subjects):
                for right, colour, above in (
                    (True, style.BLUE, 0.17),
                    (False, style.ORANGE, -0.17),
                ):
                    chosen = [
                        cell
                        for cell in cells[target]
                        if cell["right"] == right and subject in (ALL, cell["subject"])
                    ]
                    if chosen:
                        share, low, high = wilson(
                            sum(cell["followed"] for cell in chosen),
                            sum(cell["n"] for cell in chosen),
                        )
                        ax.plot([100 * low, 100 * high], [y - above] * 2, color=colour, lw=1)
                        ax.plot(100 * share, y - above, "o", ms=3.5, color=colour)
            ax.set_yticks(
                range(len(subjects)),
                [f"{subject.replace('_', ' ')} ({asked[target][subject]})" for subject in subjects],
            )
            ax.set(xlim=(-3, 103), ylim=(len(subjects) - 0.5, -0.6), title=target)
            ax.set_xlabel(
                "follows a hint to another letter,\n% of (so many) questions; bars: 95% interval"
            )
            ax.grid(axis="x", lw=0.4, alpha=0.5)
        marks = [
            plt.Line2D([], [], color=c, marker="o", ms=3.5, lw=1)
            for c in (style.BLUE, style.ORANGE)
        ]
        figure.legend(
            marks,
            ["right without the hint", "wrong without it"],
            loc="outside lower center",
            ncols=2,
            frameon=False,
        )
    plt.close(figure)  # shown once, as the value of a cell
    return figure
