"""The paper's ten claims (`claims.yaml`), decided task by task from the records of `results.json`.

A comparison asks whether a number lies between two bounds. It *holds* if its 95% interval lies
between them (and, of a difference, p < 0.05 after Holm), is *contradicted* if the interval lies
outside, and is *undecided* otherwise: if the interval includes a bound, if it rests on one training
seed, if the number does not exist, or if it was not run.
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path

import yaml

from introspect_utils.report import style
from introspect_utils.report.record import ONE_SEED, record
from introspect_utils.report.table_rows import Row
from introspect_utils.scores.metrics import SIGNIFICANCE, rank_correlation

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
FIELDS = ("table", "explainer", "condition", "metric")
OTHER = "another model"


@dataclass(frozen=True)
class Comparison:
    """What is compared, its numbers, what it comes to, why it is undecided, and what made it."""

    what: str
    numbers: str = ""
    outcome: str = UNDECIDED
    reason: str = ""
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a claim comes to in one task: contradicted as soon as one comparison is, else holds if
    all hold, else undecided."""

    task: str
    comparisons: list[Comparison]

    @property
    def outcome(self) -> str:
        found = {each.outcome for each in self.comparisons}
        return CONTRADICTED if CONTRADICTED in found else HOLDS if found == {HOLDS} else UNDECIDED

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
    """A claim, where the paper makes it, and its rule: in words, and as comparisons of parts."""

    sentence: str
    where: str
    rule: str
    parts: list[dict]

    def check(self, records: list[dict]) -> list[Verdict]:
        """What it comes to in each task."""
        found: dict[str, list[Comparison]] = {}
        for part in self.parts:
            found.setdefault(part["task"], []).extend(_compared(part, records))
        return [Verdict(task, compared) for task, compared in found.items()]


CLAIMS = [
    Claim(**claim)
    for claim in yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text("utf-8"))
]


def claim_records(records: list[dict]) -> list[dict]:
    """Each claim in each task as a record: how many comparisons hold (`value`) of how many (`n`),
    and what that comes to (`reason`)."""
    found = []
    for number, claim in enumerate(CLAIMS, 1):
        for verdict in claim.check(records):
            made_by = dict.fromkeys(name for c in verdict.comparisons for name in c.artifacts)
            row = Row(verdict.task, "", "", "", str(number), None, [], ", ".join(made_by))
            told = {"n": len(verdict.comparisons), "reason": verdict.outcome}
            found.append(record("claims", row, "comparisons", verdict.holding, **told))
    return found


def _matches(r: dict, fields: dict) -> bool:
    """Whether a record has one of the values that a part names, in each field it names."""
    asked = [(key, fields[key]) for key in FIELDS if key in fields]
    return all(style.kind(r[k]) == "other" if v == OTHER else r[k] in v for k, v in asked)


def _compared(part: dict, records: list[dict]) -> list[Comparison]:
    if "ranked" in part:
        return _ranked(part["ranked"], records) or [Comparison(part["needs"], reason="not run")]
    rows = [r for r in records if _matches(r, part)]
    bounds = part.get("above", -inf), part.get("below", inf)
    found = [between(r, f"{part['what']} {_named(r)}".strip(), *bounds) for r in rows]
    if "unless" in part and any(_matches(r, part["unless"]) for r in records):
        found = [
            Comparison(c.what, c.numbers, UNDECIDED, part["reason"], c.artifacts) for c in found
        ]
    each = part.get("each")
    missing = [v for v in part[each] if v not in {r[each] for r in rows}] if each else []
    missing = [f"{part['what']} {style.LABELS.get(name, name)}".strip() for name in missing]
    missing += [part["needs"]] if not each and not found else []
    return found + [Comparison(what, reason="not run") for what in missing]


def _named(r: dict) -> str:
    """The target, the row and the column of a record."""
    name = r["metric"] if r["data"] == "test" else f"{r['data']} {r['metric']}"
    row = style.label(r["explainer"], r["condition"])
    return f"{row} of {r['target']}, {style.LABELS.get(name, name)}"


def between(r: dict, what: str, low: float = -inf, high: float = inf) -> Comparison:
    """Whether the number of a record lies between two bounds."""
    outcome, numbers, reason = UNDECIDED, "–", r["reason"] or "no interval"
    if r["low"] is not None:
        numbers = f"{100 * r['value']:.1f} ({100 * r['low']:.1f} to {100 * r['high']:.1f})"
        if ONE_SEED in reason or (r["trained_parameters"] and len(r["seeds"]) < 2):
            reason = ONE_SEED
        elif 0 in (low, high) and r["p"] is not None and r["p"] >= SIGNIFICANCE:
            reason = f"p = {r['p']:.2g}"
        elif low < r["low"] and r["high"] < high:
            outcome, reason = HOLDS, ""
        elif r["high"] < low or high < r["low"]:
            outcome, reason = CONTRADICTED, ""
        else:
            reason = "the interval includes the bound"
    return Comparison(what, numbers, outcome, reason, (r["artifact"],))


def _ranked(similarity: str, records: list[dict]) -> list[Comparison]:
    """Rank correlation of similarity and score of the explainers but self, in each column, of the
    training size with the most of them."""

    def name(r: dict) -> tuple:
        return r["target"], r["explainer"], r["condition"]

    of_table = [r for r in records if (r["table"], r["metric"]) == ("5", similarity)]
    similar = {name(r): r["value"] for r in of_table if r["explainer"] != "self"}
    columns: dict[tuple, dict[int, list[dict]]] = {}
    for r in records:
        if r["table"] in ("1", "scaling") and r["metric"] in ("judge", "simulator"):
            if name(r) in similar:
                by_size = columns.setdefault((r["data"], r["metric"]), {})
                by_size.setdefault(r["n_train"], []).append(r)
    found = []
    for (data, metric), by_size in columns.items():
        rows = max(by_size.values(), key=lambda rows: (len(rows), rows[0]["n_train"]))
        what = f"rank correlation of {len(rows)} explainers, {style.LABELS[f'{data} {metric}']}"
        scores = [r["value"] for r in rows]
        ranked = rank_correlation([similar[name(r)] for r in rows], scores) if rows[2:] else None
        numbers, outcome, reason = "–", UNDECIDED, "too few explainers, or all equal"
        if ranked:
            numbers, reason = f"{ranked[0]:+.2f}", f"p = {ranked[1]:.2g}"
        if ranked and any(len(r["seeds"]) < 2 for r in rows):
            reason = ONE_SEED
        elif ranked and ranked[1] < SIGNIFICANCE:
            outcome, reason = (HOLDS if ranked[0] > 0 else CONTRADICTED), ""
        artifacts = tuple(r["artifact"] for r in rows)
        found.append(Comparison(what, numbers, outcome, reason, artifacts))
    return found
