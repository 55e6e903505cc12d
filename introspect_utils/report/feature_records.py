"""What features have besides the tables of all tasks.

Tables "1-seen", "1-unseen", "1-one-word", "1-other-label" and "1-no-twin" are Table 1 of some of
the held-out features: those whose gold label is a training label too, or is not; whose label only
names a word, or says more; that are unlike every training feature of another layer. "1-projection"
is a model with a fitted projection minus the same with a random one, "sec3.4" their ratio. "sec4"
has the shares of section 4, raw and over the floor of the best constant description, and the number
of directions from which SelfIE is beaten. "scored-by" says which judge and simulator the scores are
of (`condition`) and of how many descriptions, and where the labels come from. "B.4" is the token
match without or with another layer, "5" has means and standard deviations of similarities, "fig8"
the share of each of B.5's categories among n zero scores (`share`: sorted by a person,
`share_automatic`: by a rule), "A.2" how often a person, or `condition`, agrees with the judge.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from introspect_utils.report.paper import LABEL_ERROR
from introspect_utils.report.table_rows import (
    RUNS,
    TEMPLATE,
    Row,
    artifact,
    contrast,
    measured,
    names,
    of_run,
    paired,
    rated,
    record,
    share,
    within,
)
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.task_features import sample

SHARE, NEAR = 0.008, 0.1  # of the training directions: section 4's 1,024 a layer; give or take
FITTED = "pretrained-projection"
SIMILARITIES = ("activation_pattern", "dot_product", "cka")


def splits(rows: list[Row], described: dict[str, pd.DataFrame]) -> list[Row]:
    """The rows of held-out features again, each of some of them: of seen, unseen, one-word and
    other labels, and without a near-twin among the training features of other layers."""
    found = []
    for target in dict.fromkeys(row.target for row in rows):
        held_out = [row for row in rows if (row.target, row.data) == (target, "sae")]
        gold = held_out[0].parts[0]["gold"] if held_out else pd.Series(dtype=str)
        masks = {"one-word": gold.str.fullmatch(TEMPLATE)}
        masks["other-label"] = ~masks["one-word"]
        if target in described:
            masks["seen"] = gold.isin(_training_labels(held_out, described[target]))
            masks["unseen"] = ~masks["seen"]
            labels = described[target]
            if "twin" in labels:
                twins = labels.loc[labels["twin"], "feature"]
                masks["no-twin"] = ~held_out[0].parts[0]["feature"].isin(twins)
        for split, mask in masks.items():
            found += [row.take(mask.to_numpy(), split=split) for row in held_out if mask.any()]
    return found


def _training_labels(rows: list[Row], described: pd.DataFrame) -> list[str]:
    """The labels that the explainers of the largest size were trained on, in their first seed."""
    train = described[described["split"] == "train"]
    row = max(rows, key=lambda row: (row.n_train or 0, row.trained))
    n, seed = row.n_train or len(train), min(row.seeds, default=0)
    drawn = sample(range(len(train)), train["layer"].tolist(), min(n, len(train)), seed)
    return train["description"].iloc[drawn].tolist()


def projections(table: str, rows: list[Row]) -> Iterator[dict]:
    """What fitting a projection beforehand gives another model, and how many times its score."""
    full = {row.explainer: row for row in rows if row.condition == "full"}
    for row in (row for row in rows if row.condition == FITTED and row.explainer in full):
        random_one, named = full[row.explainer], {"condition": f"{FITTED} minus random"}
        for metric in row.metrics():
            block = [(1, row), (-1, random_one)]
            yield from contrast(f"{table}-projection", row, metric, block, **named)
            yield _ratio("sec3.4", metric, row, random_one, metric, FITTED)


def _ratio(
    table, name: str, a: Row, b: Row, metric: str, condition, *also: Row, floor=None
) -> dict:
    """mean(a) / mean(b) of a metric, both over a floor if there is one, as a record of `a`; only if
    what is trained of these and `also` was trained for as many epochs."""
    seeds, (top, bottom) = paired([a, b], metric)
    epochs = dict.fromkeys(str(row.epochs) for row in (a, b, *also) if row.trained)
    named, reason = {"condition": condition, "seeds": seeds}, None
    if floor:
        under = floor.scores(metric)[:1]
        top, bottom = top - under, bottom - under
    (top, bottom), clusters = rated([top, bottom], a.clusters)
    if len(epochs) > 1:
        reason = f"trained for {' and '.join(epochs)} epochs"
    elif not top.size:
        reason = "no training seed in common"
    elif bottom.mean() <= 0:
        reason = "the denominator is not above 0"
    if reason:
        return record(table, a, name, None, reason=reason, **named)
    return measured(table, a, name, metrics.ratio(top, bottom), clusters, p=None, **named)


def section_4(rows: list[Row]) -> Iterator[dict]:
    """Section 4's shares by the judge, of every explainer of one target with two sizes or more: its
    score with 0.8% of the directions over that with all (`end-share`), self there over the others
    with all (`share-of-X`); each raw and, where the best constant description was scored,
    `over-floor`. And the directions from which it beats SelfIE, on straight lines between its sizes
    on a log axis."""
    by_size: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row.n_train), key=lambda row: row.n_train):
        by_size.setdefault(row.explainer, []).append(row)
    curves = {name: rows for name, rows in by_size.items() if len(rows) > 1}
    floor = by_size.get("constant", [None])[-1]
    for name, curve in curves.items():
        end = curve[-1]
        shares = {"end-share": curve} | (
            {} if name == "self" else {"share-of-" + name: curves.get("self", [])}
        )
        for metric, rows_of in shares.items():
            few = next(
                (r for r in rows_of if abs(r.n_train / (SHARE * end.n_train) - 1) <= NEAR), None
            )
            if few:
                compared = few, end, "judge", "0.8%", rows_of[-1]
                yield _ratio("sec4", metric, *compared)
            if few and floor:
                yield _ratio("sec4", f"{metric}-over-floor", *compared, floor=floor)
        if "selfie" in by_size:
            yield _beats(curve, by_size["selfie"][-1])


def _beats(curve: list[Row], selfie: Row) -> dict:
    """The directions from which a curve is above SelfIE."""
    above = [np.nanmean(r.scores("judge")) - np.nanmean(selfie.scores("judge")) for r in curve]
    first = next((i for i, value in enumerate(above) if value > 0), None)
    size, reason = None, "never above SelfIE"
    if first is not None:
        ends = slice(max(first - 1, 0), first + 1)
        sizes = np.log([row.n_train for row in curve])
        size = np.exp(np.interp(0, above[ends], sizes[ends]))
        reason = None if first else "above SelfIE from the smallest size on"
    return record("sec4", curve[-1], "beats-selfie", size, reason=reason)


def scored_by(runs: RUNS) -> Iterator[dict]:
    """Which judge and simulator scored the runs of one target, and where its labels come from.

    Raises `UserError` if they differ: such scores do not compare.
    """
    scored = [(run, part) for run, part in runs if len(part) and TASKS[run["task"]].simulated]
    if not scored:
        return
    made_by = ", ".join(sorted(f"runs/{run['id']}" for run, _ in scored))
    for metric in ("judge", "simulator"):  # the statistics of a run name the scorer of each
        by = {run["statistics"][metric]: run["id"] for run, _ in scored}
        if len(by) > 1:
            (a, first), (b, second) = list(by.items())[:2]
            raise UserError(
                f"runs {first} and {second} were scored by different {metric}s ({a}; {b}): delete "
                "the older, run again"
            )
        n = sum(int(part[metric].notna().sum()) for _, part in scored)
        named = {"data": "test", "condition": next(iter(by)), "artifact": made_by, "n": n}
        yield of_run("scored-by", scored[0][0], metric, n, **named)
    if section := scored[0][0]["settings"].get("features"):
        source = "published" if section.get("published") else section["descriptions"]
        yield of_run("scored-by", scored[0][0], "labels", None, data="train", condition=source)


def token_match(runs: RUNS) -> Iterator[dict]:
    """Section B.4, of the largest training size of each explainer: token match of its descriptions
    without or with another layer to those with the right one."""
    by_explainer: dict[tuple[str, str], list[dict]] = {}
    for run, _ in runs:
        if run["statistics"].get("token_match"):
            key = names(run, run["explainer"], run["condition"][0])
            by_explainer.setdefault(key, []).append(run)
    for (explainer, trained), made in by_explainer.items():
        most = max(run["n_train"] or 0 for run in made)
        made = [run for run in made if (run["n_train"] or 0) == most]
        made.sort(key=lambda run: run["seed"] or 0)
        named = {"explainer": explainer, "seeds": [run["seed"] for run in made]}
        named |= {"data": "sae", "artifact": artifact(made), "p": None}
        for told, (*_, n) in made[0]["statistics"]["token_match"].items():
            cells = [run["statistics"]["token_match"][told][:2] for run in made]
            error = metrics.pooled(cells, n)._asdict() | {"n": n, "n_clusters": n}
            named["condition"] = within(trained, told)
            yield of_run("B.4", made[0], "token_match", **error | named)


def said_by(run: dict) -> Iterator[dict]:
    """Table 5, Figure 8 and section A.2 from the runs of notebooks 10 and 11."""
    statistics = run["statistics"]
    for cell in statistics.get("similarity", []):
        named = {"data": "sae", "explainer": cell["explainer"], "condition": cell["condition"]}
        named |= {"n": cell["n"], "n_train": None, "seeds": []}
        for metric in (f"{name}{end}" for name in SIMILARITIES for end in ("", "_sd")):
            yield of_run("5", run, metric, cell[metric], **named)
    for metric, counted in statistics.get("fig8", {}).items():
        n, named = sum(counted.values()), {"data": "sae"}
        named["explainer"], _ = names(run, run["explainer"], "full")
        of_labels = counted["noisy/ambiguous label"] + counted["incorrect label"]
        for category, hits in (counted | {LABEL_ERROR: of_labels}).items() if n else ():
            yield of_run("fig8", run, metric, condition=category, **named, **share(hits, n))
    agreed = statistics.get("human_agreement") or {}
    for name in ("exact", "weighted", "opposed") if agreed else ():
        by = "" if agreed["by"] == "person" else f"{agreed['by']}, "
        named = {"data": "sae", "explainer": "judge", "condition": f"{by}{name}"}
        yield of_run("A.2", run, "human_agreement", agreed[name], n=agreed["n"], **named)


def feature_records(runs: RUNS, rows: list[Row]) -> list[dict]:
    """All of these of the runs and their rows of every size."""
    found = []
    for target in dict.fromkeys(run["target"] for run, _ in runs):
        of_target = [(run, part) for run, part in runs if run["target"] == target]
        held_out = [r for r in rows if (r.target, r.data, r.condition) == (target, "sae", "full")]
        found += [*section_4(held_out), *scored_by(of_target), *token_match(of_target)]
    return found + [each for run, _ in runs for each in said_by(run)]
