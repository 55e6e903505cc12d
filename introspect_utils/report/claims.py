"""The paper's ten claims (`claims.yaml`), decided task by task from the records of `results.json`.

A comparison asks whether a number lies between two bounds. It *holds* if its 95% interval lies
between them (and, of a difference, p < 0.05 after Holm), is *contradicted* if the interval lies
outside, and is *undecided* otherwise: if the interval includes a bound, if it rests on one training
seed, if the number does not exist, or if it was not run. The interval is the widest by any of the
task's clusters: what holds by feature and not by layer is undecided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import NamedTuple

import yaml

from introspect_utils.report import style
from introspect_utils.report.table_rows import ONE_SEED, Row, record, widest
from introspect_utils.report.tables import COLUMNS, column
from introspect_utils.scores.metrics import SIGNIFICANCE, rank_correlation

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
FIELDS = ("table", "explainer", "condition", "metric")
OTHER = "another model"


class Comparison(NamedTuple):
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


_YAML = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text("utf-8"))
CLAIMS = [Claim(**claim) for claim in _YAML]


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
        found = [each._replace(outcome=UNDECIDED, reason=part["reason"]) for each in found]
    missing = [] if found else [part.get("needs", part["what"])]
    if each := part.get("each"):
        absent = [name for name in part[each] if name not in {r[each] for r in rows}]
        missing = [f"{part['what']} {style.LABELS.get(name, name)}".strip() for name in absent]
    return found + [Comparison(what, reason="not run") for what in missing]


def _named(r: dict) -> str:
    """The target, the row and the column of a record."""
    name = r["metric"] if r["data"] == "test" else f"{r['data']} {r['metric']}"
    row = style.label(r["explainer"], r["condition"])
    return f"{row} of {r['target']}, {style.LABELS.get(name, name)}"


def between(r: dict, what: str, low: float = -inf, high: float = inf) -> Comparison:
    """Whether the number of a record lies between two bounds."""
    artifacts = (r["artifact"],)
    if r["low"] is None:
        return Comparison(what, "–", UNDECIDED, r["reason"] or "no interval", artifacts)
    half, by = widest(r)
    outcome, reason = UNDECIDED, f"the interval{by} includes the bound"
    if ONE_SEED in (r["reason"] or "") or (r["trained_parameters"] and len(r["seeds"]) < 2):
        reason = ONE_SEED
    elif 0 in (low, high) and r["p"] is not None and r["p"] >= SIGNIFICANCE:
        reason = f"p = {r['p']:.2g}"
    elif low < r["value"] - half and r["value"] + half < high:
        outcome, reason = HOLDS, ""
    elif r["value"] + half < low or high < r["value"] - half:
        outcome, reason = CONTRADICTED, ""
    numbers = f"{100 * r['value']:.1f} ({100 * r['low']:.1f} to {100 * r['high']:.1f})"
    return Comparison(what, numbers, outcome, reason, artifacts)


def _ranked(similarity: str, records: list[dict]) -> list[Comparison]:
    """Rank correlation of similarity and score of the explainers but self, in each column."""
    found = []
    for name in COLUMNS:
        shown = next(iter(points(records, similarity, name).values()), [])
        others = [(x, r) for x, r in shown if r["explainer"] != "self"]
        if not others:
            continue
        what = f"rank correlation of {len(others)} explainers, {style.LABELS[name]}"
        numbers, outcome, reason = "–", UNDECIDED, "too few explainers, or all equal"
        if found_rank := rank(others):
            rho, p = found_rank
            numbers, reason = f"{rho:+.2f}", f"p = {p:.2g}"
            if any(len(r["seeds"]) < 2 for _, r in others):
                reason = ONE_SEED
            elif p < SIGNIFICANCE:
                outcome, reason = (HOLDS if rho > 0 else CONTRADICTED), ""
        artifacts = tuple(r["artifact"] for _, r in others)
        found.append(Comparison(what, numbers, outcome, reason, artifacts))
    return found


def points(records: list[dict], metric: str, name: str) -> dict[int, list[tuple[float, dict]]]:
    """{training size: [(similarity, record of the score)]} of the explainers that have both, scores
    in a column of Table 1: of the size with the most of them, then of the largest. A second
    target's explainers are left out: scores of other directions do not compare."""
    targets = {r["target"] for r in records if r["table"] == "1"}
    of_target = [r for r in records if r["target"] in targets]
    similar = {
        (r["explainer"], r["condition"]): r["value"]
        for r in of_target
        if (r["table"], r["metric"]) == ("5", metric)
    }
    by_size: dict[int, list[tuple[float, dict]]] = {}
    for r in of_target:
        key = (r["explainer"], r["condition"])
        if r["table"] in ("1", "scaling") and key in similar and column(r) == name:
            by_size.setdefault(r["n_train"], []).append((similar[key], r))
    sizes = sorted(by_size, key=lambda n_train: (len(by_size[n_train]), n_train))[-1:]
    return {n_train: by_size[n_train] for n_train in [*sizes, *sorted(by_size)[-1:]]}


def rank(shown: Sequence[tuple[float, dict]]) -> tuple[float, float] | None:
    """(Spearman's rho of similarity and score, its p) of three explainers or more, as `points`
    gives them; None if all are equal."""
    scores = [r["value"] for _, r in shown]
    return rank_correlation([x for x, _ in shown], scores) if len(shown) > 2 else None
