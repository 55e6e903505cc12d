"""Descriptions scored: by the judge against a gold description, and by the simulator (3.2)."""

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
    said: Mapping[tuple[str, str], Sequence[str | None]],
    gold: list[str],
    judge: Judge,
    simulator: Simulator,
    scoring: Exemplars,
) -> pd.DataFrame:
    """`predictions.parquet` of what each (explainer, condition) said of the directions.

    The judge rates where there is a gold description ("" is none: ACT, dACT), the simulator scores
    on the exemplars `scoring`: `simulator` is the mean of r (eq. 2), `simulator_abs` that of |r|,
    `constant` counts exemplars without a correlation, which enter both as 0. An empty description
    scores 0 by both. None is no description: such rows are left out.
    """
    about = {"row": range(len(directions)), "feature": directions.names, "data": directions.data}
    about |= {"layer": [str(layer) for layer in directions.layers], "gold": gold, "judge": np.nan}
    rows = pd.DataFrame(about)
    tables = [
        rows.assign(explainer=explainer, condition=condition, generation=list(texts))
        for (explainer, condition), texts in said.items()
    ]
    table = pd.concat(tables).dropna(subset="generation")
    asked = table[["row", "generation"]][table["generation"].str.strip() != ""].drop_duplicates()
    texts, rows = asked["generation"].tolist(), asked["row"].tolist()
    found = score(simulator, texts, scoring, rows, batch_size=16)
    r, abs_r, constant = (values.numpy() for values in found)
    asked = asked.assign(simulator=r, simulator_abs=abs_r, constant=constant)
    table = table.merge(asked, how="left", on=["row", "generation"])
    nothing = {"simulator": 0.0, "simulator_abs": 0.0, "constant": scoring.sequences.shape[1]}
    table = table.fillna(nothing).astype({"constant": np.int64})
    rated = table["gold"] != ""
    pairs = list(zip(table.loc[rated, "generation"], table.loc[rated, "gold"], strict=True))
    table.loc[rated, "judge"] = judge.rate(pairs)
    return table
