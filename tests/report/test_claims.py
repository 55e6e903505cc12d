"""Each rule in its three outcomes, on records made by hand, and on the paper's own numbers."""

import pytest

from introspect_utils.report.claims import CLAIMS, NOT_SUPPORTED, NOT_TESTED, SUPPORTED
from introspect_utils.report.paper import lookup
from introspect_utils.report.tables import COLUMNS

TARGET, OTHER = "smollm2-135m-instruct", "gemma3-270m"
TRAINED, GOLD, SELF, CLOSER, ALIGNED, DATA, VECTOR, READ, HINT, FAULT = CLAIMS
BASELINES = ("untrained", "selfie", "nn-all", "nn-layer")


def record(
    table,
    explainer,
    metric,
    value,
    condition="full",
    data="test",
    target=TARGET,
    stderr=0.01,
    p=None,
    n_train=1000,
):
    fields = {
        "table": table,
        "target": target,
        "explainer": explainer,
        "condition": condition,
        "data": data,
        "metric": metric,
    }
    artifact = f"runs/{target}-{explainer}-{condition}"
    return fields | {
        "value": value,
        "stderr": stderr,
        "n": 600,
        "n_train": n_train,
        "artifact": artifact,
        "p_vs_best": p,
    }


def features(table, explainer, value, columns=COLUMNS, **fields):
    """A row of Table 1, or, paired, the self-explainer minus it."""
    return [
        record(table, explainer, c.split()[1], value, data=c.split()[0], **fields) for c in columns
    ]


def paired(explainers, value=0.1, p=0.001, columns=COLUMNS):
    return [each for name in explainers for each in features("1-paired", name, value, columns, p=p)]


def exact(table, explainer, value, condition="full", target=TARGET):
    return record(table, explainer, "exact_match", value, condition, target=target)


def patching_gap(explainer, value=0.1, p=0.001):
    return record("2-paired", explainer, "exact_match", value, p=p)


def patching(values):
    """Rows of the self-explainer in Table 2 by condition, and what the vector adds."""
    rows = [exact("2", "self", value, condition) for condition, value in values.items()]
    difference = values["full"] - values["no-vector"]
    return [*rows, record("2-vector", "self", "exact_match", difference, "full minus no-vector")]


def similar(scores):
    """Explainers with a similarity to the target and a score in every column of Table 1."""
    found = [
        record("5", name, "dot_product", similarity, data="sae")
        for name, (similarity, _) in scores.items()
    ]
    return found + [
        each for name, (_, score) in scores.items() for each in features("1", name, score)
    ]


def scaling(share, n_train=100):
    own = record("scaling", "self", "judge", 0.5 * share, data="sae", n_train=n_train)
    return [own, record("1", "nn-all", "judge", 0.5, data="sae", n_train=10000)]


WELL = {"full": 0.64, "no-vector": 0.58, "no-layer": 0.65, "no-token": 0.63}
HINTS = [exact("3", "self", 0.4), exact("3", "self", 0.5, target=OTHER), exact("3", OTHER, 0.4)]
ON_TARGET = exact("3", TARGET, 0.3, target=OTHER)
SELF_WINS = [*paired([OTHER]), patching_gap(OTHER), *HINTS, ON_TARGET]
UNTRAINED = [exact("2", "self", 0.5), exact("2", "untrained", 0.1)]
CASES = [
    (TRAINED, SUPPORTED, [*paired(BASELINES), *UNTRAINED]),
    (TRAINED, NOT_SUPPORTED, [*paired(BASELINES[:3]), *paired(["nn-layer"], p=0.06), *UNTRAINED]),
    (TRAINED, NOT_SUPPORTED, [*paired(["untrained"], -0.1), *UNTRAINED]),
    (
        TRAINED,
        NOT_SUPPORTED,
        [*paired(BASELINES), exact("2", "self", 0.1), exact("2", "untrained", 0.09)],
    ),
    (TRAINED, NOT_TESTED, [*paired(BASELINES[:3]), *UNTRAINED]),
    (TRAINED, NOT_TESTED, paired(BASELINES)),
    (GOLD, SUPPORTED, paired(["gold"], columns=("sae simulator",))),
    (GOLD, NOT_SUPPORTED, paired(["gold"], -0.1, columns=("sae simulator",))),
    (GOLD, NOT_TESTED, paired(["self"])),
    (SELF, SUPPORTED, SELF_WINS),
    (
        SELF,
        SUPPORTED,
        [*SELF_WINS, *paired(["sibling", "rotated"], -0.1), *paired(["untrained"], -0.1)],
    ),
    (SELF, NOT_SUPPORTED, [*SELF_WINS, *paired(["llama"], -0.1)]),
    (SELF, NOT_SUPPORTED, [*SELF_WINS, patching_gap("llama", p=0.06)]),
    (SELF, NOT_SUPPORTED, [*SELF_WINS[:-1], exact("3", TARGET, 0.45, target=OTHER)]),
    (SELF, NOT_TESTED, [*paired([OTHER]), patching_gap(OTHER), HINTS[0]]),
    (SELF, NOT_TESTED, [*paired(["sibling", "rotated@0.5", "untrained"]), *SELF_WINS[4:]]),
    (
        CLOSER,
        SUPPORTED,
        similar(
            {"sibling": (0.9, 0.7), "rotated": (0.0, 0.5), OTHER: (0.1, 0.4), "self": (1.0, 0.8)}
        ),
    ),
    (
        CLOSER,
        NOT_SUPPORTED,
        similar({"sibling": (0.9, 0.5), "rotated": (0.1, 0.6), OTHER: (0.0, 0.49)}),
    ),
    (
        CLOSER,
        NOT_SUPPORTED,
        similar(
            {
                "self": (0.9, 0.5),
                "x": (0.5, 0.3),
                "y": (0.4, 0.4),
                "z": (0.3, 0.45),
                "w": (0.2, 0.46),
            }
        ),
    ),
    (CLOSER, NOT_TESTED, similar({"sibling": (0.9, 0.7), OTHER: (0.1, 0.5)})),
    (
        ALIGNED,
        SUPPORTED,
        [*features("1", OTHER, 0.4), *features("1", OTHER, 0.5, condition="pretrained-projection")],
    ),
    (
        ALIGNED,
        NOT_SUPPORTED,
        [
            *features("1", OTHER, 0.4),
            *features("1", OTHER, 0.42, condition="pretrained-projection"),
        ],
    ),
    (ALIGNED, NOT_TESTED, features("1", OTHER, 0.4)),
    (DATA, SUPPORTED, scaling(0.92)),
    (DATA, NOT_SUPPORTED, scaling(0.88)),
    (DATA, NOT_TESTED, scaling(1.2, n_train=101)),
    (DATA, NOT_TESTED, scaling(1.2)[:1]),
    (VECTOR, SUPPORTED, patching(WELL)),
    (VECTOR, NOT_SUPPORTED, patching(WELL | {"no-vector": 0.63})),
    (VECTOR, NOT_SUPPORTED, patching(WELL | {"no-layer": 0.61})),
    (VECTOR, NOT_SUPPORTED, patching(WELL | {"no-token": 0.58, "no-vector": 0.57})),
    (VECTOR, NOT_TESTED, patching({"full": 0.64, "no-vector": 0.58})),
    (READ, SUPPORTED, [exact("C.1", "self", 0.97, "locate")]),
    (READ, NOT_SUPPORTED, [exact("C.1", "self", 0.91, "locate")]),
    (READ, NOT_TESTED, [exact("2", "self", 0.97)]),
    (HINT, SUPPORTED, [record("sec5.2", "untrained", "predicted_changed", 0.0, stderr=0.0)]),
    (HINT, NOT_SUPPORTED, [record("sec5.2", "untrained", "predicted_changed", 0.04)]),
    (HINT, NOT_TESTED, [record("sec5.2", "self", "predicted_changed", 0.0)]),
    (
        FAULT,
        SUPPORTED,
        [record("fig8", "self", "share", 0.27, "explainer model error", stderr=0.04)],
    ),
    (
        FAULT,
        NOT_SUPPORTED,
        [record("fig8", "self", "share", 0.45, "explainer model error", stderr=0.04)],
    ),
    (FAULT, NOT_TESTED, [record("fig8", "self", "share_automatic", 0.1, "explainer model error")]),
]


@pytest.mark.parametrize(("claim", "verdict", "records"), CASES)
def test_a_rule(claim, verdict, records):
    found, comparisons = claim.check(records)
    assert found == verdict, comparisons
    tested = [each for each in comparisons if each.holds is not None]
    assert all(each.numbers and each.artifacts for each in tested)
    assert found == NOT_SUPPORTED or (found == SUPPORTED) == (len(tested) == len(comparisons))


def test_every_claim_is_tried_in_every_outcome_and_says_what_it_needs():
    assert len(CLAIMS) == 10
    for claim in CLAIMS:
        assert {verdict for other, verdict, _ in CASES if other is claim} == {
            SUPPORTED,
            NOT_SUPPORTED,
            NOT_TESTED,
        }
        verdict, comparisons = claim.check([])
        assert verdict == NOT_TESTED and [each.what for each in comparisons] == [
            part.needs for part in claim.parts
        ]


def published(*tables):
    """The paper's numbers as records, of a standard error 0 where it gives none."""
    rows = [row for table in tables for row in lookup(table=table)]
    return [
        record(
            row.table,
            row.explainer,
            row.metric,
            row.value,
            "full" if row.condition == "random-projection" else row.condition,
            row.data,
            row.target,
            row.stderr or 0.0,
        )
        for row in rows
    ]


@pytest.mark.parametrize(
    ("claim", "tables"),
    [
        (ALIGNED, ["1"]),
        (CLOSER, ["1", "5"]),
        (READ, ["C.1"]),
        (HINT, ["sec5.2"]),
        (FAULT, ["fig8"]),
    ],
)
def test_the_papers_own_numbers_support_its_claims(claim, tables):
    assert claim.check(published(*tables))[0] == SUPPORTED


def test_the_papers_tables_2_and_3_support_what_they_are_quoted_for():
    records = published("2", "3")
    comparisons = [
        each
        for part in (TRAINED.parts[2], SELF.parts[2], VECTOR.parts[1])
        for each in part.compare(records)
    ]
    assert len(comparisons) == 2 + 2 + 8 and all(each.holds for each in comparisons)
