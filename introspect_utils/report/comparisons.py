"""The comparisons that the paper's claims rest on: each a function from the records of
`results.json`.

A comparison asks whether a number lies between two bounds. It *holds* if its 95% interval lies
between them (and, of a difference, p < 0.05 after Holm), is *contradicted* if the interval lies
outside, and is *undecided* otherwise: if the interval includes a bound, if it rests on one training
seed, if the number does not exist, or if it was not run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from introspect_utils.report import style
from introspect_utils.report.record import ONE_SEED
from introspect_utils.scores.metrics import SIGNIFICANCE, rank_correlation

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
COMPARABLE = 0.9  # share of a score that counts as reached
EQUIVALENT = 0.03  # 3 points: a smaller difference counts as none
READ = 0.9  # exact match that counts as read
RARELY = 0.05  # by how much more often "changed" may be said of changed rows and still count as not


@dataclass(frozen=True)
class Comparison:
    """What is compared, its numbers, what it comes to, why it is undecided, and what made it."""

    what: str
    numbers: str = ""
    outcome: str = UNDECIDED
    reason: str = ""
    artifacts: tuple[str, ...] = ()


def between(r: dict, what: str, low: float = -inf, high: float = inf) -> Comparison:
    """Whether the number of a record lies between two bounds."""
    outcome, reason = UNDECIDED, r["reason"] or ""
    one_seed = bool(r["trained_parameters"]) and len(r["seeds"]) < 2
    if r["low"] is None:
        return Comparison(what, "–", UNDECIDED, reason or "no interval", (r["artifact"],))
    if one_seed or ONE_SEED in reason:
        reason = ONE_SEED
    elif r["p"] is not None and r["p"] >= SIGNIFICANCE and (low, high) in ((0, inf), (-inf, 0)):
        reason = f"p = {r['p']:.2g}"
    elif low < r["low"] and r["high"] < high:
        outcome, reason = HOLDS, ""
    elif r["high"] < low or high < r["low"]:
        outcome, reason = CONTRADICTED, ""
    else:
        reason = "the interval includes the bound"
    numbers = f"{100 * r['value']:.1f} ({100 * r['low']:.1f} to {100 * r['high']:.1f})"
    return Comparison(what, numbers, outcome, reason, (r["artifact"],))


def _pick(records: list[dict], **fields) -> list[dict]:
    return [r for r in records if all(r[key] == value for key, value in fields.items())]


def _named(r: dict) -> str:
    """The row and the column of a record."""
    name = r["metric"] if r["data"] == "test" else f"{r['data']} {r['metric']}"
    row = style.label(r["explainer"], r["condition"])
    return f"{r['target']}: {row}, {style.LABELS.get(name, name)}"


def _is_another_model(explainer: str) -> bool:
    """Whether it is a trained model other than the target, its sibling and the target rotated."""
    return style.kind(explainer) == "other"


def ahead(records: list[dict], table: str, explainers: Iterable[str], **fields) -> list[Comparison]:
    """The self-explainer minus each of `explainers`, in each column: above 0."""
    found = []
    for explainer in explainers:
        rows = _pick(records, table=table, explainer=explainer, condition="full", **fields)
        found += [between(r, f"Self minus {_named(r)}", 0) for r in rows]
        found += (
            [] if rows else [Comparison(f"Self minus {style.label(explainer)}", reason="not run")]
        )
    return found


def beats_baselines(records: list[dict]) -> list[Comparison]:
    return ahead(records, "1-paired", ("untrained", "selfie", "nn-all", "nn-layer"))


def beats_untrained(records: list[dict]) -> list[Comparison]:
    return ahead(records, "2-paired", ("untrained",), metric="exact_match")


def beats_gold(records: list[dict]) -> list[Comparison]:
    """Not to be tested with labels that rules made and the simulator that scores chose."""
    found = ahead(records, "1-paired", ("gold",), metric="simulator")
    if _pick(records, table="scored-by", metric="labels", condition="rules"):
        reason = "cannot be tested: rules made the labels, and the simulator that scores chose them"
        return [Comparison(c.what, c.numbers, UNDECIDED, reason, c.artifacts) for c in found]
    return found


def beats_other_models(records: list[dict]) -> list[Comparison]:
    """Another model with a fitted projection is another model too."""
    rows = [
        r
        for table in ("1-paired", "4-paired")
        for r in _pick(records, table=table)
        if _is_another_model(r["explainer"])
        and r["condition"] in ("full", "pretrained-projection", "lora")
    ]
    return [between(r, f"Self minus {_named(r)}", 0) for r in rows]


def beats_others_at_patching(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="2-paired", condition="full", metric="exact_match")
    return [
        between(r, f"Self minus {_named(r)}", 0) for r in rows if _is_another_model(r["explainer"])
    ]


def each_explains_itself(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="3-interaction", metric="exact_match")
    return [between(r, f"{r['condition']}, exact match", 0) for r in rows]


def closer_is_better(records: list[dict]) -> list[Comparison]:
    """Similarity (dot product) and score of the explainers but self, of the size with the most."""
    similar = {
        (r["target"], r["explainer"], r["condition"]): r["value"]
        for r in _pick(records, table="5", metric="dot_product")
        if r["explainer"] != "self"
    }
    columns: dict[tuple, dict[int, list[dict]]] = {}
    for r in records:
        if r["table"] in ("1", "scaling") and r["metric"] in ("judge", "simulator"):
            if (r["target"], r["explainer"], r["condition"]) in similar:
                by_size = columns.setdefault((r["data"], r["metric"]), {})
                by_size.setdefault(r["n_train"], []).append(r)
    return [
        _ranked(max(by_size.values(), key=lambda rows: (len(rows), rows[0]["n_train"])), similar)
        for by_size in columns.values()
    ]


def _ranked(rows: list[dict], similar: dict[tuple, float]) -> Comparison:
    first, values = rows[0], [r["value"] for r in rows]
    name = style.LABELS.get(f"{first['data']} {first['metric']}", first["metric"])
    what = f"rank correlation of {len(rows)} explainers, {name}"
    artifacts = tuple(r["artifact"] for r in rows)
    keys = [(r["target"], r["explainer"], r["condition"]) for r in rows]
    ranked = rank_correlation([similar[key] for key in keys], values) if len(rows) > 2 else None
    if not ranked:
        return Comparison(what, "–", UNDECIDED, "too few explainers, or all equal", artifacts)
    rho, p = ranked
    outcome, reason = (HOLDS if rho > 0 else CONTRADICTED), ""
    if any(len(r["seeds"]) < 2 for r in rows):
        outcome, reason = UNDECIDED, ONE_SEED
    elif p >= SIGNIFICANCE:
        outcome, reason = UNDECIDED, f"p = {p:.2g}"
    return Comparison(what, f"{rho:+.2f}", outcome, reason, artifacts)


def aligned_is_better(records: list[dict]) -> list[Comparison]:
    rows = [r for r in _pick(records, table="1-projection") if _is_another_model(r["explainer"])]
    return [between(r, f"{r['explainer']}, {r['condition']}, {_named(r)}", 0) for r in rows]


def needs_less_data(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="sec4", explainer="self", metric="share-of-nn-all-over-floor")
    what = "Self of 0.8% of the directions, share of the nearest neighbour of all, over the floor"
    return [between(r, what, COMPARABLE) for r in rows]


def reads_the_vector(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="2-vector", explainer="self", metric="exact_match")
    return [
        between(r, f"{r['target']}: Self, {r['condition']}", 0)
        for r in _pick(rows, condition="full minus shuffled-vector")
    ]


def annotations_add_nothing(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="2-paired", explainer="self", metric="exact_match")
    return [
        between(r, f"Self minus {_named(r)}", -EQUIVALENT, EQUIVALENT)
        for r in rows
        if r["condition"] in ("no-layer", "no-token")
    ]


def reads_layer_and_token(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="C.1", explainer="self", metric="exact_match")
    return [between(r, f"{r['target']}: layers and token both right", READ) for r in rows]


def does_not_admit(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="sec5.2", explainer="untrained", metric="predicted_changed")
    what = "says “changed” of changed rows more often than of unchanged ones by"
    return [
        between(r, f"{r['target']}: untrained {what}", high=RARELY)
        for r in _pick(rows, condition="changed minus unchanged rows")
    ]


def few_are_its_fault(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="fig8", condition="explainer model error", metric="share")
    what = "zero scores that are the explainer's error"
    return [between(r, f"{r['target']}: {what}", high=0.5) for r in rows]
