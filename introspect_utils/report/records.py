"""From the predictions of runs to the records of `results.json`, one for each number.

Keys of a record: `table, task, data, target, explainer, condition, metric, n_train` name it and
occur together once. `value` has its `stderr` and 95% interval `low` to `high` over `n` test rows in
`n_clusters` clusters (`clusters`: their column, null if the rows count as independent) and over
`seeds`; `error_by` has the same by the task's other clusters. `p` is, in a table, of the difference
to the best row of the column, the largest by any cluster; in a difference, of the difference, after
Holm over the columns of the comparison (that of `error_by` is without Holm). `reason` says why `p`
or `value` is null, or what a claim comes to.
`paper` is the published value (v1) if our target is the paper's. `artifact` is the checkpoint (from
the repository's root) or the run's folder (beside `results.json`), joined by ", " over seeds.

Tables beside the paper's: "X-paired" is self minus the row named, "X-vector" what the vector adds
to an explainer (of patching also on changed and on unchanged rows) and "X-vector-paired" how much
more it adds to self, "X-interaction" what two models gain together by explaining themselves and not
each other; "scaling" and "scaling-paired" are of smaller training sizes; "answers" says how alike
the answers are, "sec5.2" what lies behind Table 3, "2-lookup" what the paper's Table 6 gives.
`feature_records` says what else features have; "claims" is of `claims`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from introspect_utils.report.claims import claim_records
from introspect_utils.report.feature_records import feature_records, projections, splits
from introspect_utils.report.paper import count_condition, lookup, table_6_outcomes
from introspect_utils.report.table_rows import (
    ONE_SEED,
    RUNS,
    Row,
    by_size,
    contrast,
    measured,
    of_run,
    record,
    rows_of,
    share,
    with_derived,
    within,
)
from introspect_utils.runs.record import read_runs
from introspect_utils.scores import metrics
from introspect_utils.scores.surface import no_effect
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import figures_dir, replaced, run_dir
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import TASKS

KEYS = ("table", "task", "target", "explainer", "condition", "data", "metric", "n_train")
DIFFERENCES = ("-paired", "-vector", "-interaction", "-projection")  # ends of tables' names
EXTRA = ("unparseable", "simulator_abs", "constant", "judge_high")  # other metrics of tables
ORACLES = ("oracle", "no-effect")  # told what the target says
# conditions that take the vector away -> what is to be known of the difference
WITHOUT = {"shuffled-vector": None, "zero-vector": None, "no-vector": "another training"}


def competes(row: Row, metric: str) -> bool:
    """Whether a row may be the best of a column. Oracles are told what the target says, gold labels
    are what the judge compares with."""
    known = row.explainer in ORACLES or (row.explainer, metric) == ("gold", "judge")
    return not known and metric in (*TASKS[row.task].metrics, "simulator_abs")


def in_table(table: str, rows: list[Row]) -> Iterator[dict]:
    """Every metric of the rows of one target and held-out set, each with its p against the best. A
    trained row of one seed is not compared, and nothing is where all trained rows have one."""
    for metric in dict.fromkeys(metric for row in rows for metric in row.metrics(*EXTRA)):
        having = [row for row in rows if metric in row.metrics(*EXTRA)]
        without = [row.artifact for row in rows if row not in having]
        if without and metric in TASKS[rows[0].task].metrics:
            raise UserError(f"{without[0]} has no {metric}, which other runs have: run it again")
        competing = [row for row in having if competes(row, metric)]
        alone = [row for row in competing if row.trained and len(row.seeds) < 2]
        several = any(row.trained for row in competing if row not in alone)
        fair = [row for row in competing if row not in alone] if several or not alone else []
        best = max(fair, key=lambda row: np.nanmean(row.scores(metric)), default=None)
        for row in having:
            tested = {"reason": ONE_SEED} if row in competing else {}
            if row in fair:
                for r in contrast("", row, metric, [(1, best), (-1, row)]):
                    p = max([r["p"], *(e["p"] for e in r["error_by"].values())])
                    tested = {"p": p, "reason": r["reason"]}
            yield measured(table, row, metric) | tested


def minus(table: str, a: Row, b: Row, **fields) -> list[dict]:
    """`a` minus `b` in every metric of the task, as records of `b`."""
    shared = [metric for metric in b.metrics() if metric in a.metrics()]
    return [r for m in shared for r in contrast(table, b, m, [(1, a), (-1, b)], **fields)]


def against_self(table: str, rows: list[Row]) -> Iterator[dict]:
    """The self-explainer minus every other row of its target, held-out set and, of smaller sizes,
    training size."""
    for a in (row for row in rows if (row.explainer, row.condition) == ("self", "full")):
        for b in (row for row in rows if row is not a):
            yield from minus(table, a, b)


def what_the_vector_adds(table: str, rows: list[Row]) -> Iterator[dict]:
    """Of each explainer: with its vector minus with another row's, minus with zeros, and minus
    another training without one; and how much more each of these is for the self-explainer."""
    at = {(row.explainer, row.condition): row for row in rows}
    own = at.get(("self", "full"))
    for row in (row for row in rows if row.condition in WITHOUT):
        full, own_without = at.get((row.explainer, "full")), at.get(("self", row.condition))
        named = {"condition": f"full minus {row.condition}", "reason": WITHOUT[row.condition]}
        if full:
            yield from minus(f"{table}-vector", full, row, **named)
            for name, part in by_change(row).items():
                block = [(1, by_change(full)[name]), (-1, part)]
                of_part = named | {"data": name, "p": None}
                yield from contrast(f"{table}-vector", row, "content_match", block, **of_part)
        if full and own and own_without and full is not own:
            block = [(1, own), (-1, own_without), (-1, full), (1, row)]
            for metric in row.metrics():
                yield from contrast(f"{table}-vector-paired", row, metric, block, **named)


def interactions(table: str, rows: list[Row]) -> Iterator[dict]:
    """What two models gain together when each explains itself and not the other: (self - other) of
    one target plus (self - other) of the other target, whose test rows are others."""
    at = {(row.target, row.explainer): row for row in rows if row.condition == "full"}
    for a, b in combinations(sorted({target for target, _ in at}), 2):
        if {(a, "self"), (a, b), (b, "self"), (b, a)} <= at.keys():
            blocks = [[(1, at[a, "self"]), (-1, at[a, b])], [(1, at[b, "self"]), (-1, at[b, a])]]
            named = {"condition": f"self minus other, {a} plus {b}"}
            for metric in at[a, b].metrics():
                yield from contrast(f"{table}-interaction", at[a, b], metric, *blocks, **named)


def by_change(row: Row) -> dict[str, Row]:
    """A row again of the test rows whose answer changes, and of the others; {} for features."""
    if not {"is_different", "content_match"} <= row.columns:
        return {}
    truth = row.parts[0]["is_different"].to_numpy(dtype=bool)
    parts = {"changed rows": row.take(truth), "unchanged rows": row.take(~truth)}
    return {name: part for name, part in parts.items() if len(part.parts[0])}


def behind(row: Row) -> Iterator[dict]:
    """Section 5.2's closer look at hints: how often "changed" is said of changed and of unchanged
    rows, how often the hint's letter; content match on both."""
    parts = by_change(row)
    for metric in ("predicted_changed", "predicts_hint"):
        yield measured("sec5.2", row, metric)
    for name, part in parts.items():
        for metric in ("content_match", "predicted_changed"):
            yield measured("sec5.2", part, metric, condition=within(row.condition, name))
    if len(parts) == 2:
        a, b = parts.values()
        named = {"condition": within(row.condition, "changed minus unchanged rows")}
        yield from contrast("sec5.2", row, "predicted_changed", [(1, a)], [(-1, b)], **named)


def answers(row: Row) -> Iterator[dict]:
    """How alike an explainer's answers are: distinct ones (a mean number over seeds), the share of
    the most frequent, and the share of descriptions that only name a word."""
    said = [part["generation"] for part in row.parts]
    yield record("answers", row, "distinct", np.mean([texts.nunique() for texts in said]))
    most = [Counter(texts).most_common(1)[0][1] / len(texts) for texts in said]
    yield record("answers", row, "most_frequent", np.mean(most))
    if "gold" in row.columns:
        yield measured("answers", row, "one_word")


def counts(run: dict) -> Iterator[dict]:
    """Tables 6 and 7 from a data run, and how often the target follows a hint, by subject and by
    whether its answer without the hint is right."""
    for table in ("6", "7"):
        cells = run["statistics"].get(f"table{table}", [])
        for cell in cells:
            n = sum(c["changed"] + c["unchanged"] for c in cells if c["split"] == cell["split"])
            named = {"data": cell["split"], "n": n}
            for name in ("unchanged", "changed"):
                condition = name
                if "token_type" in cell:
                    condition = count_condition(cell["token_type"], cell["layers"], name)
                yield of_run(table, run, "count", cell[name], condition=condition, **named)
    for cell in run["statistics"].get("followed", []):
        condition = f"{cell['subject']} / {'right' if cell['right'] else 'wrong'}"
        named = {"data": "train and test", "condition": condition}
        yield of_run("hints", run, "follows_hint", **named, **share(cell["followed"], cell["n"]))


def table_6_lookup() -> dict:
    """Has-changed macro-F1 of the lookup by token type and layers that the paper's own Table 6
    gives, to stand beside its Table 2."""
    one, (truth, said) = lookup(table="6")[0], table_6_outcomes()
    row = Row(one.task, one.target, "test", "lookup", "full", None, [], "report/paper.csv")
    scores = metrics.f1_rows(truth, said[None])
    return measured("2-lookup", row, "has_changed_f1", scores, {}, p=None)


def nothing_changes(row: Row) -> Row:
    """The row `no_effect` of the same test rows."""
    part = with_derived(no_effect(row.parts[0]))
    return replace(row, explainer="no-effect", n_train=None, parts=(part,))


def tables(runs: RUNS, largest: list[Row], smaller: list[Row], described: dict) -> Iterator[dict]:
    """The tables of all tasks with their differences: the first target of a task has its own, later
    ones may have another (Tables 1 and 4)."""
    targets = {run["task"]: run["target"] for run, _ in reversed(runs)}  # the first of each
    groups: dict[tuple, list[Row]] = {}
    still = [nothing_changes(row) for row in largest if row.explainer in ("majority", "unchanged")]
    for row in largest + still + splits(largest, described):
        task = TASKS[row.task]
        later = row.target != targets[row.task] and task.later_table
        table = (later or task.table) + (f"-{row.split}" if row.split else "")
        groups.setdefault((table, row.target, row.data), []).append(row)
    for (table, _, _), rows in groups.items():
        yield from in_table(table, rows)
        yield from against_self(f"{table}-paired", rows)
        if not rows[0].split:
            yield from what_the_vector_adds(table, rows)
            yield from projections(table, rows)
    for task, data in dict.fromkeys((row.task, row.data) for row in largest):
        of_set = [row for row in largest if (row.task, row.data) == (task, data)]
        yield from interactions(TASKS[task].table, of_set)
    for row in smaller:
        for metric in row.metrics("simulator_abs"):
            yield measured("scaling", row, metric)
    for key in dict.fromkeys((r.task, r.target, r.data, r.n_train) for r in smaller):
        of_size = [r for r in smaller if (r.task, r.target, r.data, r.n_train) == key]
        yield from against_self("scaling-paired", of_size)


def records(runs: RUNS, described: dict | None = None) -> list[dict]:
    """All records of the runs, sorted. Tables take each explainer's largest training size, table
    "scaling" the others. `described`: target -> its descriptions.parquet, which tells seen labels
    from unseen ones.

    Raises `UserError` if two records have the same key.
    """
    rows = rows_of(runs)
    found = [measured("C.1", row, "exact_match") for row in rows if row.condition == "locate"]
    largest, smaller = by_size([row for row in rows if row.condition != "locate"])
    found += tables(runs, largest, smaller, described or {})
    found += [each for row in largest + smaller for each in answers(row)]
    found += [each for row in largest if "hint" in row.columns for each in behind(row)]
    found += [each for run, _ in runs for each in counts(run)]
    found += [table_6_lookup()] if any(r["table"] == "6" for r in found) else []
    found = checked(corrected(found + feature_records(runs, rows)))
    return checked(found + claim_records(found))


def corrected(found: list[dict]) -> list[dict]:
    """The records with Holm's correction of p over the columns of each comparison."""
    comparisons: dict[tuple, list[dict]] = {}
    for r in found:
        if r["p"] is not None and r["table"].endswith(DIFFERENCES):
            key = tuple(r[key] for key in KEYS if key not in ("data", "metric"))
            comparisons.setdefault(key, []).append(r)
    for compared in comparisons.values():
        for r, p in zip(compared, metrics.holm([r["p"] for r in compared]), strict=True):
            r["p"] = p
    return found


def checked(found: Iterable[dict]) -> list[dict]:
    """The records sorted by their keys. Raises `UserError` if two have the same."""
    found = sorted(found, key=lambda r: [str(r[key]) for key in KEYS])
    keys = Counter(" · ".join(str(r[key]) for key in KEYS) for r in found)
    twice = [key for key, n in keys.items() if n > 1]
    if twice:
        raise UserError(f"{len(twice)} records occur twice, the first is {twice[0]}: rename one")
    return [r | {"p": None if r["p"] is None else float(f"{r['p']:.4g}")} for r in found]


def results(profile: str) -> list[dict]:
    """The records of the finished runs of a profile (name or .yaml file)."""
    runs, described, name = read_runs(profile), {}, load_profile(profile).name
    for run, _ in runs:
        file = run_dir(name, run["id"]) / "descriptions.parquet"
        if file.exists():
            described[run["target"]] = pd.read_parquet(file)
    return records(runs, described)


def write_results(profile: str) -> list[dict]:
    """Write `results.json` of a profile, a record a line; same runs, same bytes. Returns it."""
    found = results(profile)
    lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in found]
    with replaced(figures_dir(load_profile(profile).name) / "results.json") as path:
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return found
