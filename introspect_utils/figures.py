"""Pictures of single steps, shown in the notebook that asks for them; the tables' own figures are in report.py."""

from collections import Counter
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

from introspect_utils import style


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
        ax.barh(relations, [kept[r] for r in relations], color=style.BLUE, label="kept: the target answers them")
        ax.set_xlabel("facts")
        ax.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(frameon=False, loc="outside upper center", ncols=2)
    _show(figure)


def patch_grid(rows: Sequence[dict]) -> None:
    """Figure 3B for one pair: the next token after patching each token of x (columns) at each block of layers (rows)."""
    columns = sorted({row["patch_position"]["orig_pos"] for row in rows})
    blocks = sorted({tuple(row["layer"]) for row in rows})
    tokens = {row["patch_position"]["orig_pos"]: row["patch_position"]["orig_text_token"] for row in rows}
    changed = np.zeros((len(blocks), len(columns)))
    with plt.rc_context(style.SETTINGS):
        figure, ax = plt.subplots(figsize=(0.75 * len(columns) + 1.5, 0.42 * len(blocks) + 1.2), layout="constrained")
        for row in rows:
            i, j = blocks.index(tuple(row["layer"])), columns.index(row["patch_position"]["orig_pos"])
            changed[i, j] = row["is_different"]
            ax.text(j, i, repr(row["ablated_continuation"][0])[1:-1], ha="center", va="center", fontsize=7)
        ax.imshow(changed, cmap=style.CHANGED, vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(columns)), [tokens[column] for column in columns], rotation=30, ha="right")
        ax.set_yticks(range(len(blocks)), [f"{block[0]}–{block[-1]}" for block in blocks])
        ax.set(xlabel="patched token of x", ylabel="layers of the block")
        ax.set_title(f"Next token after the patch (without it: {rows[0]['original_continuation'][0]!r}); shaded: changed")
    _show(figure)


def loss_curve(losses: Sequence[float]) -> None:
    """Cross-entropy per explanation token (eq. 1) at each step."""
    with plt.rc_context(style.SETTINGS):
        figure, ax = plt.subplots(figsize=(4.5, 2.4), layout="constrained")
        ax.plot(range(1, len(losses) + 1), losses, color=style.BLUE)
        ax.set(xlabel="training step", ylabel="loss (nats per token)", ylim=(0, None))
    _show(figure)
