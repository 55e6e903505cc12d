"""What features have besides the tables of all tasks.

Tables "1-seen", "1-unseen", "1-one-word" and "1-other-label" are Table 1 of some of the held-out
features: those whose gold label is a training label too, or is not; those whose label only names a
word, or says more. "1-projection" is a model with a fitted projection minus the same with a random
one, "sec3.4" their ratio. "sec4" has the shares of section 4, raw and over the floor of the best
constant description, and the number of directions from which SelfIE is beaten. "scored-by" says
which judge and simulator the scores are of (`condition`) and of how many descriptions, and where the
labels come from. "B.4" is the token match without or with another layer, "5" has means and standard
deviations of similarities, "fig8" the share of each of B.5's categories among n zero scores
(`share`: sorted by a person, `share_automatic`: by a rule).
"""

import random
from dataclasses import replace

import numpy as np
import pandas as pd

from introspect_utils.report.paper import LABEL_ERROR
from introspect_utils.report.record import bare_row, count, difference, measured, part_of, record
from introspect_utils.report.table_rows import Row, names, one_word, shared_seeds
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import TASKS

SCORERS = ("judge", "simulator")  # run["statistics"] names the scorer of each
SHARE = 0.008  # of the training directions: section 4's 1,024 a layer
FLOORS = ("constant", "most-frequent")  # the best constant description; the best that there is
FITTED = "pretrained-projection"
SIMILARITIES = ("activation_pattern", "dot_product", "cka")


def splits(rows: list[Row], described: dict[str, pd.DataFrame]) -> list[Row]:
    """The rows of held-out features again, each of some of them: of seen, unseen, one-word and other
    labels."""
    found = []
    for row in rows:
        if "gold" not in row.parts[0] or row.data != "sae":
            continue
        gold = row.parts[0]["gold"]
        short = one_word(gold)
        masks = {"one-word": short, "other-label": ~short}
        if row.target in described:
            seen = gold.isin(_training_labels(rows, row.target, described[row.target])).to_numpy()
            masks |= {"seen": seen, "unseen": ~seen}
        found += [row.take(mask, split) for split, mask in masks.items() if mask.any()]
    return found


def _training_labels(rows: list[Row], target: str, described: pd.DataFrame) -> set[str]:
    """The labels that the explainers of the largest size were trained on, in their first seed
    (drawn as in `tasks.describing.split`)."""
    labels = described.loc[described["split"] == "train", "description"].tolist()
    row = max((r for r in rows if r.target == target), key=lambda r: (r.n_train or 0, r.trained))
    n, seed = row.n_train or len(labels), min(row.seeds, default=0)
    return set(random.Random(seed).sample(labels, min(n, len(labels))))


# --- sections 3.4 and 4


def projections(table: str, rows: list[Row]) -> list[dict]:
    """What fitting a projection beforehand gives another model, and how many times its score."""
    found = []
    full = {row.explainer: row for row in rows if row.condition == "full"}
    for row in rows:
        if row.condition == FITTED and row.explainer in full:
            for metric in [name for name in SCORERS if row.parts[0][name].notna().all()]:
                condition = f"{FITTED} minus random"
                other = full[row.explainer]
                found.append(difference(f"{table}-projection", row, other, metric, condition))
                found.append(_ratio("sec3.4", row, other, metric, FITTED, metric))
    return [each for each in found if each]


def _ratio(table: str, a: Row, b: Row, metric: str, condition: str, name: str, floor=None) -> dict:
    """mean(a) / mean(b) of a metric, both over a floor if there is one, as a record of `a`."""
    seeds, of_a, of_b = shared_seeds(a, b)
    fields = {"condition": condition, "seeds": seeds}
    under = floor.scores(metric)[:1] if floor else 0.0
    if (a.trained or b.trained) and not seeds:
        return record(table, a, name, None, reason="no training seed in common", **fields)
    top, bottom = a.scores(metric)[of_a] - under, b.scores(metric)[of_b] - under
    if bottom.mean() <= 0:
        return record(table, a, name, None, reason="the denominator is not above 0", **fields)
    return measured(table, a, name, metrics.ratio(top, bottom), **fields)


def section_4(rows: list[Row], target: str) -> list[dict]:
    """Section 4's shares by the judge, of every explainer of two sizes or more: its score with 0.8%
    of the directions over that with all (`end-share`), self there over the others with all
    (`share-of-X`); each raw and `over-floor`. And the directions from which it beats SelfIE."""
    chosen = [r for r in rows if (r.target, r.data, r.condition) == (target, "sae", "full")]
    by_size = {}
    for row in sorted((r for r in chosen if r.n_train), key=lambda row: row.n_train):
        by_size.setdefault(row.explainer, []).append(row)
    curves = {name: rows for name, rows in by_size.items() if len(rows) > 1}
    floors = (by_size[name][-1] for name in FLOORS if name in by_size)
    floor, selfie, found = next(floors, None), by_size.get("selfie"), []
    few = {name: _with(SHARE * curve[-1].n_train, curve, "judge") for name, curve in curves.items()}
    for ending, under in (("", None), ("-over-floor", floor)) if floor else (("", None),):
        for name, row in few.items():
            if row:
                end = curves[name][-1]
                found.append(_share(row, end, f"end-share{ending}", under))
        if few.get("self"):
            for name, curve in curves.items():
                if name != "self":
                    metric = f"share-of-{name}{ending}"
                    found.append(_share(few["self"], curve[-1], metric, under))
    for name, curve in curves.items() if selfie else ():
        found.append(_beats(curve, selfie[-1]))
    return found


def _with(n_train: float, curve: list[Row], metric: str) -> Row | None:
    """An explainer with so many directions: straight lines between its sizes on a log axis. None
    outside of them."""
    for low, high in zip(curve, curve[1:], strict=False):
        if low.n_train <= n_train <= high.n_train:
            share = np.log(n_train / low.n_train) / np.log(high.n_train / low.n_train)
            seeds, of_low, of_high = shared_seeds(low, high)
            parts = []
            for i, j in zip(of_low, of_high, strict=True) if seeds else ():
                ends = low.parts[i][metric].to_numpy(), high.parts[j][metric].to_numpy()
                parts.append(
                    low.parts[i].assign(**{metric: np.average(ends, 0, [1 - share, share])})
                )
            return replace(low, parts=parts, seeds=seeds) if parts else None
    return None


def _share(few: Row, end: Row, name: str, floor: Row | None) -> dict:
    if few.trained and end.trained and few.epochs != end.epochs:
        reason = f"trained for {few.epochs} and {end.epochs} epochs"
        return record("sec4", few, name, None, condition="0.8%", reason=reason)
    return _ratio("sec4", few, end, "judge", "0.8%", name, floor)


def _beats(curve: list[Row], selfie: Row) -> dict:
    """The fewest directions with which a curve is above SelfIE, on straight lines between its sizes
    on a log axis."""
    bar, sizes = selfie.scores("judge").mean(), [row.n_train for row in curve]
    above = np.array([row.scores("judge").mean() for row in curve]) - bar
    first = next((i for i, value in enumerate(above) if value > 0), None)
    if first is None:
        return record("sec4", curve[-1], "beats-selfie", None, reason="never above SelfIE")
    if first == 0:
        reason = "above SelfIE from the smallest size on"
        return record("sec4", curve[-1], "beats-selfie", sizes[0], reason=reason)
    size = np.exp(np.interp(0, above[first - 1 : first + 1], np.log(sizes[first - 1 : first + 1])))
    return record("sec4", curve[-1], "beats-selfie", size)


# --- what runs say of themselves


def scored_by(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """Which judge and simulator scored the runs of one target, and where its labels come from.

    Raises `UserError` if they differ: such scores do not compare.
    """
    scored = [(run, part) for run, part in runs if len(part) and TASKS[run["task"]].simulated]
    found = []
    for metric in SCORERS if scored else ():
        first = scored[0][0]
        for run, _ in scored:
            if run["statistics"][metric] != first["statistics"][metric]:
                raise UserError(
                    f"runs {first['id']} and {run['id']} were scored by different {metric}s "
                    f"({first['statistics'][metric]}; {run['statistics'][metric]}): delete the "
                    "older, run again"
                )
        n = sum(int(part[metric].notna().sum()) for _, part in scored)
        artifact = ", ".join(sorted(f"runs/{run['id']}" for run, _ in scored))
        by = count(first, "scored-by", "test", first["statistics"][metric], n, n)
        found.append(by | {"metric": metric, "artifact": artifact})
    section = scored[0][0]["settings"].get("features") if scored else None
    if section:
        source = "published" if section.get("published") else section["descriptions"]
        labels = count(scored[0][0], "scored-by", "train", source, 0, 0)
        found.append(labels | {"metric": "labels", "value": None, "n": None})
    return found


def token_match(runs: list[tuple[dict, pd.DataFrame]]) -> list[dict]:
    """Section B.4, of the largest training size of each explainer: token match of its descriptions
    without or with another layer to those with the right one."""
    by_explainer: dict[tuple[str, str], list[dict]] = {}
    for run, _ in runs:
        if "token_match" in run["statistics"]:
            key = names(run, run["explainer"], run["condition"][0])
            by_explainer.setdefault(key, []).append(run)
    found = []
    for (explainer, trained), made in by_explainer.items():
        largest = max(run["n_train"] for run in made)
        made = sorted((r for r in made if r["n_train"] == largest), key=lambda run: run["seed"])
        artifact = ", ".join(run["checkpoint"] or f"runs/{run['id']}" for run in made)
        seeds = [run["seed"] for run in made]
        for told in made[0]["statistics"]["token_match"]:
            condition = part_of(trained, told)
            row = bare_row(made[0], "sae", explainer, condition, seeds=seeds, artifact=artifact)
            cells = [run["statistics"]["token_match"][told] for run in made]
            n = cells[0][2]
            score = metrics.pooled([cell[:2] for cell in cells], n)
            low, high = score.interval
            fields = {"stderr": score.stderr, "low": low, "high": high, "n": n, "n_clusters": n}
            found.append(record("B.4", row, "token_match", score.value, **fields))
    return found


def similarity(run: dict) -> list[dict]:
    """Table 5: mean and standard deviation of each similarity of each explainer."""
    found = []
    for cell in run["statistics"].get("similarity", []):
        row = bare_row(run, "sae", cell["explainer"], cell["condition"], n_train=None, seeds=[])
        for name in (f"{metric}{end}" for metric in SIMILARITIES for end in ("", "_sd")):
            found.append(record("5", row, name, cell[name], n=cell["n"]))
    return found


def figure_8(run: dict) -> list[dict]:
    """The shares of B.5's five categories among the judge's zero scores, and of the two of labels
    together."""
    found = []
    for metric, counted in run["statistics"].get("fig8", {}).items():
        n = sum(counted.values())
        of_labels = counted["noisy/ambiguous label"] + counted["incorrect label"]
        for category, hits in (counted | {LABEL_ERROR: of_labels}).items() if n else ():
            share, low, high = metrics.wilson(hits, n)
            explainer, _ = names(run, run["explainer"], "full")
            row = bare_row(run, "sae", explainer, category)
            error = {"stderr": (share * (1 - share) / n) ** 0.5, "low": low, "high": high}
            found.append(record("fig8", row, metric, share, n=n, n_clusters=n, **error))
    return found


def feature_records(runs: list[tuple[dict, pd.DataFrame]], rows: list[Row]) -> list[dict]:
    """All of these of the runs; `rows`: those of features, of every size."""
    found = []
    for target in dict.fromkeys(row.target for row in rows):
        found += section_4(rows, target)
    for target in dict.fromkeys(run["target"] for run, _ in runs):
        of_target = [(run, part) for run, part in runs if run["target"] == target]
        found += scored_by(of_target) + token_match(of_target)
    found += [each for run, _ in runs for each in similarity(run) + figure_8(run)]
    return found
