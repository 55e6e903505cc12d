"""Sentences that say what a run's numbers show, also when that is nothing. Notebooks print them
behind their pictures."""

import re
from collections import Counter

import pandas as pd

from introspect_utils.scores.metrics import estimate
from introspect_utils.tasks import TASKS

QUOTED = re.compile(r"<<<.*?>>>|'[^']*'|\"[^\"]*\"|“[^”]*”", re.DOTALL)


def training(losses: list[float], before: float | None = None, after: float | None = None) -> str:
    """What training did to the loss, and to that of held-out rows, in nats per token."""
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    said = f"In training the loss went from {first:.2f} to {last:.2f} nats per token"
    said += " (first and last tenth of the steps)"
    if before is None or after is None:
        return f"{said}." if last < first else f"{said}: nothing was learned."
    said += f", on held-out rows from {before:.2f} to {after:.2f}."
    if after >= before:
        return f"{said} Nothing was learned that carries over to held-out rows."
    if last < 0.5 * after:
        return f"{said} It knows its training rows far better than others: more rows would help."
    return said


def answers(generations: pd.Series) -> str:
    """How alike the answers are."""
    n, distinct = len(generations), generations.nunique()
    form, times = Counter(QUOTED.sub("…", text) for text in generations).most_common(1)[0]
    said = f"{distinct} different answers to {n} questions"
    said += f"; {times / n:.0%} have the form “{form}”." if times > 1 else ", no two of one form."
    if distinct == 1 and n > 1:
        return f"{said} Nothing was learned about single rows: the answer is always the same."
    return said


def vector(predictions: pd.DataFrame, metric: str) -> str:
    """What the explainer's own vectors add to a score over those of other rows, with the same
    weights; the error is that of the task's clusters of rows."""
    scores = predictions.pivot_table(index="row", columns="condition", values=metric).astype(float)
    if "shuffled-vector" not in scores:
        return "This explainer was not asked with other rows' vectors."
    scores = 100 * scores[["full", "shuffled-vector"]].dropna()
    own, other = scores["full"], scores["shuffled-vector"]
    named = [name for task in TASKS.values() for name in task.clusters[:1] if name in predictions]
    rows = predictions.drop_duplicates("row").set_index("row").loc[scores.index]
    added = estimate((own - other).to_numpy()[None], rows[named[0]] if named else None)
    said = (
        f"{metric.replace('_', ' ')}: {own.mean():.1f}, with another row's vector "
        f"{other.mean():.1f}: the vector adds {added.value:.1f} ± {added.stderr or 0:.1f} points "
        f"over the {len(scores)} test rows of one seed."
    )
    if (added.low or 0) > 0:
        return f"{said} The explainer reads it."
    return f"{said} That it reads the vector cannot be told from this."
