"""B.5: cases that the judge scores 0, sorted into `paper.ERROR_CATEGORIES` (Figure 8).

cases = zero_cases(predictions, baselines)            # of a run of notebook 05, and of notebook 08
cases = sorted_by_rule(cases, lm, own, "embedding")   # by the automatic rule
ErrorLabels(cases, folder).show()                     # by a person
"""

import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from introspect_utils.extras.labelling import Labelling, table_html
from introspect_utils.features.directions import marked_text
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.report.paper import ERROR_CATEGORIES
from introspect_utils.scores.judge import THRESHOLDS, load_judge
from introspect_utils.settings.errors import UserError

SPARSE = 0.5  # share of the top exemplars
DOUBT = 0.05  # of a cosine
MARGIN = 0.1  # of a simulator score
NEAR_ZERO = 0.1  # a simulator score
COLUMNS = ["feature", "layer", "generation", "gold", "simulator", "gold_simulator"]


def zero_cases(
    predictions: pd.DataFrame, baselines: pd.DataFrame, n: int = 100, seed: int = 0
) -> pd.DataFrame:
    """At most `n` SAE features, drawn by the seed, whose description the judge scores 0: COLUMNS.

    `baselines`: of notebook 08, whose gold rows have the gold descriptions' simulator scores on the
    same exemplars. Raises `UserError` when the two were not tested on the same rows.
    """
    zero = predictions.query("condition == 'full' and data == 'sae' and judge == 0")
    gold = baselines.query("explainer == 'gold'").rename(columns={"simulator": "gold_simulator"})
    gold = gold[["feature", "gold", "gold_simulator"]]
    drawn = zero.sample(min(n, len(zero)), random_state=seed)
    cases = drawn.merge(gold, how="left", on=["feature", "gold"])
    if cases["gold_simulator"].isna().any():
        raise UserError(
            "the explainer and the baselines were tested on different rows: run the older again"
        )
    return cases[COLUMNS]


def sorted_by_rule(
    cases: pd.DataFrame, lm: LanguageModel, exemplars: Exemplars, judge: str, device: str = "auto"
) -> pd.DataFrame:
    """The cases with what the rule looks at (`active`, `exemplars`, `cosine`) and its `automatic`
    category; also of no case. `exemplars` are the cases', `judge` the engine that scored them."""
    pairs = list(zip(cases["generation"], cases["gold"], strict=True))
    texts = pd.Series(excerpts(lm, exemplars), index=cases.index, dtype=object)
    cosines = load_judge("embedding", device=device).cosines(pairs)
    cases = cases.assign(active=active_share(exemplars), exemplars=texts, cosine=cosines)
    cases = cases.astype({"active": float, "cosine": float})
    rule = [automatic_category(case, doubtful_cosine(judge)) for case in cases.itertuples()]
    return cases.assign(automatic=pd.Series(rule, index=cases.index, dtype=object))


def active_share(exemplars: Exemplars) -> list[float]:
    """Of each direction, the share of its top exemplars that reach half of its peak, counted from
    its mean over the corpus.

    No other context is as active as the top exemplars: below 1, the share counts all contexts that
    reach half of the peak.
    """
    peaks = exemplars.activations[:, : exemplars.n_top].amax(-1)  # [n, n_top]
    half = (exemplars.mean + exemplars.peak)[:, None] / 2
    return (peaks >= half).double().mean(1).tolist()


def excerpts(lm: LanguageModel, exemplars: Exemplars, span: int = 8) -> list[list[str]]:
    """The top exemplars of each direction, best first, `span` tokens either side of the <<<most
    active>>> one."""
    contexts = exemplars.tokens[exemplars.sequences[:, : exemplars.n_top]]  # [n, n_top, T]
    peaks = exemplars.activations[:, : exemplars.n_top].argmax(-1)  # [n, n_top]
    found = []
    for of_one in zip(contexts.tolist(), peaks.tolist(), strict=True):
        places = zip(*of_one, strict=True)
        around = [(ids[max(0, t - span) : t + span + 1], min(t, span)) for ids, t in places]
        found.append([marked_text(lm, *part) for part in around])
    return found


def doubtful_cosine(judge: str) -> float:
    """From which cosine of the two descriptions on a score of 0 by this judge is doubted: from
    THRESHOLDS[0], where the embedding judge scores above 0; its own zeros, from DOUBT below."""
    return THRESHOLDS[0] - (DOUBT if judge == "embedding" else 0)


def automatic_category(case, doubtful: float) -> str:
    """The category of a case by the first rule that applies:

    - sparse activation: fewer than half (SPARSE) of the top exemplars reach half of the peak. (No
      direction meets the paper's criterion, active on less than 0.001% of the tokens.)
    - judge error: the cosine of the two descriptions is at least `doubtful`;
    - incorrect, or noisy/ambiguous label: the explainer's description has a simulator score more
      than MARGIN above that of the gold description; incorrect if the latter is below NEAR_ZERO;
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
    """Cases (`sorted_by_rule`) and a person's categories; the automatic ones are not shown."""

    buttons = {category: category for category in ERROR_CATEGORIES}
    noun = "cases"

    def __init__(self, cases: pd.DataFrame, folder: Path):
        super().__init__(cases[["feature", "gold", "generation"]].to_numpy().tolist(), folder)
        self.cases = cases

    def as_html(self, number: int) -> str:
        """Case `number`: the two descriptions with their simulator scores above the exemplars."""
        case = self.cases.iloc[number]
        gold = ("Gold description", case["gold"], case["gold_simulator"])
        own = ("Explainer", case["generation"], case["simulator"])
        shown = "".join(f"<li>{html.escape(text)}</li>" for text in case["exemplars"])
        return table_html(gold, own, head=(case["feature"], "", "Simulator")) + f"<ol>{shown}</ol>"
