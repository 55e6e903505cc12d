"""From the predictions of runs to the records of `results.json`, one for each number.

Keys of a record: `table, task, data, target, explainer, condition, metric, n_train` name it and
occur together once. `value` has its `stderr` and 95% interval `low` to `high` over `n` test rows in
`n_clusters` clusters (`clusters`: their column, null if the rows count as independent) and over
`seeds`; `stderr_by` has the error by the task's other clusters. `p` is, in a table, of the
difference to the best row of the column; in a difference, of the difference, after Holm over the
columns of the comparison. `reason` says why `p` or `value` is null, or what a claim comes to.
`paper` is the published value (v1) if our target is the paper's. `artifact` is the checkpoint (from
the repository's root) or the run's folder (beside `results.json`), joined by ", " over seeds.

Tables beside the paper's: "X-paired" is self minus the row named, "X-vector" what the vector adds
to an explainer and "X-vector-paired" how much more it adds to self, "X-interaction" what two models
gain together by explaining themselves and not each other; "scaling" and "scaling-paired" are of
smaller training sizes; "answers" says how alike the answers are, "sec5.2" what lies behind Table 3.
`feature_records` says what else features have; "claims" is of `claims`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from introspect_utils.report.claims import claim_records
from introspect_utils.report.feature_records import feature_records, projections, splits
from introspect_utils.report.paper import count_condition, lookup, table_6_outcomes
from introspect_utils.report.record import ONE_SEED, count, difference, measured, part_of, record
from introspect_utils.report.table_rows import Row, by_size, pairs, rows_of
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import TASKS

KEYS = ("table", "task", "target", "explainer", "condition", "data", "metric", "n_train")
DIFFERENCES = ("-paired", "-vector", "-interaction", "-projection")  # ends of tables' names
EXTRA = ("unparseable", "simulator_abs", "constant", "judge_high")  # metrics of tables besides
COMPARED = ("simulator_abs",)  # of these, those with a best row
WITHOUT = {  # conditions that take the vector away; the last is another training
    "shuffled-vector": "full minus shuffled-vector",
    "zero-vector": "full minus zero-vector",
    "no-vector": "full minus no-vector",
}


def metrics_of(row: Row, extra: Iterable[str] = ()) -> list[str]:
    """The task's metrics, then those of `extra`, that the row has numbers of."""
    source = {"unparseable": "predicted_changed", "judge_high": "judge"}
    source["has_changed_f1"] = "predicted_changed"
    every = (*TASKS[row.task].metrics, *extra)
    return [metric for metric in every if source.get(metric, metric) in row.columns]


def competes(row: Row, metric: str) -> bool:
    """Whether a row may be the best of a column. An oracle is told the answer, gold labels are what
    the judge compares with."""
    if (row.explainer, metric) == ("gold", "judge") or row.explainer == "oracle":
        return False
    return metric in (*TASKS[row.task].metrics, *COMPARED)


def in_table(table: str, rows: list[Row]) -> list[dict]:
    """Every metric of the rows of one target and held-out set, each with its p against the best."""
    found = []
    for metric in dict.fromkeys(metric for row in rows for metric in metrics_of(row, EXTRA)):
        having = [row for row in rows if metric in metrics_of(row, EXTRA)]
        without = [row.artifact for row in rows if row not in having]
        if without and metric in TASKS[rows[0].task].metrics:
            raise UserError(f"{without[0]} has no {metric}, which other runs have: run it again")
        competing = [row for row in having if competes(row, metric)]
        best = max(competing, key=lambda row: row.scores(metric).mean(), default=None)
        one_seed = any(row.trained and len(row.seeds) < 2 for row in competing)
        for row in having:
            of_row = measured(table, row, metric)
            if row in competing:
                of_row |= {"reason": ONE_SEED} if one_seed else _against(best, row, metric)
            found.append(of_row)
    return found


def _against(best: Row, row: Row, metric: str) -> dict:
    """p of a row's difference to the best of its column; 1 for the best itself."""
    if row is best:
        return {"p": 1.0}
    compared = difference("", best, row, metric)
    return {key: compared[key] for key in ("p", "reason")} if compared else {}


def minus(
    table: str, compared: Iterable[tuple[Row, Row]], condition: str | None = None
) -> list[dict]:
    """The differences of pairs of rows in every metric of the task."""
    found = [
        difference(table, a, b, metric, condition)
        for a, b in compared
        for metric in metrics_of(b)
        if metric in metrics_of(a)
    ]
    return [each for each in found if each]


def what_the_vector_adds(table: str, rows: list[Row]) -> list[dict]:
    """Of each explainer: with its vector minus with another row's, with zeros, and minus another
    training without one; and how much more each of these is for the self-explainer."""
    found, added = [], {}
    for row in rows:
        if row.condition in WITHOUT:
            name = WITHOUT[row.condition]
            for a, b in pairs(rows, row.explainer):
                if b is row:
                    found += minus(f"{table}-vector", [(a, b)], name)
                    added[row.explainer, name] = a, b
    for (explainer, name), others in added.items():
        if explainer != "self" and ("self", name) in added:
            found += _more_for_self(table, name, *added["self", name], *others)
    for r in found:
        if r["condition"] == WITHOUT["no-vector"]:
            r["reason"] = ", ".join(filter(None, ("another training", r["reason"])))
    return found


def _more_for_self(table: str, name: str, *four: Row) -> Iterator[dict]:
    """(self - self without) - (other - other without), paired by row and by the seeds all have."""
    full, without, other, other_without = four
    seeds = [seed for seed in full.seeds if all(seed in row.seeds for row in four)]
    for metric in metrics_of(other) if seeds else ():
        a, b, c, d = (row.scores(metric)[[row.seeds.index(s) for s in seeds]] for row in four)
        yield measured(
            f"{table}-vector-paired",
            other,
            metric,
            scores=(a - b) - (c - d),
            seeds=seeds,
            condition=name,
            tested=True,
        )


def interactions(table: str, rows: list[Row]) -> list[dict]:
    """What two models gain together when each explains itself and not the other: (self - other) of
    one target plus (self - other) of the other target, whose test rows are others."""
    at = {(row.target, row.explainer): row for row in rows if row.condition == "full"}
    targets, found = sorted({row.target for row in rows}), []
    for i, first in enumerate(targets):
        for second in targets[i + 1 :]:
            keys = (first, "self"), (first, second), (second, "self"), (second, first)
            if all(key in at for key in keys):
                four = [at[key] for key in keys]
                seeds = [s for s in four[0].seeds if all(s in row.seeds for row in four)]
                for metric in metrics_of(four[0]) if seeds else ():
                    a, b, c, d = (
                        row.scores(metric)[[row.seeds.index(s) for s in seeds]] for row in four
                    )
                    found.append(
                        measured(
                            f"{table}-interaction",
                            four[1],
                            metric,
                            scores=metrics.summed([a - b, c - d]),
                            clusters=_joined(four[0], four[2]),
                            seeds=seeds,
                            condition=f"self minus other, {first} plus {second}",
                            tested=True,
                        )
                    )
    return found


def _joined(a: Row, b: Row) -> dict[str, np.ndarray]:
    """The clusters of the rows of both; of features, which are each target's own, none."""
    both = a.clusters.keys() & b.clusters.keys()
    return {name: np.hstack([a.clusters[name], b.clusters[name]]) for name in both}


def behind(row: Row) -> list[dict]:
    """Section 5.2's closer look at hints: how often "changed" is said of changed and of unchanged
    rows, how often the hint's letter; content match on both."""
    truth = row.parts[0]["is_different"].to_numpy(dtype=bool)
    found = [measured("sec5.2", row, metric) for metric in ("predicted_changed", "predicts_hint")]
    of_label = {
        f"{label} rows": row.take(mask)
        for label, mask in (("changed", truth), ("unchanged", ~truth))
        if mask.any()
    }
    for metric in ("content_match", "predicted_changed"):
        found += [
            measured("sec5.2", part, metric, condition=part_of(row.condition, name))
            for name, part in of_label.items()
        ]
    if len(of_label) == 2:
        a, b = of_label.values()
        metric = "predicted_changed"
        found.append(
            measured(
                "sec5.2",
                row,
                metric,
                scores=metrics.summed([a.scores(metric), -b.scores(metric)]),
                clusters=_joined(a, b),
                condition=part_of(row.condition, "changed minus unchanged rows"),
            )
        )
    return found


def answers(row: Row) -> list[dict]:
    """How alike an explainer's answers are: distinct ones (a mean number over seeds), the share of
    the most frequent, and of descriptions that share that only name a word."""
    said = [part["generation"] for part in row.parts]
    most = [Counter(texts).most_common(1)[0][1] / len(texts) for texts in said]
    found = [
        record("answers", row, "distinct", float(np.mean([texts.nunique() for texts in said]))),
        record("answers", row, "most_frequent", float(np.mean(most))),
    ]
    return found + ([measured("answers", row, "one_word")] if "gold" in row.parts[0] else [])


def counts(run: dict) -> list[dict]:
    """Tables 6 and 7 from a data run, and how often the target follows a hint, by subject and by
    whether its answer without the hint is right."""
    found, statistics = [], run["statistics"]
    for table, labels in (("6", ("unchanged", "changed")), ("7", ("changed", "unchanged"))):
        cells = statistics.get(f"table{table}", [])
        for cell in cells:
            n = sum(c["changed"] + c["unchanged"] for c in cells if c["split"] == cell["split"])
            for label in labels:
                condition = (
                    count_condition(cell["token_type"], cell["layers"], label)
                    if "token_type" in cell
                    else label
                )
                found.append(count(run, table, cell["split"], condition, cell[label], n))
    for cell in statistics.get("followed", []):
        share, n = cell["followed"] / cell["n"], cell["n"]
        condition = f"{cell['subject']} / {'right' if cell['right'] else 'wrong'}"
        _, low, high = metrics.wilson(cell["followed"], n)
        found.append(
            count(run, "hints", "train and test", condition, round(share, 6), n)
            | {"metric": "follows_hint", "stderr": round((share * (1 - share) / n) ** 0.5, 6)}
            | {"low": round(low, 6), "high": round(high, 6)}
        )
    return found


def table_6_lookup() -> dict:
    """Has-changed macro-F1 of the lookup by token type and layers that the paper's own Table 6 gives,
    to stand beside its Table 2."""
    one = lookup(table="6")[0]
    truth, said = table_6_outcomes()
    none = {"n_train": None, "trained_parameters": 0, "epochs": None, "parts": []}
    row = Row(
        one.task,
        one.target,
        "test",
        "lookup",
        "full",
        seeds=[],
        artifact="report/paper.csv",
        **none,
    )
    scores = metrics.f1_rows(truth, said[None])
    return measured("2-lookup", row, "has_changed_f1", scores, clusters={})


def records(
    runs: list[tuple[dict, pd.DataFrame]], described: dict[str, pd.DataFrame] | None = None
) -> list[dict]:
    """All records of the runs, sorted. Tables take each explainer's largest training size, table
    "scaling" the others. `described`: target -> its descriptions.parquet, which tells seen labels
    from unseen ones.

    Raises `UserError` if two records have the same key.
    """
    rows = rows_of(runs)
    located = [row for row in rows if row.condition == "locate"]
    largest, smaller = by_size([row for row in rows if row.condition != "locate"])
    found = [measured("C.1", row, "exact_match") for row in located]
    found += [
        measured("scaling", row, metric)
        for row in smaller
        for metric in metrics_of(row, ("simulator_abs",))
    ]
    found += minus("scaling-paired", (p for p in pairs(smaller) if p[0].n_train == p[1].n_train))
    found += tables(runs, largest, described or {})
    found += [each for row in largest + smaller for each in answers(row)]
    found += [each for row in largest if "hint" in row.parts[0] for each in behind(row)]
    found += [each for run, _ in runs for each in counts(run)]
    if located or any(r["table"] == "6" for r in found):
        found.append(table_6_lookup())
    found = corrected(
        found + feature_records(runs, [row for row in rows if "gold" in row.parts[0]])
    )
    return checked(found + claim_records(checked(found)))


def tables(runs: list, largest: list[Row], described: dict[str, pd.DataFrame]) -> list[dict]:
    """The tables of all tasks with their differences: the first target of a task has its own, later
    ones may have another (Tables 1 and 4)."""
    found, targets, groups = [], {}, {}
    for run, _ in runs:
        targets.setdefault(run["task"], run["target"])
    for row in largest + splits(largest, described):
        task = TASKS[row.task]
        later = row.target != targets[row.task] and task.later_table
        table = (later or task.table) + (f"-{row.split}" if row.split else "")
        groups.setdefault((table, row.target, row.data), []).append(row)
    for (table, _, _), rows in groups.items():
        found += in_table(table, rows) + minus(f"{table}-paired", pairs(rows))
        if not rows[0].split:
            found += what_the_vector_adds(table, rows) + projections(table, rows)
    for task, data in dict.fromkeys((row.task, row.data) for row in largest):
        of_set = [row for row in largest if (row.task, row.data) == (task, data)]
        found += interactions(TASKS[task].table, of_set)
    return found


def corrected(found: list[dict]) -> list[dict]:
    """The records with Holm's correction of p over the columns of each comparison."""
    comparisons: dict[tuple, list[dict]] = {}
    for r in found:
        if r["p"] is not None and r["table"].endswith(DIFFERENCES):
            key = tuple(r[key] for key in KEYS if key not in ("data", "metric"))
            comparisons.setdefault(key, []).append(r)
    for of_comparison in comparisons.values():
        for r, p in zip(of_comparison, metrics.holm([r["p"] for r in of_comparison]), strict=True):
            r["p"] = p
    return found


def checked(found: list[dict]) -> list[dict]:
    """The records sorted by their keys. Raises `UserError` if two have the same."""
    keys = Counter(tuple(str(r[key]) for key in KEYS) for r in found)
    twice = [" · ".join(key) for key, n in keys.items() if n > 1]
    if twice:
        raise UserError(
            f"{len(twice)} records occur twice, the first is {twice[0]}: name them apart"
        )
    for r in found:
        r["p"] = None if r["p"] is None else float(f"{r['p']:.4g}")
    return sorted(found, key=lambda r: [str(r[key]) for key in KEYS])
