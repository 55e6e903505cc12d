"""The paper's ten claims, and the rules by which the records of `results.json` decide them.

A rule is a list of comparisons. A claim is *supported* when all of them hold, *not supported* as
soon as one does not, and *not tested* otherwise: then none fails, and some cannot be made for want
of records. What "above" means, `comparisons` says.
"""

from collections.abc import Callable
from dataclasses import dataclass

from introspect_utils.report.comparisons import (
    COMPARABLE,
    LESS_DATA,
    RARELY,
    READ,
    Comparison,
    ahead,
    aligned_is_better,
    annotations_add_nothing,
    beats_itself_on_others,
    beats_other_models,
    beats_others_at_patching,
    beats_untrained,
    closer_is_better,
    few_are_its_fault,
    hardly_says_changed,
    needs_less_data,
    reads_layer_and_token,
    reads_the_vector,
)

SUPPORTED, NOT_SUPPORTED, NOT_TESTED = "supported", "not supported", "not tested"


@dataclass(frozen=True)
class Part:
    """Comparisons of one kind, which all must hold, and the runs that make their records."""

    compare: Callable[
        [list[dict]], list[Comparison]
    ]  # from all records; none where the records are not there
    needs: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, where it makes it, and the rule that decides it, in words and as
    functions."""

    sentence: str
    where: str
    rule: str
    parts: tuple[Part, ...]

    def check(self, records: list[dict]) -> tuple[str, list[Comparison]]:
        """(supported | not supported | not tested, the comparisons it rests on)."""
        found = [
            each
            for part in self.parts
            for each in part.compare(records) or [Comparison(part.needs)]
        ]
        outcomes = {each.holds for each in found}
        if False in outcomes:
            return NOT_SUPPORTED, found
        return (NOT_TESTED if None in outcomes else SUPPORTED), found


CLAIMS = (
    Claim(
        "Training an explainer beats zero-shot methods and nearest neighbours.",
        "Sections 3.4 and 5.1, Tables 1 and 2",
        "Features: Self is above Untrained, SelfIE and both nearest neighbours in every column of "
        "Table 1 (paired t-test). "
        "Patching: Self is above Untrained in exact match.",
        (
            Part(
                lambda records: ahead(records, ("untrained",)),
                "features: the explainer self, full and untrained",
            ),
            Part(
                lambda records: ahead(records, ("selfie", "nn-all", "nn-layer")),
                "features: self, and the baselines",
            ),
            Part(beats_untrained, "patching: the explainer self, full and untrained"),
        ),
    ),
    Claim(
        "The simulator scores trained descriptions higher than the gold labels.",
        "Section 3.4, Table 1",
        "Self is above Gold labels in the simulator's score of SAE features (paired t-test).",
        (
            Part(
                lambda records: ahead(records, ("gold",), ("sae simulator",)),
                "features: self, and the baselines",
            ),
        ),
    ),
    Claim(
        "A model explains itself better than other models explain it; on hints, an explainer "
        "explains itself best.",
        "Sections 3.4, 5.1 and 5.2, Tables 1 to 3",
        "Features: Self is above every other model in every column of Table 1 (paired t-test). "
        "Patching: Self is above every "
        "other model in exact match. Hints: an explainer's exact match is higher on itself than on "
        "another target. "
        "The target's sibling and the target rotated are not other models and do not count.",
        (
            Part(beats_other_models, "features: the explainers self and another model"),
            Part(beats_others_at_patching, "patching: the explainers self and another model"),
            Part(
                beats_itself_on_others,
                "ablation: two targets, each explained by itself and by the other",
            ),
        ),
    ),
    Claim(
        "Explainers that are closer to the target explain it better.",
        "Section 3.4, B.2, Table 5",
        "Of at least three explainers, the most similar to the target (dot product) is above the "
        "least similar in every column "
        "of Table 1, and similarity and score have a rank correlation (Spearman) greater than 0.",
        (Part(closer_is_better, "Table 5, and features: at least three of its explainers"),),
    ),
    Claim(
        "Aligning another model's projection with the target helps it to explain the target.",
        "Section 3.4, Table 1",
        "In every column of Table 1, another model with a pre-trained projection is above the same "
        "model with a random one.",
        (
            Part(
                aligned_is_better,
                "features: another model, with and without a pre-trained projection",
            ),
        ),
    ),
    Claim(
        "Self-explaining needs about a hundred times less data than nearest neighbours.",
        "Section 4, Figure 5",
        f"Trained on at most a {LESS_DATA}th of the directions, Self has at least {COMPARABLE:.0%} "
        "of the score (SAE judge) that "
        "the nearest neighbour over all layers has with all of them (the paper: 92.9%). The rule "
        "takes no account of errors.",
        (
            Part(
                needs_less_data,
                f"features: self of a {LESS_DATA}th of the largest size (features.sizes), and the "
                "baselines",
            ),
        ),
    ),
    Claim(
        "The activation matters to the explainer; the annotations of layer and token do not.",
        "Section 5.1, Table 2",
        "Patching, exact match: Self is above Self trained without the activation (paired). It is "
        "not above Self without layer, "
        "nor above Self without token, and these two are above Self without the activation.",
        (
            Part(reads_the_vector, "patching: the explainer self, full and no-vector"),
            Part(
                annotations_add_nothing,
                "patching: the explainer self, full, no-vector, no-layer and no-token",
            ),
        ),
    ),
    Claim(
        "The layer and the token can be read from the activation.",
        "Section 5.1, C.1",
        f"The 95% interval of the exact match of an explainer trained to name both lies above "
        f"{READ:.0%} (the paper: 98.7%).",
        (Part(reads_layer_and_token, "patching: the explainer self, locate"),),
    ),
    Claim(
        "Untrained models do not admit that they used the hint.",
        "Section 5.2",
        f"The 95% interval of how often the untrained target says “changed” lies below "
        f"{RARELY:.0%} (the paper: 0.4%).",
        (Part(hardly_says_changed, "ablation: the explainer self, untrained"),),
    ),
    Claim(
        "Most zero scores of the judge are not the explainer's fault.",
        "Section 3.4, B.5, Figure 8",
        "As a person sorts them, the 95% interval of the share that is the explainer's error lies "
        "below 50% (the paper: 27%).",
        (Part(few_are_its_fault, "features: the error analysis, sorted by a person"),),
    ),
)
