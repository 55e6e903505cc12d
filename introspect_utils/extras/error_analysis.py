"""B.5's error analysis: the cases that the judge scores 0, sorted into `paper.ERROR_CATEGORIES`
(Figure 8).

cases = zero_cases(predictions, baselines)            # of a run of notebook 05, and of notebook 08
cases["active"], cases["exemplars"], cases["cosine"] = active_share(own), excerpts(lm, own),
judge.cosines(pairs) cases["automatic"] = [automatic_category(case, doubtful_cosine("embedding"))
for case in cases.itertuples()] ErrorLabels(cases, path).show()                       # a person's
categories
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from introspect_utils.extras.labelling import Labelling
from introspect_utils.features.directions import marked_text
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.report.paper import ERROR_CATEGORIES
from introspect_utils.scores.judge import THRESHOLDS
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from introspect_utils.models.language_model import LanguageModel

SPARSE = 0.5  # share of the top exemplars
DOUBT = 0.05  # of a cosine
MARGIN = 0.1  # of a simulator score
NEAR_ZERO = 0.1  # a simulator score


def zero_cases(
    predictions: pd.DataFrame, baselines: pd.DataFrame, n: int = 100, seed: int = 0
) -> pd.DataFrame:
    """At most `n` SAE features, drawn by the seed, whose description by the explainer the judge
    scores 0, in the order drawn.

    `predictions`: of a run of an explainer; `baselines`: of notebook 08, whose gold rows have the
    simulator score of the gold descriptions. Columns: feature, layer, generation, gold, simulator,
    gold_simulator (eq. 2, both on the same exemplars). Raises `UserError` when the two were not
    tested on the same rows.
    """
    zero = predictions.query("condition == 'full' and data == 'sae' and judge == 0")
    gold = baselines.query("explainer == 'gold'").rename(columns={"simulator": "gold_simulator"})
    drawn = zero.sample(min(n, len(zero)), random_state=seed)
    cases = drawn.merge(
        gold[["feature", "gold", "gold_simulator"]], how="left", on=["feature", "gold"]
    )
    if cases["gold_simulator"].isna().any():
        raise UserError(
            "the explainer and the baselines were tested on different rows: run the older of the "
            "two again"
        )
    return cases[["feature", "layer", "generation", "gold", "simulator", "gold_simulator"]]


def active_share(exemplars: Exemplars) -> list[float]:
    """Of each direction, the share of its top exemplars that reach half of its peak, counted from
    its mean over the corpus.

    No other context of the corpus is as active as the top exemplars: where the share is below 1, it
    counts all contexts that reach half of the peak.
    """
    peaks = exemplars.activations[:, : exemplars.n_top].amax(-1)  # [n, n_top]
    half = (exemplars.mean + exemplars.peak)[:, None] / 2
    return (peaks >= half).double().mean(1).tolist()


def excerpts(lm: LanguageModel, exemplars: Exemplars, span: int = 8) -> list[list[str]]:
    """The top exemplars of each direction, best first, `span` tokens either side of the <<<most
    active>>> one."""
    texts = []
    for sequences, activations in zip(exemplars.sequences, exemplars.activations, strict=True):
        peaks = activations[: exemplars.n_top].argmax(-1).tolist()
        contexts = exemplars.tokens[sequences[: exemplars.n_top]].tolist()
        texts.append(
            [
                marked_text(lm, ids[max(0, t - span) : t + span + 1], min(t, span))
                for ids, t in zip(contexts, peaks, strict=True)
            ]
        )
    return texts


def doubtful_cosine(judge: str) -> float:
    """From which cosine of the two descriptions' embeddings on a score of 0 by this judge
    ("embedding" or "openai") is doubted.

    The embedding judge scores pairs above 0 from THRESHOLDS[0] on: from there on it contradicts a
    chat model. Its own zeros are doubted where the cosine is at most DOUBT below.
    """
    return THRESHOLDS[0] - (DOUBT if judge == "embedding" else 0)


def automatic_category(case, doubtful: float) -> str:
    """The automatic category of a case with the attributes active, cosine, simulator,
    gold_simulator: the first that applies of

    - sparse activation: fewer than half (SPARSE) of the top exemplars reach half of the direction's
      peak (`active_share`). The paper's criterion, active on less than 0.001% of the tokens, no
      direction meets here: notebook 01 takes those that are active on 20 tokens or more (of mini's
      corpus 0.05%);
    - judge error: the cosine of the two descriptions is at least `doubtful` (`doubtful_cosine`);
    - incorrect label, noisy/ambiguous label: the explainer's description has a simulator score that
      is more than MARGIN above that of the gold description; incorrect if the latter is below
      NEAR_ZERO;
    - explainer model error: all others.
    """
    if case.active < SPARSE:
        return "sparse activation"
    if case.cosine >= doubtful:
        return "judge error"
    if case.simulator > case.gold_simulator + MARGIN:
        return "incorrect label" if case.gold_simulator < NEAR_ZERO else "noisy/ambiguous label"
    return "explainer model error"


def counts(categories: Sequence[str]) -> dict[str, int]:
    """How many cases each of the paper's categories has."""
    return {category: list(categories).count(category) for category in ERROR_CATEGORIES}


class ErrorLabels(Labelling):
    """Cases (`zero_cases`, with a column `exemplars` of lists of texts), and the categories that a
    person gave them so far.

    The widget does not say what the automatic category is. Raises `UserError` as `Labelling`.
    """

    buttons = {category: category for category in ERROR_CATEGORIES}
    noun = "cases"

    def __init__(self, cases: pd.DataFrame, path: Path):
        super().__init__(cases[["feature", "gold", "generation"]].to_numpy().tolist(), path)
        self.cases = cases

    def as_html(self, number: int) -> str:
        """Case `number`: the two descriptions with their simulator scores above the exemplars."""
        case = self.cases.iloc[number]
        said = (
            ("Gold description", case["gold"], case["gold_simulator"]),
            ("Explainer", case["generation"], case["simulator"]),
        )
        rows = "".join(
            f"<tr><td><b>{who}</b></td><td>{html.escape(text)}</td><td>{r:.2f}</td></tr>"
            for who, text, r in said
        )
        shown = "".join(f"<li>{html.escape(text)}</li>" for text in case["exemplars"])
        return f"<table><tr><th>{case['feature']}</th><th></th><th>Simulator</th></tr>{rows}</table><ol>{shown}</ol>"
