"""The records of feature descriptions: Tables 1 and 4, section B.4, and what a reader needs to
judge them.

Table "1" is of the first target among the runs (a profile's order), table "4" of every target after
it. `data` is the held-out set (sae, act, dact), `metric` judge, simulator (eq. 2: the mean signed
correlation, value in -1..1), simulator_abs (the mean |r| of the authors' code) or constant
(exemplars a description whose activations, true or simulated, are constant, thus of correlation 0;
a mean number, not a share). Tables "1-paired" and "4-paired" hold the self-explainer minus the row
named, paired by test row, and in `p_vs_best` the p of that difference; "scaling" and
"scaling-paired" the explainers of smaller training sizes; "1-vector" and "4-vector" what the vector
adds to an explainer; "scored-by" says which judge and which simulator the scores are of
(`condition`), and how many descriptions each scored (`value`). Table "5" holds means and standard
deviations of similarities. "fig8" has the share of each of B.5's categories (`condition`) among n
cases that the judge scored 0: `metric` share where a person sorted them, share_automatic where a
rule did.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from introspect_utils.report.paper import LABEL_ERROR
from introspect_utils.report.table_rows import (
    Row,
    against_self,
    by_size,
    count,
    grouped,
    names,
    record,
    stacked,
)
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError

SCORERS = ("judge", "simulator")  # metrics of Table 1; run["statistics"] names the scorer of each
GOLD = "gold"  # the descriptions that the judge compares with: 100 by definition


@dataclass(frozen=True, eq=False)
class FeatureRow(Row):
    """The descriptions of one explainer for the n directions of one held-out set; scores [s, n] by
    metric."""

    scores: dict[str, np.ndarray]


def _rows(runs: list[tuple[dict, pd.DataFrame]]) -> list[FeatureRow]:
    rows = []
    for fields, parts in grouped(runs):
        scored = ("judge",) * (fields["data"] == "sae") + ("simulator", "simulator_abs", "constant")
        rows.append(
            FeatureRow(**fields, scores={metric: stacked(parts, metric) for metric in scored})
        )
    return rows


def _scores(table: str, rows: list[FeatureRow]) -> list[dict]:
    """Every metric of the rows of one target and held-out set; in the judge's column gold labels do
    not compete for the best."""
    found = []
    for metric in rows[0].scores:
        scores = [metrics.mean_score(row.scores[metric]) for row in rows]
        competing = [
            i
            for i, row in enumerate(rows)
            if metric != "constant" and (row.explainer, metric) != (GOLD, "judge")
        ]
        p = {}
        if competing:
            values = {i: scores[i][0] for i in competing}
            p = metrics.p_vs_best(
                values, {i: rows[i].scores[metric].mean(axis=0) for i in competing}
            )
        found += [record(table, row, metric, scores[i], p.get(i)) for i, row in enumerate(rows)]
    return found


def _paired(table: str, rows: list[FeatureRow]) -> list[dict]:
    """The self-explainer minus each other row of one target and held-out set: paired by test row,
    and by the seeds both have."""
    found = []
    for a, b, both, of_a, of_b in against_self(rows):
        for metric in [metric for metric in SCORERS if metric in b.scores]:
            ours, theirs = a.scores[metric][of_a], b.scores[metric][of_b]
            p = metrics.paired_p(ours.mean(axis=0), theirs.mean(axis=0))
            found.append(
                record(f"{table}-paired", b, metric, metrics.mean_score(ours - theirs), p)
                | {"seeds": both}
            )
    return found


def _vector(table: str, rows: list[FeatureRow]) -> list[dict]:
    """What the vector adds: each trained explainer minus itself with a zero or another row's
    vector, paired."""
    found, full = [], {row.explainer: row for row in rows if row.condition == "full"}
    for row in (row for row in rows if row.condition in ("zero-vector", "shuffled-vector")):
        for metric in [metric for metric in SCORERS if metric in row.scores]:
            difference = (
                full[row.explainer].scores[metric] - row.scores[metric]
            )  # of one and the same run: the seeds agree
            condition = f"full minus {row.condition}"
            found.append(
                record(
                    f"{table}-vector",
                    row,
                    metric,
                    metrics.mean_score(difference),
                    condition=condition,
                )
            )
    return found


def _scored_by(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """Which judge and which simulator scored the runs of one target; `UserError` where they differ:
    no scores to compare."""
    found, runs = [], [(run, predictions) for run, predictions in runs if len(predictions)]
    for metric in SCORERS if runs else ():
        first = runs[0][0]
        for run, _ in runs:
            if run["statistics"][metric] != first["statistics"][metric]:
                raise UserError(
                    f"runs {first['id']} and {run['id']} were scored by different {metric}s "
                    f"({first['statistics'][metric]}; {run['statistics'][metric]}): delete the "
                    "older, run again"
                )
        n = sum(int(predictions[metric].notna().sum()) for _, predictions in runs)
        artifact = ", ".join(sorted(f"runs/{run['id']}" for run, _ in runs))
        counted = count(first, "scored-by", "test", first["statistics"][metric], n, n)
        found.append(counted | {"metric": metric, "artifact": artifact})
    return found


def _token_match(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """Section B.4, of the largest training size of each explainer: token match of its descriptions
    without or with another layer to those with the right one."""
    by_explainer: dict[tuple[str, str], list[dict]] = {}
    for run, _ in runs:
        if "token_match" in run["statistics"]:
            by_explainer.setdefault(names(run, run["explainer"], run["condition"][0]), []).append(
                run
            )
    found = []
    for (explainer, _), made in by_explainer.items():
        largest = max(run["n_train"] for run in made)
        made = sorted(
            (run for run in made if run["n_train"] == largest), key=lambda run: run["seed"]
        )
        for condition in made[0]["statistics"]["token_match"]:
            cells = [run["statistics"]["token_match"][condition] for run in made]
            seeds, artifact = (
                [run["seed"] for run in made],
                ", ".join(run["checkpoint"] or f"runs/{run['id']}" for run in made),
            )
            head = (
                made[0]["task"],
                made[0]["target"],
                "sae",
                explainer,
                condition,
                largest,
                seeds,
                artifact,
            )
            row = Row(
                *head, rows=np.arange(cells[0][2]), trained_parameters=made[0]["trained_parameters"]
            )
            found.append(
                record(
                    "B.4", row, "token_match", metrics.pooled_score([cell[:2] for cell in cells])
                )
            )
    return found


def _similarity(run: dict) -> list[dict]:
    """Table 5: mean and standard deviation of each similarity of each explainer, of notebook 10's
    run."""
    found = []
    for cell in run["statistics"].get("similarity", []):
        row = Row(
            "features",
            run["target"],
            "sae",
            cell["explainer"],
            cell["condition"],
            None,
            [],
            f"runs/{run['id']}",
            np.arange(cell["n"]),
        )
        for metric in ("activation_pattern", "dot_product", "cka"):
            for name in (metric, f"{metric}_sd"):
                found.append(record("5", row, name, (cell[name], 0.0)) | {"stderr": None})
    return found


def _figure_8(run: dict) -> list[dict]:
    """Figure 8 from a run of the error analysis: the shares of the five categories, and of the two
    of labels together."""
    found = []
    for metric, counts in run["statistics"].get("fig8", {}).items():
        n = sum(counts.values())
        of_labels = counts["noisy/ambiguous label"] + counts["incorrect label"]
        for category, hits in (counts | {LABEL_ERROR: of_labels}).items() if n else ():
            head = (
                run["task"],
                run["target"],
                "sae",
                run["explainer"],
                category,
                run["n_train"],
                [run["seed"]],
            )
            row = Row(*head, f"runs/{run['id']}", rows=np.arange(n))
            found.append(
                record("fig8", row, metric, (hits / n, (hits / n * (1 - hits / n) / n) ** 0.5))
            )
    return found


def feature_records(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """All records of the runs of feature descriptions, unsorted."""
    in_table, smaller = by_size(_rows(runs))
    found = [
        record("scaling", row, metric, metrics.mean_score(row.scores[metric]))
        for row in smaller
        for metric in (*SCORERS, "simulator_abs")
        if metric in row.scores
    ]
    sets = dict.fromkeys((row.target, row.data, row.n_train) for row in smaller)
    for chosen in sets:  # explainers of one smaller size
        found += _paired(
            "scaling", [row for row in smaller if (row.target, row.data, row.n_train) == chosen]
        )
    for number, target in enumerate(dict.fromkeys(run["target"] for run, _ in runs)):
        table = "4" if number else "1"
        for data in ("sae", "act", "dact"):
            rows = [row for row in in_table if (row.target, row.data) == (target, data)]
            found += (
                [*_scores(table, rows), *_paired(table, rows), *_vector(table, rows)]
                if rows
                else []
            )
        of_target = [(run, predictions) for run, predictions in runs if run["target"] == target]
        found += _scored_by(of_target) + _token_match(of_target)
        found += [similar for run, _ in of_target for similar in _similarity(run)]
    found += [share for run, _ in runs for share in _figure_8(run)]
    return found
