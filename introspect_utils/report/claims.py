"""The paper's ten claims, and the rules by which the records of `results.json` decide them, task by
task. `comparisons` says when a comparison holds."""

from collections.abc import Callable
from dataclasses import dataclass

from introspect_utils.report import comparisons as c
from introspect_utils.report.comparisons import CONTRADICTED, HOLDS, UNDECIDED, Comparison
from introspect_utils.report.record import record
from introspect_utils.report.table_rows import Row


@dataclass(frozen=True)
class Part:
    """Comparisons about one task, and the runs that make their records."""

    task: str
    compare: Callable[[list[dict]], list[Comparison]]
    needs: str


@dataclass(frozen=True)
class Verdict:
    """What a claim comes to in one task: contradicted as soon as one comparison is, else holds if
    all hold, else undecided."""

    task: str
    comparisons: list[Comparison]

    @property
    def outcome(self) -> str:
        outcomes = {each.outcome for each in self.comparisons}
        return (
            CONTRADICTED
            if CONTRADICTED in outcomes
            else HOLDS
            if {HOLDS} == outcomes
            else UNDECIDED
        )

    @property
    def deciding(self) -> Comparison:
        """The first comparison that comes to what the claim comes to."""
        return next(each for each in self.comparisons if each.outcome == self.outcome)

    @property
    def holding(self) -> int:
        return sum(each.outcome == HOLDS for each in self.comparisons)

    def __str__(self) -> str:
        counted = f"{self.holding} of {len(self.comparisons)} comparisons hold"
        return f"{self.task}: {self.outcome} ({counted})"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, where it makes it, and the rule that decides it, in words and as
    functions."""

    sentence: str
    where: str
    rule: str
    parts: tuple[Part, ...]

    def check(self, records: list[dict]) -> list[Verdict]:
        """What it comes to in each task."""
        found: dict[str, list[Comparison]] = {}
        for part in self.parts:
            compared = part.compare(records) or [Comparison(part.needs, reason="not run")]
            found.setdefault(part.task, []).extend(compared)
        return [Verdict(task, compared) for task, compared in found.items()]


def claim_records(records: list[dict]) -> list[dict]:
    """Each claim in each task as a record: how many comparisons hold (`value`) of how many (`n`), and
    what that comes to (`reason`)."""
    found = []
    for number, claim in enumerate(CLAIMS, 1):
        for verdict in claim.check(records):
            of = {key: each for each in verdict.comparisons for key in each.artifacts}
            none = {"n_train": None, "trained_parameters": 0, "epochs": None, "parts": []}
            row = Row(
                verdict.task, "", "", "", str(number), seeds=[], artifact=", ".join(of), **none
            )
            n, outcome = len(verdict.comparisons), verdict.outcome
            found.append(record("claims", row, "comparisons", verdict.holding, n=n, reason=outcome))
    return found


CLAIMS = (
    Claim(
        "Training an explainer beats zero-shot methods and nearest neighbours.",
        "Sections 3.4 and 5.1, Tables 1 and 2",
        "Features: Self is above Untrained, SelfIE and both nearest neighbours, counted column by "
        "column of Table 1. Patching: Self is above Untrained in exact match.",
        (
            Part("features", c.beats_baselines, "the explainer self, and the baselines"),
            Part("patching", c.beats_untrained, "the explainer self, full and untrained"),
        ),
    ),
    Claim(
        "The simulator scores trained descriptions higher than the gold labels.",
        "Section 3.4, Table 1",
        "Self is above Gold labels in the simulator's score of SAE features. With labels that rules "
        "made and the same simulator chose it cannot be tested.",
        (Part("features", c.beats_gold, "the explainer self, and the baselines"),),
    ),
    Claim(
        "A model explains itself better than other models explain it.",
        "Sections 3.4, 5.1 and 5.2, Tables 1 to 3",
        "Features: Self is above every other model, also one with a projection fitted beforehand, in "
        "every column of Table 1. Patching: Self is above every other model in exact match. Hints: "
        "two models that explain themselves and each other gain by explaining themselves "
        "(interaction of target and explainer). The target's sibling and the target rotated do not "
        "count as other models.",
        (
            Part("features", c.beats_other_models, "the explainers self and another model"),
            Part("patching", c.beats_others_at_patching, "the explainers self and another model"),
            Part("ablation", c.each_explains_itself, "two targets, each explained by both"),
        ),
    ),
    Claim(
        "Explainers that are closer to the target explain it better.",
        "Section 3.4, B.2, Table 5",
        "Among the explainers but Self, similarity (dot product) and score have a positive rank "
        "correlation (Spearman, permutation test) in every column of Table 1.",
        (Part("features", c.closer_is_better, "Table 5, and at least three of its explainers"),),
    ),
    Claim(
        "Aligning another model's projection with the target helps it to explain the target.",
        "Section 3.4, Table 1",
        "In every column of Table 1, another model with a fitted projection is above the same model "
        "with a random one, on the same rows.",
        (
            Part(
                "features",
                c.aligned_is_better,
                "another model with a fitted and a random projection",
            ),
        ),
    ),
    Claim(
        "Self-explaining needs about a hundred times less data than nearest neighbours.",
        "Section 4, Figure 5",
        f"Trained on 0.8% of the directions for as many epochs, Self has more than {c.COMPARABLE:.0%} "
        "of the score (SAE judge) of the nearest neighbour with all of them, both over the floor of "
        "the best constant description.",
        (
            Part(
                "features", c.needs_less_data, "self of 0.8% of the largest size, and the baselines"
            ),
        ),
    ),
    Claim(
        "The activation matters to the explainer; the annotations of layer and token do not.",
        "Section 5.1, Table 2",
        "Patching, exact match: Self is above itself with another row's vector. Trained without layer "
        f"or without token it is within {100 * c.EQUIVALENT:.0f} points of Self.",
        (
            Part("patching", c.reads_the_vector, "the explainer self, full"),
            Part(
                "patching", c.annotations_add_nothing, "the explainer self, no-layer and no-token"
            ),
        ),
    ),
    Claim(
        "The layer and the token can be read from the activation.",
        "Section 5.1, C.1",
        f"The exact match of an explainer trained to name both lies above {c.READ:.0%}.",
        (Part("patching", c.reads_layer_and_token, "the explainer self, locate"),),
    ),
    Claim(
        "Untrained models do not admit that they used the hint.",
        "Section 5.2",
        "The untrained target says “changed” of the rows whose answer changes no more often than of "
        f"the others, up to {100 * c.RARELY:.0f} points.",
        (Part("ablation", c.does_not_admit, "the explainer self, untrained"),),
    ),
    Claim(
        "Most zero scores of the judge are not the explainer's fault.",
        "Section 3.4, B.5, Figure 8",
        "As a person sorts them, the share that is the explainer's error lies below 50%.",
        (Part("features", c.few_are_its_fault, "the error analysis, sorted by a person"),),
    ),
)
