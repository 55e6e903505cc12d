"""Each rule in its three outcomes, on records made by hand."""

import pytest

from introspect_utils.report.claims import (
    CLAIMS,
    CONTRADICTED,
    HOLDS,
    UNDECIDED,
    between,
    claim_records,
)
from introspect_utils.report.table_rows import ONE_SEED

TARGET, OTHER = "smollm2-135m-instruct", "gemma3-270m"
TRAINED, GOLD, SELF, CLOSER, ALIGNED, DATA, VECTOR, READ, HINT, FAULT = CLAIMS
BASELINES = ("untrained", "selfie", "nn-all", "nn-layer")
COLUMNS = ("sae judge", "sae simulator", "act simulator", "dact simulator")
EXACT = "test exact_match"
FITTED = "pretrained-projection"
SHUFFLED = "full minus shuffled-vector"


def record(table, explainer, value, column, condition="full", half=0.05, p=None, **fields):
    """A record of three seeds with the interval value ± half."""
    data, metric = column.split()
    return {
        "table": table,
        "task": "features",
        "target": TARGET,
        "explainer": explainer,
        "condition": condition,
        "data": data,
        "metric": metric,
        "value": value,
        "error_by": {},
        "low": value - half,
        "high": value + half,
        "p": p,
        "reason": None,
        "seeds": [0, 1, 2],
        "n_train": 1000,
        "trained_parameters": 1000,
        "artifact": f"runs/{explainer}-{condition}",
    } | fields


def rows(table, explainers, value=0.1, columns=COLUMNS, **fields):
    return [record(table, name, value, c, **fields) for name in explainers for c in columns]


def one(table, explainer, value, **fields):
    return rows(table, [explainer], value, [EXACT], **fields)


def similar(scores, **fields):
    """Explainers with a similarity to the target and a score in every column of Table 1."""
    found = [record("5", name, x, "sae dot_product") for name, (x, _) in scores.items()]
    return found + [r for name, (_, y) in scores.items() for r in rows("1", [name], y, **fields)]


def share(value, **fields):
    return [record("sec4", "self", value, "sae share-of-nn-all-over-floor", "0.8%", **fields)]


def says_changed(value, **fields):
    name = "changed minus unchanged rows"
    return [record("sec5.2", "untrained", value, "test predicted_changed", name, **fields)]


def at_fault(value, metric="share"):
    return [record("fig8", "self", value, f"sae {metric}", "explainer model error")]


LADDER = {name: (i / 10, i / 10) for i, name in enumerate(("a", "b", "c", "sibling", "rotated"))}
UPSIDE_DOWN = {name: (x, -y) for name, (x, y) in LADDER.items()}
RULES = record("scored-by", "", 0, "train labels", "rules", low=None)
CASES = [
    (TRAINED, "features", HOLDS, rows("1-paired", BASELINES)),
    (TRAINED, "features", UNDECIDED, rows("1-paired", BASELINES[:3])),
    (TRAINED, "features", UNDECIDED, rows("1-paired", BASELINES, seeds=[0])),
    (TRAINED, "features", CONTRADICTED, rows("1-paired", BASELINES, -0.1)),
    (TRAINED, "features", UNDECIDED, rows("1-paired", BASELINES, p=0.06)),
    (TRAINED, "patching", HOLDS, one("2-paired", "untrained", 0.1)),
    (TRAINED, "patching", UNDECIDED, one("2-paired", "untrained", 0.04)),
    (TRAINED, "patching", CONTRADICTED, one("2-paired", "untrained", -0.1)),
    (GOLD, "features", HOLDS, rows("1-paired", ["gold"], 0.1)),
    (GOLD, "features", CONTRADICTED, rows("1-paired", ["gold"], -0.1)),
    (GOLD, "features", UNDECIDED, [*rows("1-paired", ["gold"], -0.1), RULES]),
    (SELF, "features", HOLDS, rows("1-paired", [OTHER, "llama"])),
    (SELF, "features", HOLDS, [*rows("1-paired", [OTHER]), *rows("1-paired", ["sibling"], -0.1)]),
    (
        SELF,
        "features",
        CONTRADICTED,
        [*rows("1-paired", [OTHER]), *rows("1-paired", [OTHER], -0.1, condition=FITTED)],
    ),
    (SELF, "features", UNDECIDED, rows("1-paired", ["sibling", "rotated@0.5", "untrained"])),
    (SELF, "patching", HOLDS, one("2-paired", OTHER, 0.1)),
    (SELF, "patching", CONTRADICTED, one("2-paired", OTHER, -0.1)),
    (SELF, "patching", UNDECIDED, one("2-paired", "rotated", 0.1)),
    (SELF, "ablation", HOLDS, one("3-interaction", OTHER, 0.1)),
    (SELF, "ablation", CONTRADICTED, one("3-interaction", OTHER, -0.1)),
    (SELF, "ablation", UNDECIDED, one("3-interaction", OTHER, 0.1, reason=ONE_SEED)),
    (CLOSER, "features", HOLDS, similar(LADDER)),
    (CLOSER, "features", CONTRADICTED, similar(UPSIDE_DOWN)),
    (CLOSER, "features", UNDECIDED, similar(LADDER, seeds=[0])),
    (CLOSER, "features", UNDECIDED, similar({name: (x, 0.5) for name, (x, _) in LADDER.items()})),
    (CLOSER, "features", UNDECIDED, similar({"a": (0, 0), "b": (1, 1), "self": (2, 2)})),
    (CLOSER, "features", UNDECIDED, similar(dict(list(LADDER.items())[:3]) | {"self": (9, -9)})),
    (ALIGNED, "features", HOLDS, rows("1-projection", [OTHER])),
    (ALIGNED, "features", CONTRADICTED, rows("1-projection", [OTHER], -0.1)),
    (ALIGNED, "features", UNDECIDED, rows("1-projection", ["rotated"])),
    (DATA, "features", HOLDS, share(0.96)),
    (DATA, "features", CONTRADICTED, share(0.8)),
    (DATA, "features", UNDECIDED, share(0.92)),
    (DATA, "features", UNDECIDED, share(0.96, low=None, reason="trained for 1 and 10 epochs")),
    (
        VECTOR,
        "patching",
        HOLDS,
        [
            *one("2-vector", "self", 0.1, condition=SHUFFLED),
            *one("2-paired", "self", 0.01, condition="no-layer", half=0.01),
            *one("2-paired", "self", -0.01, condition="no-token", half=0.01),
        ],
    ),
    (
        VECTOR,
        "patching",
        CONTRADICTED,
        [
            *one("2-vector", "self", 0.1, condition=SHUFFLED),
            *one("2-paired", "self", 0.1, condition="no-layer", half=0.01),
        ],
    ),
    (VECTOR, "patching", UNDECIDED, one("2-vector", "self", 0.1, condition=SHUFFLED)),
    (VECTOR, "patching", UNDECIDED, one("2-vector", "self", 0.1, condition="full minus no-vector")),
    (READ, "patching", HOLDS, one("C.1", "self", 0.97)),
    (READ, "patching", CONTRADICTED, one("C.1", "self", 0.8)),
    (READ, "patching", UNDECIDED, one("C.1", "self", 0.97, seeds=[0])),
    (HINT, "ablation", HOLDS, says_changed(-0.02, trained_parameters=0, seeds=[0])),
    (HINT, "ablation", CONTRADICTED, says_changed(0.2)),
    (HINT, "ablation", UNDECIDED, says_changed(0.04)),
    (FAULT, "features", HOLDS, at_fault(0.27)),
    (FAULT, "features", CONTRADICTED, at_fault(0.6)),
    (FAULT, "features", UNDECIDED, at_fault(0.1, "share_automatic")),
]


@pytest.mark.parametrize(("claim", "task", "outcome", "records"), CASES)
def test_a_rule(claim, task, outcome, records):
    (verdict,) = (v for v in claim.check(records) if v.task == task)
    assert verdict.outcome == outcome, verdict.comparisons
    for each in verdict.comparisons:
        assert bool(each.reason) == (each.outcome == UNDECIDED)
    assert verdict.holding == sum(c.outcome == HOLDS for c in verdict.comparisons)


def test_every_claim_is_tried_in_every_outcome_and_says_what_it_needs():
    assert len(CLAIMS) == 10
    for claim in CLAIMS:
        tried = {outcome for other, _, outcome, _ in CASES if other is claim}
        assert tried == {HOLDS, CONTRADICTED, UNDECIDED}
        for verdict in claim.check([]):
            assert verdict.outcome == UNDECIDED and verdict.holding == 0
            assert {c.reason for c in verdict.comparisons} == {"not run"}


def test_how_many_hold_is_counted_column_by_column():
    records = [*rows("1-paired", BASELINES[:3]), *rows("1-paired", ["nn-layer"], -0.1)]
    (verdict, _) = TRAINED.check(records)
    assert verdict.outcome == CONTRADICTED
    assert (verdict.holding, len(verdict.comparisons)) == (12, 16)


def test_claims_are_records():
    found = claim_records(rows("1-paired", BASELINES))
    first = found[0]
    assert (first["table"], first["condition"], first["task"]) == ("claims", "1", "features")
    assert (first["value"], first["n"], first["reason"]) == (16, 16, HOLDS)
    assert len({(r["condition"], r["task"]) for r in found}) == len(found) == 13


@pytest.mark.parametrize("bound", [{"low": 0}, {"high": 0}, {"low": -1, "high": 1}])
def test_what_does_not_exist_decides_nothing(bound):
    one_cluster = record("x", "self", 0.5, EXACT) | {"low": None, "high": None}
    assert between(one_cluster, "a number of one row", **bound).outcome == UNDECIDED


def by_layer(r, half):
    """A record whose interval by layer is its value ± half."""
    error = {"stderr": half / 2, "low": r["value"] - half, "high": r["value"] + half}
    return r | {"error_by": {"layer": error}}


@pytest.mark.parametrize(("value", "by_feature"), [(0.1, HOLDS), (-0.1, CONTRADICTED)])
def test_what_the_error_by_layer_does_not_tell_from_a_bound_is_undecided(value, by_feature):
    narrow = record("x", "self", value, EXACT)
    assert between(narrow, "", 0).outcome == by_feature
    assert between(by_layer(narrow, 0.09), "", 0).outcome == by_feature
    wide = between(by_layer(narrow, 0.11), "", 0)
    assert (wide.outcome, wide.reason) == (UNDECIDED, "the interval by layer includes the bound")
