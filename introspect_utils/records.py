"""From the predictions of runs to the records of `results.json`, one for each number.

A record has the keys `table, task, data, target, explainer, condition, metric, value, stderr, n, seeds, n_train, paper, artifact,
p_vs_best`. `paper` is the published value where our target is the paper's target, else null (of Table 3 that of v1). `artifact`
is the checkpoint (from the repository's root) or, without one, the run's folder (beside `results.json`); those of several seeds
are joined by ", ". `p_vs_best` is the p of the paired t-test against the best row of the same table, target and metric: bold is
p >= 0.05. Records of table "2-vector" are paired differences (value may be negative), those of tables "6" and "7" counts;
"sec5.2" says what lies behind a row of Table 3, and "hints" how often the target follows a hint.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import metrics
from .errors import UserError
from .paper import PATCHING_METRICS, count_condition, model_name, published

SURFACE = (
    "lookup",
    "majority",
    "unchanged",
    "hint-letter",
    "majority-letter",
    "logistic",
    "oracle",
)  # they see neither vector nor model
VECTOR_CONTROLS = ("no-vector", "zero-vector", "shuffled-vector")
OUTCOME_TABLES = {"patching": "2", "ablation": "3"}  # explanations of the form "changes to" / "remains unchanged from"


@dataclass(frozen=True, eq=False)
class Row:
    """What one table row rests on: an explainer under a condition, s training seeds scored on the same n test rows."""

    task: str
    target: str
    explainer: str
    condition: str
    n_train: int | None
    seeds: list[int]
    artifact: str
    rows: np.ndarray  # [n] the test rows' numbers
    truth: np.ndarray  # [n] 1 changed, 0 unchanged
    predicted: np.ndarray  # [s, n] 1, 0, or UNPARSEABLE
    exact_match: np.ndarray  # [s, n] 0/1 floats, as the next two
    has_changed: np.ndarray
    content_match: np.ndarray
    says_hint: np.ndarray | None  # the content is the hint's letter; where there are hints

    def scores(self, metric: str) -> np.ndarray:
        """Per-row scores [s, n]; for macro-F1, which has none, the has-changed correctness (the t-test's stand-in)."""
        return getattr(self, {"has_changed_f1": "has_changed"}.get(metric, metric))


def _names(run: dict, explainer: str, condition: str) -> tuple[str, str]:
    """(explainer, condition) as records say it: the target itself is "self", an untrained model an explainer of its own."""
    name = "self" if explainer in (run["target"], "self") else explainer
    if condition == "untrained":
        return ("untrained" if name in ("self", "untrained") else f"untrained {name}"), "full"
    return name, "full" if name in SURFACE else condition


def _rows(runs: list[tuple[dict, pd.DataFrame]]) -> list[Row]:
    """The predictions of all runs, one `Row` for each (task, target, explainer, condition, number of training rows)."""
    parts: dict[tuple, list[tuple[dict, pd.DataFrame]]] = {}
    for run, predictions in runs:
        for (explainer, condition), part in predictions.groupby(["explainer", "condition"]):
            key = (run["task"], run["target"], *_names(run, explainer, condition), run["n_train"])
            parts.setdefault(key, []).append((run, part.sort_values("row")))
    rows, test_sets = [], {}
    for key, found in parts.items():
        found.sort(key=lambda pair: pair[0]["seed"] or 0)
        for run, part in found:
            located = key[3] == "locate"
            test_set = part[["row"]] if located else part[["row", "is_different", "content"]]
            first = test_sets.setdefault((key[:2], located), (run["id"], test_set))
            if not np.array_equal(first[1].to_numpy(), test_set.to_numpy()):
                raise UserError(
                    f"runs {first[0]} and {run['id']} were scored on different test rows: delete the older, run again"
                )

        def stack(column, found=found):
            return np.stack([part[column].to_numpy(dtype=float) for _, part in found])

        with_hints = "hint" in found[0][1]

        rows.append(
            Row(
                *key,
                seeds=[run["seed"] for run, _ in found if run["seed"] is not None],
                artifact=", ".join(run["checkpoint"] or f"runs/{run['id']}" for run, _ in found),
                rows=found[0][1]["row"].to_numpy(),
                truth=metrics.codes(found[0][1]["is_different"]),
                predicted=np.stack([metrics.codes(part["predicted_changed"]) for _, part in found]),
                exact_match=stack("exact_match"),
                has_changed=stack("has_changed"),
                content_match=stack("content_match"),
                says_hint=np.stack([part["predicted_content"] == part["hint"] for _, part in found]) if with_hints else None,
            )
        )
    return rows


def _record(table: str, row: Row, metric: str, score: tuple[float, float], p: float | None = None, condition: str = "") -> dict:
    """One record; `condition` where it is not the row's own (a difference)."""
    condition = condition or row.condition
    names = {"target": model_name(row.target), "explainer": model_name(row.explainer), "condition": condition}
    paper = published(table=table, metric=metric, **names)
    return {
        "table": table,
        "task": row.task,
        "data": "test",
        "target": row.target,
        "explainer": row.explainer,
        "condition": condition,
        "metric": metric,
        "value": round(score[0], 6),
        "stderr": round(score[1], 6),
        "n": len(row.rows),
        "seeds": row.seeds,
        "n_train": row.n_train,
        "paper": paper and paper.value,
        "artifact": row.artifact,
        "p_vs_best": None if p is None else float(f"{p:.4g}"),
    }


def _score(row: Row, metric: str) -> tuple[float, float]:
    if metric == "has_changed_f1":
        return metrics.f1_score(row.truth, row.predicted)
    return metrics.mean_score(row.scores(metric))


def _outcomes(rows: list[Row]) -> list[dict]:
    """Table 2 or 3: the three metrics with the test against the best, and the share of unparseable answers; `rows` of one target.

    An oracle is told what explainers have to find out: it is no competitor.
    """
    found, table = [], OUTCOME_TABLES[rows[0].task]
    for metric in PATCHING_METRICS:
        scores = [_score(row, metric) for row in rows]
        competing = [i for i, row in enumerate(rows) if row.explainer != "oracle"]
        p = metrics.p_vs_best({i: scores[i][0] for i in competing}, {i: rows[i].scores(metric).mean(axis=0) for i in competing})
        found += [_record(table, row, metric, scores[i], p.get(i)) for i, row in enumerate(rows)]
    unparseable = [metrics.mean_score((row.predicted == metrics.UNPARSEABLE).astype(float)) for row in rows]
    return found + [_record(table, row, "unparseable", score) for row, score in zip(rows, unparseable, strict=True)]


def _behind(row: Row) -> list[dict]:
    """Section 5.2's closer look: share of "changed", of the hint's letter; content match on changed and on unchanged rows."""
    found = [_record("sec5.2", row, "predicted_changed", metrics.mean_score((row.predicted == 1).astype(float)))]
    found.append(_record("sec5.2", row, "predicts_hint", metrics.mean_score(row.says_hint.astype(float))))
    for condition, label in (("changed rows", 1), ("unchanged rows", 0)):
        of_label = row.truth == label
        if of_label.any():
            score = metrics.mean_score(row.content_match[:, of_label])
            found.append(_record("sec5.2", row, "content_match", score, condition=condition) | {"n": int(of_label.sum())})
    return found


def _vector(rows: list[Row]) -> list[dict]:
    """What the vector adds: full minus each control of the same explainer, paired by test row and by the seeds both have."""
    found, full = [], {row.explainer: row for row in rows if row.condition == "full"}
    for row in rows:
        a = full.get(row.explainer)
        both = [seed for seed in row.seeds if a and seed in a.seeds]
        if row.condition not in VECTOR_CONTROLS or not both:
            continue
        of_a, of_b = [a.seeds.index(seed) for seed in both], [row.seeds.index(seed) for seed in both]
        for metric in PATCHING_METRICS:
            if metric == "has_changed_f1":
                score = metrics.f1_difference(row.truth, a.predicted[of_a], row.predicted[of_b])
            else:
                score = metrics.mean_score(a.scores(metric)[of_a] - row.scores(metric)[of_b])
            found.append(_record("2-vector", row, metric, score, condition=f"full minus {row.condition}") | {"seeds": both})
    return found


def _count(run: dict, table: str, split: str, condition: str, value: int, n: int) -> dict:
    """One count of a data run."""
    paper = published(table=table, data=split, target=model_name(run["target"]), condition=condition)
    return (
        {"table": table, "task": run["task"], "data": split, "target": run["target"], "explainer": ""}
        | {"condition": condition, "metric": "count", "value": value, "stderr": None, "n": n, "seeds": []}
        | {"n_train": None, "paper": paper and paper.value, "artifact": f"runs/{run['id']}", "p_vs_best": None}
    )


def _table_6(run: dict) -> list[dict]:
    """Rows per split, token type, layer block and has-changed of a data run."""
    found, cells = [], run["statistics"].get("table6", [])
    for cell in cells:
        n = sum(other["unchanged"] + other["changed"] for other in cells if other["split"] == cell["split"])
        for label in ("unchanged", "changed"):
            condition = count_condition(cell["token_type"], cell["layers"], label)
            found.append(_count(run, "6", cell["split"], condition, cell[label], n))
    return found


def _table_7(run: dict) -> list[dict]:
    """Changed and unchanged rows of each split of a data run."""
    cells = run["statistics"].get("table7", [])
    total = {cell["split"]: cell["changed"] + cell["unchanged"] for cell in cells}
    labels = ("changed", "unchanged")
    return [_count(run, "7", cell["split"], label, cell[label], total[cell["split"]]) for cell in cells for label in labels]


def _hints(run: dict) -> list[dict]:
    """How often the target follows a hint, by subject and by whether its answer without the hint is right."""
    found = []
    for cell in run["statistics"].get("followed", []):
        share, n = cell["followed"] / cell["n"], cell["n"]
        condition = f"{cell['subject']} / {'right' if cell['right'] else 'wrong'}"
        score = {"metric": "follows_hint", "value": round(share, 6), "stderr": round((share * (1 - share) / n) ** 0.5, 6)}
        found.append(_count(run, "hints", "train and test", condition, 0, n) | score)
    return found


def records(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """All records of the runs, sorted. Tables 2 and 3 take each explainer's largest training size; table "scaling" the others."""
    rows = _rows(runs)
    located = [row for row in rows if row.condition == "locate"]
    explained = [row for row in rows if row.condition != "locate"]
    largest: dict[tuple, int] = {}
    for row in explained:
        key = (row.task, row.target, row.explainer)
        largest[key] = max(largest.get(key, 0), row.n_train or 0)
    in_table = [row for row in explained if (row.n_train or 0) == largest[row.task, row.target, row.explainer]]
    smaller = [row for row in explained if row not in in_table]
    found = [_record("C.1", row, "exact_match", _score(row, "exact_match")) for row in located]
    found += [_record("scaling", row, metric, _score(row, metric)) for row in smaller for metric in PATCHING_METRICS]
    for task, target in sorted({(row.task, row.target) for row in in_table}):
        of_target = [row for row in in_table if (row.task, row.target) == (task, target)]
        found += _outcomes(of_target) + _vector(of_target)
    found += [record for row in in_table if row.says_hint is not None for record in _behind(row)]
    found += [record for run, _ in runs for record in _table_6(run) + _table_7(run) + _hints(run)]
    keys = ("table", "task", "target", "explainer", "condition", "data", "metric", "n_train")
    return sorted(found, key=lambda record: [str(record[key]) for key in keys])
