"""From the predictions of runs to the records of `results.json`, one for each number.

A record has the keys `table, task, data, target, explainer, condition, metric, value, stderr, n,
seeds, n_train, trained_parameters, paper, artifact, p_vs_best`. `paper` is the published value
where our target is the paper's target, else null (of Table 3 that of v1). `artifact` is the
checkpoint (from the repository's root) or, without one, the run's folder (beside `results.json`);
those of several seeds are joined by ", ". `p_vs_best` is the p of the paired t-test against the
best row of the same table, target, data and metric: bold is p >= 0.05. Records of table "2-vector"
and of those ending in "-paired" (self minus the row named) are paired differences, so their value
may be negative; those of tables "6" and "7" are counts; "sec5.2" says what lies behind a row of
Table 3, and "hints" how often the target follows a hint. Of feature descriptions, table "1" is of
the first target among the runs, "4" of those after it; `feature_records` says what else there is.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from introspect_utils.report.feature_records import feature_records
from introspect_utils.report.paper import PATCHING_METRICS, count_condition
from introspect_utils.report.table_rows import (
    Row,
    against_self,
    by_size,
    count,
    grouped,
    record,
    stacked,
)
from introspect_utils.scores import metrics
from introspect_utils.tasks import TASKS

VECTOR_CONTROLS = ("no-vector", "zero-vector", "shuffled-vector")


@dataclass(frozen=True, eq=False)
class OutcomeRow(Row):
    """A table row of patching or ablation."""

    truth: np.ndarray  # [n] 1 changed, 0 unchanged
    predicted: np.ndarray  # [s, n] 1, 0, or UNPARSEABLE
    exact_match: np.ndarray  # [s, n] 0/1 floats, as the next two
    has_changed: np.ndarray
    content_match: np.ndarray
    says_hint: np.ndarray | None  # the content is the hint's letter; where there are hints

    def scores(self, metric: str) -> np.ndarray:
        """Per-row scores [s, n]; for macro-F1, which has none, the has-changed correctness (the
        t-test's stand-in)."""
        return getattr(self, {"has_changed_f1": "has_changed"}.get(metric, metric))


def _rows(runs: list[tuple[dict, pd.DataFrame]]) -> list[OutcomeRow]:
    """The predictions of the runs of patching and ablation, by table row."""
    rows = []
    for fields, parts in grouped(runs):
        with_hints = "hint" in parts[0]
        rows.append(
            OutcomeRow(
                **fields,
                truth=metrics.codes(parts[0]["is_different"]),
                predicted=np.stack([metrics.codes(part["predicted_changed"]) for part in parts]),
                exact_match=stacked(parts, "exact_match"),
                has_changed=stacked(parts, "has_changed"),
                content_match=stacked(parts, "content_match"),
                says_hint=np.stack([part["predicted_content"] == part["hint"] for part in parts])
                if with_hints
                else None,
            )
        )
    return rows


def _score(row: OutcomeRow, metric: str) -> tuple[float, float]:
    if metric == "has_changed_f1":
        return metrics.f1_score(row.truth, row.predicted)
    return metrics.mean_score(row.scores(metric))


def _outcomes(rows: list[OutcomeRow]) -> list[dict]:
    """Table 2 or 3: the three metrics with the test against the best, and the share of unparseable
    answers; `rows` of one target.

    An oracle is told what explainers have to find out: it is no competitor.
    """
    found, table = [], TASKS[rows[0].task].table
    for metric in PATCHING_METRICS:
        scores = [_score(row, metric) for row in rows]
        competing = [i for i, row in enumerate(rows) if row.explainer != "oracle"]
        p = metrics.p_vs_best(
            {i: scores[i][0] for i in competing},
            {i: rows[i].scores(metric).mean(axis=0) for i in competing},
        )
        found += [record(table, row, metric, scores[i], p.get(i)) for i, row in enumerate(rows)]
    unparseable = [
        metrics.mean_score((row.predicted == metrics.UNPARSEABLE).astype(float)) for row in rows
    ]
    return found + [
        record(table, row, "unparseable", score)
        for row, score in zip(rows, unparseable, strict=True)
    ]


def _behind(row: OutcomeRow) -> list[dict]:
    """Section 5.2's closer look: share of "changed", of the hint's letter; content match on changed
    and on unchanged rows."""
    found = [
        record(
            "sec5.2",
            row,
            "predicted_changed",
            metrics.mean_score((row.predicted == 1).astype(float)),
        )
    ]
    found.append(
        record("sec5.2", row, "predicts_hint", metrics.mean_score(row.says_hint.astype(float)))
    )
    for condition, label in (("changed rows", 1), ("unchanged rows", 0)):
        of_label = row.truth == label
        if of_label.any():
            score = metrics.mean_score(row.content_match[:, of_label])
            found.append(
                record("sec5.2", row, "content_match", score, condition=condition)
                | {"n": int(of_label.sum())}
            )
    return found


def _vector(rows: list[OutcomeRow]) -> list[dict]:
    """What the vector adds: full minus each control of the same explainer, paired by test row and
    by the seeds both have."""
    found, full = [], {row.explainer: row for row in rows if row.condition == "full"}
    for row in rows:
        a = full.get(row.explainer)
        both = [seed for seed in row.seeds if a and seed in a.seeds]
        if row.condition not in VECTOR_CONTROLS or not both:
            continue
        of_a, of_b = (
            [a.seeds.index(seed) for seed in both],
            [row.seeds.index(seed) for seed in both],
        )
        for metric in PATCHING_METRICS:
            if metric == "has_changed_f1":
                score = metrics.f1_difference(row.truth, a.predicted[of_a], row.predicted[of_b])
            else:
                score = metrics.mean_score(a.scores(metric)[of_a] - row.scores(metric)[of_b])
            found.append(
                record("2-vector", row, metric, score, condition=f"full minus {row.condition}")
                | {"seeds": both}
            )
    return found


def _paired(rows: list[OutcomeRow]) -> list[dict]:
    """The self-explainer minus each other row of Table 2 or 3 of one target, paired as in Table
    1."""
    found = []
    for a, b, both, of_a, of_b in against_self(rows):
        for metric in PATCHING_METRICS:
            if metric == "has_changed_f1":
                score = metrics.f1_difference(a.truth, a.predicted[of_a], b.predicted[of_b])
            else:
                score = metrics.mean_score(a.scores(metric)[of_a] - b.scores(metric)[of_b])
            p = metrics.paired_p(
                a.scores(metric)[of_a].mean(axis=0), b.scores(metric)[of_b].mean(axis=0)
            )
            found.append(
                record(f"{TASKS[a.task].table}-paired", b, metric, score, p) | {"seeds": both}
            )
    return found


def _table_6(run: dict) -> list[dict]:
    """Rows per split, token type, layer block and has-changed of a data run."""
    found, cells = [], run["statistics"].get("table6", [])
    for cell in cells:
        n = sum(
            other["unchanged"] + other["changed"]
            for other in cells
            if other["split"] == cell["split"]
        )
        for label in ("unchanged", "changed"):
            condition = count_condition(cell["token_type"], cell["layers"], label)
            found.append(count(run, "6", cell["split"], condition, cell[label], n))
    return found


def _table_7(run: dict) -> list[dict]:
    """Changed and unchanged rows of each split of a data run."""
    cells = run["statistics"].get("table7", [])
    total = {cell["split"]: cell["changed"] + cell["unchanged"] for cell in cells}
    labels = ("changed", "unchanged")
    return [
        count(run, "7", cell["split"], label, cell[label], total[cell["split"]])
        for cell in cells
        for label in labels
    ]


def _hints(run: dict) -> list[dict]:
    """How often the target follows a hint, by subject and by whether its answer without the hint is
    right."""
    found = []
    for cell in run["statistics"].get("followed", []):
        share, n = cell["followed"] / cell["n"], cell["n"]
        condition = f"{cell['subject']} / {'right' if cell['right'] else 'wrong'}"
        score = {
            "metric": "follows_hint",
            "value": round(share, 6),
            "stderr": round((share * (1 - share) / n) ** 0.5, 6),
        }
        found.append(count(run, "hints", "train and test", condition, 0, n) | score)
    return found


def records(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """All records of the runs, sorted. Tables 1 to 4 take each explainer's largest training size;
    table "scaling" the others."""
    rows = _rows([(run, said) for run, said in runs if not TASKS[run["task"]].simulated])
    located = [row for row in rows if row.condition == "locate"]
    in_table, smaller = by_size([row for row in rows if row.condition != "locate"])
    found = [record("C.1", row, "exact_match", _score(row, "exact_match")) for row in located]
    found += [
        record("scaling", row, metric, _score(row, metric))
        for row in smaller
        for metric in PATCHING_METRICS
    ]
    for task, target in sorted({(row.task, row.target) for row in in_table}):
        of_target = [row for row in in_table if (row.task, row.target) == (task, target)]
        found += _outcomes(of_target) + _vector(of_target) + _paired(of_target)
    found += [behind for row in in_table if row.says_hint is not None for behind in _behind(row)]
    found += [counted for run, _ in runs for counted in _table_6(run) + _table_7(run) + _hints(run)]
    found += feature_records([(run, said) for run, said in runs if TASKS[run["task"]].simulated])
    keys = ("table", "task", "target", "explainer", "condition", "data", "metric", "n_train")
    return sorted(found, key=lambda record: [str(record[key]) for key in keys])
