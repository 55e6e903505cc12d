"""Descriptions scored: by the judge against a gold description, and by the simulator (section
3.2)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.scores.judge import Judge
from introspect_utils.scores.simulator import Simulator
from introspect_utils.scores.simulator_scores import score


def scored(
    directions: Directions,
    said: Mapping[tuple[str, str], Sequence[str]],
    gold: Sequence[str],
    judge: Judge,
    simulator: Simulator,
    scoring: Exemplars,
    batch_size: int = 16,
) -> pd.DataFrame:
    """`predictions` of what each (explainer, condition) said of the directions: rated by the judge
    where there is a gold description, and scored by the simulator on exemplars (eq. 2), once where
    several said the same of a direction."""
    asked = {
        pair: i
        for i, pair in enumerate(
            dict.fromkeys(pair for texts in said.values() for pair in enumerate(texts))
        )
    }
    scores = score(
        simulator, [text for _, text in asked], scoring, [row for row, _ in asked], batch_size
    )
    tables = []
    for (explainer, condition), texts in said.items():
        ratings = judge.rate(
            [(text, label) for text, label in zip(texts, gold, strict=True) if label]
        )
        found = [asked[pair] for pair in enumerate(texts)]
        simulated = (part[found].numpy() for part in (scores.r, scores.abs_r, scores.constant))
        tables.append(
            predictions(directions, texts, gold, ratings, *simulated, explainer, condition)
        )
    return pd.concat(tables)


def predictions(
    directions: Directions,
    generations: Sequence[str],
    gold: Sequence[str],
    judge: Sequence[float],
    simulator: Sequence[float],
    simulator_abs: Sequence[float],
    constant: Sequence[int],
    explainer: str,
    condition: str,
) -> pd.DataFrame:
    """The scored generations of one explainer under one condition, with the columns of
    `predictions.parquet`.

    `gold` is "" where a direction has no gold label (ACT, dACT); `judge` holds the ratings of the
    rows that have one, in order. `simulator` and `simulator_abs` are the means of r (eq. 2) and |r|
    over a direction's exemplars, `constant` counts those whose activations, true or simulated, are
    constant.
    """
    ratings = dict(zip((row for row, label in enumerate(gold) if label), judge, strict=True))
    table = {
        "row": range(len(directions)),
        "feature": directions.names,
        "data": directions.data,
        "layer": [str(layer) for layer in directions.layers],
        "explainer": explainer,
        "condition": condition,
        "generation": generations,
        "gold": gold,
        "judge": np.array([ratings.get(row, np.nan) for row in range(len(gold))], dtype=float),
        "simulator": np.asarray(simulator, dtype=float),
        "simulator_abs": np.asarray(simulator_abs, dtype=float),
        "constant": np.asarray(constant, dtype=np.int64),
    }
    return pd.DataFrame(table)
