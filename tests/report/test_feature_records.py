import numpy as np
import pandas as pd
import pytest
from describing import (
    JUDGE,
    SIMULATOR,
    TARGET,
    TOKEN_MATCH,
    baselines_run,
    data_run,
    explainer_run,
    feature_runs,
)
from scipy.stats import t

from introspect_utils.report import records as results
from introspect_utils.report.feature_records import FITTED
from introspect_utils.runs import record as run_files
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import TASKS, task_features

N = {"sae": 40, "act": 20, "dact": 15}
OTHER = "gemma3-270m"


@pytest.fixture(scope="module")
def found():
    return results.records(feature_runs())


def pick(found, **fields):
    return [
        record for record in found if all(record[key] == value for key, value in fields.items())
    ]


def scores(table, condition="full", data="sae", metric="simulator", explainer="self"):
    of_row = table[
        (table["explainer"] == explainer)
        & (table["condition"] == condition)
        & (table["data"] == data)
    ]
    return of_row[metric].to_numpy()


def test_table_1_has_every_row_column_and_metric(found):
    rows = {}
    for record in pick(found, table="1"):
        rows.setdefault((record["explainer"], record["condition"]), set()).add(
            (record["data"], record["metric"])
        )
    others = {
        ("self", "zero-vector"),
        ("self", "shuffled-vector"),
        (OTHER, "zero-vector"),
        (OTHER, "shuffled-vector"),
    }
    baselines = {
        ("nn-all", "full"),
        ("nn-all", "dot-product"),
        ("nn-layer", "full"),
        ("selfie", "full"),
        ("gold", "full"),
    }
    explainers = {
        ("self", "full"),
        (OTHER, "full"),
        ("untrained", "full"),
        ("most-frequent", "full"),
    }
    assert rows.keys() == others | baselines | explainers
    simulated = {
        (data, metric) for data in N for metric in ("simulator", "simulator_abs", "constant")
    }
    judged = {("sae", "judge"), ("sae", "judge_high")}
    assert all(rows[key] == simulated | judged for key in rows if key[0] != "gold")
    of_sae = {(data, metric) for data, metric in simulated if data == "sae"}
    assert rows["gold", "full"] == of_sae | judged
    assert {r["n"] for r in pick(found, table="1", data="dact")} == {15} and len(
        {tuple(r) for r in found}
    ) == 1


def test_values_and_errors_are_over_rows_and_seeds(found):
    per_seed = np.stack([scores(explainer_run(seed=seed)[1], data="act") for seed in (0, 1)])
    (record,) = pick(
        found, table="1", explainer="self", condition="full", data="act", metric="simulator"
    )
    of_rows = per_seed.mean(axis=0).std(ddof=1) / np.sqrt(N["act"])
    of_seeds = per_seed.mean(axis=1).std(ddof=1) / np.sqrt(2)
    assert record["value"] == pytest.approx(per_seed.mean(), abs=1e-6)
    assert record["stderr"] == pytest.approx(np.hypot(of_rows, of_seeds), abs=1e-6)
    assert (record["n"], record["seeds"], record["n_train"]) == (20, [0, 1], 1000)


def test_the_signed_and_the_absolute_correlation_are_two_metrics(found):
    signed, absolute = (
        pick(found, table="1", explainer="most-frequent", data="sae", metric=metric)[0]["value"]
        for metric in ("simulator", "simulator_abs")
    )
    table = baselines_run()[1]
    assert signed == pytest.approx(scores(table, explainer="most-frequent").mean(), abs=1e-6)
    assert absolute == pytest.approx(
        scores(table, metric="simulator_abs", explainer="most-frequent").mean(), abs=1e-6
    )
    assert absolute > signed


def two_of_each():
    """Baselines, and two explainers of two seeds."""
    both = [explainer_run(name, seed) for name in ("self", OTHER) for seed in (0, 1)]
    return [baselines_run(), *both, explainer_run(n_train=0)]


def test_the_best_of_a_column_is_found_column_by_column(found):
    for data, metric in (
        ("sae", "judge"),
        ("sae", "simulator"),
        ("act", "simulator"),
        ("dact", "simulator_abs"),
    ):
        rows = pick(found, table="1", data=data, metric=metric)
        competing = [r for r in rows if r["p"] is not None]
        best = max(competing, key=lambda r: r["value"])
        assert best["p"] == 1 and best["explainer"] != "gold"
        assert {r["explainer"] for r in rows if r["p"] is None} == (
            {"gold"} if metric == "judge" else set()
        )
    (gold,) = pick(found, table="1", explainer="gold", metric="judge")
    assert (gold["value"], gold["stderr"], gold["p"]) == (1, 0, None)


def test_an_explainer_of_one_seed_has_no_p_and_the_others_do():
    found = results.records([baselines_run(), *two_of_each()[1:4]])
    rows = pick(found, table="1", data="sae", metric="simulator")
    alone = [r for r in rows if r["trained_parameters"] and len(r["seeds"]) == 1]
    others = [r for r in rows if r not in alone]
    assert alone and {(r["p"], r["reason"]) for r in alone} == {(None, "one training seed")}
    assert max(others, key=lambda r: r["value"])["p"] == 1
    assert all(r["p"] is not None for r in others)


def test_error_interval_and_p_are_of_one_model(found):
    """Self minus a baseline, by hand: rows and seeds, Satterthwaite's degrees of freedom, Holm."""
    own = np.stack([scores(explainer_run(seed=seed)[1]) for seed in (0, 1)])
    difference = own - scores(baselines_run()[1], explainer="nn-layer")
    of_rows = difference.mean(axis=0).var(ddof=1) / N["sae"]
    of_seeds = difference.mean(axis=1).var(ddof=1) / 2
    df = (of_rows + of_seeds) ** 2 / (of_rows**2 / (N["sae"] - 1) + of_seeds**2)
    rows = pick(found, table="1-paired", explainer="nn-layer", condition="full")
    (r,) = pick(rows, data="sae", metric="simulator")
    stderr = np.sqrt(of_rows + of_seeds)
    half = t.ppf(0.975, df) * stderr
    assert (r["stderr"], r["low"]) == pytest.approx((stderr, r["value"] - half), abs=1e-6)
    p = 2 * t.sf(abs(difference.mean()) / stderr, df)
    assert len(rows) == 4 and p <= r["p"] <= 4.001 * p


def test_what_self_is_ahead_by_is_paired_by_row_and_seed(found):
    full, zero = (
        np.stack([scores(explainer_run(seed=s)[1], c) for s in (0, 1)])
        for c in ("full", "zero-vector")
    )
    (record,) = pick(
        found,
        table="1-paired",
        explainer="self",
        condition="zero-vector",
        data="sae",
        metric="simulator",
    )
    assert record["value"] == pytest.approx((full - zero).mean(), abs=1e-6)
    assert record["seeds"] == [0, 1]
    (baseline,) = pick(
        found, table="1-paired", explainer="nn-layer", data="sae", metric="simulator"
    )
    against = full - scores(baselines_run()[1], explainer="nn-layer")
    assert baseline["value"] == pytest.approx(against.mean(), abs=1e-6)
    assert baseline["seeds"] == [0, 1]
    assert not pick(found, table="1-paired", explainer="self", condition="full")


def test_errors_are_clustered_by_feature_with_the_layers_beside(found):
    (record,) = pick(found, table="1", explainer="untrained", data="act", metric="simulator")
    assert (record["clusters"], record["n_clusters"]) == ("feature", 20)
    assert record["error_by"].keys() == {"layer"}
    (by_layer,) = record["error_by"].values()
    half = t.ppf(0.975, df=3 - 1) * by_layer["stderr"]  # the three layers of these runs
    assert (by_layer["high"] - by_layer["low"]) / 2 == pytest.approx(half, abs=1e-5)


def labelled(run_and_table):
    """A run whose features have labels of several kinds and explanations that differ."""
    run, table = run_and_table
    gold = ["the word 'a'" if row % 2 else f"label {row % 4}" for row in table["row"]]
    sae = table["data"] == "sae"
    said = [f"the word '{row}'" if row % 4 else "verbs" for row in table["row"]]
    return run, table.assign(gold=np.where(sae, gold, ""), generation=said)


def test_tables_are_split_by_label():
    described = pd.DataFrame(
        {"split": "train", "layer": 1, "description": ["label 0"] * 999 + ["the word 'b'"] * 2}
    )
    runs = [labelled(pair) for pair in two_of_each()]
    found = results.records(runs, {TARGET: described})
    parts = ("seen", "unseen", "one-word", "other-label")
    n = {part: {r["n"] for r in pick(found, table=f"1-{part}", explainer="self")} for part in parts}
    assert n == {"seen": {10}, "unseen": {30}, "one-word": {20}, "other-label": {20}}
    (record,) = pick(found, table="1-seen", explainer="self", condition="full", metric="simulator")
    seen = np.stack([scores(explainer_run(seed=s)[1])[::4] for s in (0, 1)])
    assert record["value"] == pytest.approx(seen.mean(), abs=1e-6)
    assert pick(found, table="1-unseen-paired", explainer="nn-all", metric="judge")
    assert not pick(results.records(runs), table="1-seen")


def test_features_without_a_near_twin_have_a_table():
    runs = [labelled(pair) for pair in two_of_each()]
    names = runs[-1][1].query("data == 'sae'")["feature"].unique()
    described = pd.DataFrame({"feature": names, "split": "test", "layer": 1, "description": ""})
    described["twin"] = described.index < 3
    found = pick(results.records(runs, {TARGET: described}), table="1-no-twin", explainer="self")
    assert {record["n"] for record in found} == {len(names) - 3}


def test_how_alike_the_answers_are():
    found = pick(results.records([labelled(p) for p in two_of_each()]), table="answers")
    (distinct,) = pick(found, explainer="untrained", data="sae", metric="distinct")
    (commonest,) = pick(found, explainer="untrained", data="sae", metric="most_frequent")
    (template,) = pick(found, explainer="untrained", data="sae", metric="one_word")
    assert (distinct["value"], commonest["value"], template["value"]) == (31, 0.25, 0.75)


def test_the_share_rated_high_stands_beside_the_mean(found):
    (record,) = pick(found, table="1", explainer="untrained", metric="judge_high")
    ratings = scores(explainer_run(n_train=0)[1], "untrained", metric="judge", explainer="self")
    assert record["value"] == pytest.approx((ratings >= 0.75).mean(), abs=1e-6)


def test_what_a_fitted_projection_gives():
    fitted, runs = [], two_of_each()
    for run, table in runs[3:5]:
        part = table[table["condition"] == "full"].assign(condition=FITTED)
        part["simulator"] = (part["simulator"] + 0.1).clip(-1, 1)
        part["simulator_abs"] = part["simulator"].abs()
        fitted.append((run | {"id": f"fitted-{run['seed']}", "condition": [FITTED]}, part))
    found = results.records([*runs, *fitted])
    (gain,) = pick(found, table="1-projection", data="act", metric="simulator")
    (ratio,) = pick(found, table="sec3.4", data="act", metric="simulator")
    before, after = (
        np.stack([scores(t, c, "act", explainer=OTHER) for _, t in part])
        for part, c in ((runs[3:5], "full"), (fitted, FITTED))
    )
    assert gain["value"] == pytest.approx((after - before).mean(), abs=1e-6)
    assert ratio["value"] == pytest.approx(after.mean() / before.mean(), abs=1e-5)
    assert gain["seeds"] == ratio["seeds"] == [0, 1] and gain["p"] < 0.05


def of_sizes(epochs=1, floor="constant"):
    """Self and nearest neighbours of 8, 100 and 1,000 directions; floor and SelfIE at the end."""
    runs = []
    for n, skill in ((8, 0.6), (100, 0.7), (1000, 0.9)):
        run, table = explainer_run(n_train=n, skill=skill)
        few = {"features": {"epochs": epochs if n == 8 else 1, "descriptions": "rules"}}
        runs.append((run | {"settings": few}, table[table["condition"] == "full"]))
        run, table = baselines_run()
        names = ["nn-all"] if n < 1000 else ["nn-all", floor, "selfie"]
        table = table.replace({"explainer": {"most-frequent": floor}})
        table = table[table["explainer"].isin(names) & (table["condition"] == "full")]
        runs.append((run | {"id": f"baselines-{n}", "n_train": n, "settings": few}, table))
    return runs


def test_section_4_is_computed_raw_and_over_the_floor():
    runs = of_sizes()
    found = {r["metric"]: r for r in pick(results.records(runs), table="sec4", explainer="self")}
    few, end = (runs[i][1].query("data == 'sae'")["judge"].mean() for i in (0, 4))
    last = runs[5][1].query("data == 'sae'").groupby("explainer")["judge"].mean()
    floor = last["constant"]
    assert found["end-share"]["value"] == pytest.approx(few / end, abs=1e-5)
    over = (few - floor) / (end - floor)
    assert found["end-share-over-floor"]["value"] == pytest.approx(over, abs=1e-5)
    assert found["share-of-nn-all"]["value"] == pytest.approx(few / last["nn-all"], abs=1e-5)
    assert found["end-share"]["low"] < few / end < found["end-share"]["high"]
    assert (found["beats-selfie"]["value"], found["end-share"]["condition"]) == (8, "0.8%")


def test_shares_of_other_epochs_are_not_taken():
    found = pick(results.records(of_sizes(epochs=10)), table="sec4", explainer="self")
    shares = {r["metric"]: (r["value"], r["reason"]) for r in found if "share" in r["metric"]}
    assert {"end-share", "share-of-nn-all", "share-of-nn-all-over-floor"} <= shares.keys()
    assert set(shares.values()) == {(None, "trained for 10 and 1 epochs")}


def test_no_share_is_over_a_floor_that_is_not_the_best_constant():
    found = pick(results.records(of_sizes(floor="most-frequent")), table="sec4")
    assert found and not [r for r in found if r["metric"].endswith("over-floor")]


def test_where_the_labels_come_from_is_said():
    (labels,) = pick(results.records(of_sizes()), table="scored-by", metric="labels")
    assert labels["condition"] == "rules"


def test_explainers_of_other_seeds_are_not_paired():
    runs = [explainer_run(seed=0), *(explainer_run(OTHER, seed=seed) for seed in (1, 2))]
    assert not pick(results.records(runs), table="1-paired", explainer=OTHER)
    assert pick(results.records(runs), table="1", explainer=OTHER)


def test_smaller_sizes_are_kept_apart(found):
    assert {(r["n_train"], r["data"]) for r in pick(found, table="scaling")} == {
        (200, data) for data in N
    }
    assert {r["n_train"] for r in pick(found, table="1", explainer="self")} == {1000}
    assert {r["n_train"] for r in pick(found, table="1", explainer="untrained")} == {0}


def test_smaller_sizes_are_paired_among_themselves():
    smaller = [
        explainer_run(name, seed, 200, 0.3) for name in ("self", "rotated") for seed in (0, 1)
    ]
    largest = [explainer_run(name, skill=0.6) for name in ("self", "rotated")]
    found = pick(
        results.records([*smaller, *largest]),
        table="scaling-paired",
        condition="full",
        data="sae",
        metric="simulator",
    )
    assert [(r["explainer"], r["n_train"], r["seeds"]) for r in found] == [("rotated", 200, [0, 1])]
    own, other = (
        np.stack([scores(t, explainer=n) for _, t in smaller[i : i + 2]])
        for i, n in ((0, "self"), (2, "rotated"))
    )
    assert found[0]["value"] == pytest.approx((own - other).mean(), abs=1e-6)


def test_targets_after_the_first_are_table_4():
    two = results.records([*feature_runs(), *feature_runs("qwen3-8b")])
    assert {r["target"] for r in pick(two, table="1")} == {TARGET} and {
        r["target"] for r in pick(two, table="4")
    } == {"qwen3-8b"}
    first = results.records(feature_runs())
    assert [r for r in two if r["target"] == TARGET] == pick(first, target=TARGET)
    # a first target of which only the data are made is the first all the same
    early = results.records([data_run(), *feature_runs("qwen3-8b")])
    assert (
        not pick(early, table="1")
        and pick(early, table="4")
        and pick(results.records([data_run()]), task="features", table="1") == []
    )


def test_the_papers_numbers_only_where_the_target_is_the_papers(found):
    assert {r["paper"] for r in found} == {None}
    llama = results.records(feature_runs("meta-llama/Llama-3.1-8B"))
    (judge,) = pick(llama, table="1", explainer="nn-layer", metric="judge")
    dact = pick(llama, table="1", explainer="self", condition="full", data="dact")
    assert judge["paper"] == 0.539
    assert {r["metric"]: r["paper"] for r in dact} == {
        "simulator": 0.32,
        "simulator_abs": None,
        "constant": None,
    }
    assert {r["condition"]: r["paper"] for r in pick(llama, table="B.4", explainer="self")} == {
        "no-layer": 0.773,
        "wrong-layer": 0.752,
    }
    gemma = results.records([*feature_runs(), *feature_runs("google/gemma-2-9b")])
    assert pick(gemma, table="4", explainer="selfie", metric="judge")[0]["paper"] == 0.2407


def test_token_match_of_the_largest_size(found):
    assert {(r["explainer"], r["condition"], r["n_train"]) for r in pick(found, table="B.4")} == {
        (name, condition, 1000)
        for name in ("self", OTHER)
        for condition in ("no-layer", "wrong-layer")
    }
    run, predictions = explainer_run(seed=1)
    apart = run | {
        "statistics": run["statistics"]
        | {"token_match": TOKEN_MATCH | {"no-layer": [0.6, 0.04, 40]}}
    }
    (record,) = pick(
        results.records([explainer_run(), (apart, predictions)]), table="B.4", condition="no-layer"
    )
    # rows: the root mean square of .02 and .04; seeds: .8 and .6 are .1 standard errors apart
    assert record["value"] == 0.7 and record["stderr"] == pytest.approx(
        np.sqrt(0.001 + 0.01), abs=1e-6
    )
    assert (record["n"], record["seeds"], record["metric"]) == (40, [0, 1], "token_match")
    assert (
        record["artifact"]
        == f"artifacts/mini/{TARGET}-self-1000-0, artifacts/mini/{TARGET}-self-1000-1"
    )


def test_who_scored_is_said_and_must_be_one(found):
    scored = {r["metric"]: r for r in pick(found, table="scored-by")}
    assert (scored["judge"]["condition"], scored["simulator"]["condition"]) == (JUDGE, SIMULATOR)
    assert (
        scored["judge"]["value"] == 6 * 40 + 5 * 3 * 40 + 40
        and "runs/data" not in scored["judge"]["artifact"]
    )
    run, predictions = explainer_run(seed=1)
    for metric in ("judge", "simulator"):
        other = run | {"statistics": run["statistics"] | {metric: "another"}}
        with pytest.raises(UserError, match=f"scored by different {metric}s .*another"):
            results.records([explainer_run(), (other, predictions)])


def test_explainers_must_describe_the_same_directions():
    run, predictions = explainer_run(seed=1)
    for other in (predictions[predictions["row"] > 0], predictions.assign(gold="")):
        with pytest.raises(UserError, match="different test rows"):
            results.records([explainer_run(), (run, other)])


def test_order_of_rows_and_runs_does_not_matter(found):
    shuffled = [
        (run, predictions.sample(frac=1, random_state=0))
        for run, predictions in reversed(feature_runs())
    ]
    assert results.records(shuffled) == found


def test_a_run_comes_back_as_written(tmp_path):
    for number, (run, predictions) in enumerate(feature_runs()):
        run_files.write_run(tmp_path / str(number), run, predictions if len(predictions) else None)
    again = [run_files.read_run(tmp_path / str(number)) for number in range(len(feature_runs()))]
    assert results.records(again) == results.records(feature_runs())
    assert again[0][1].empty and list(again[0][1].columns) == list(TASKS["features"].all_columns)


def test_a_row_that_the_judge_did_not_rate_is_left_out_of_the_judges_numbers_alone(found):
    runs = feature_runs()
    chosen = next(run for run, p in runs if run["explainer"] == "self" and run["n_train"] == 1000)
    of_row = {"explainer": "self", "condition": "full", "data": "sae"}

    def spoilt(run, table):
        lost = (table[list(of_row)] == pd.Series(of_row)).all(axis=1) & (table["row"] == 3)
        return run, table.assign(judge=table["judge"].mask(lost & (run is chosen)))

    kept = [t for run, t in runs if run["explainer"] == "self" and run["n_train"] == 1000]
    now = results.records([spoilt(*each) for each in runs])
    assert len(now) == len(found)
    [judge] = pick(now, table="1", metric="judge", **of_row)
    rated = [np.delete(scores(table, metric="judge"), 3) for table in kept]
    assert judge["n"] == N["sae"] - 1 and judge["value"] == pytest.approx(np.mean(rated), abs=1e-6)
    [minus] = pick(
        now, table="1-paired", metric="judge", data="sae", explainer="nn-all", condition="full"
    )
    assert minus["n"] == N["sae"] - 1
    for table in ("1", "1-paired"):
        ours, before = (pick(each, table=table, metric="simulator") for each in (now, found))
        assert ours == before


def test_a_pair_without_a_rating_is_one_however_many_rows_have_it():
    """The constant answer, say, beside a gold description that several features have."""
    run, table = baselines_run()
    constant = (table["explainer"] == "most-frequent") & (table["data"] == "sae")
    same = table.assign(generation=table["generation"].mask(constant, "dates"))
    same["gold"] = same["gold"].mask(constant, "music")
    assert constant.sum() > 5
    assert task_features.wrong(run, same.assign(judge=same["judge"].mask(constant))) is None
    several = table.assign(judge=table["judge"].mask(constant))
    several["gold"] = several["gold"].mask(constant, table["row"].astype(str))
    assert "judge must be a number" in task_features.wrong(run, several)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run, p: (run, p.drop(columns="layer")), r"missing or unknown: \['layer'\]"),
        (lambda run, p: (run, pd.concat([p, p])), "occurs twice"),
        (lambda run, p: (run, p.assign(data="test")), "data must be"),
        (lambda run, p: (run, p.assign(judge=0.5)), "null in those of act and dact"),
        (
            lambda run, p: (
                run,
                p.assign(
                    judge=p["judge"].where(p["row"] > 0),
                    generation=[f"answer {i}" for i in range(len(p))],
                ),
            ),
            "judge must be a number",
        ),
        (lambda run, p: (run, p.assign(judge=p["judge"] * 100 + 1)), "must lie in 0..1"),
        (lambda run, p: (run, p.assign(simulator=np.nan)), "within plus or minus"),
        (
            lambda run, p: (run, p.assign(simulator_abs=p["simulator"] - 0.1)),
            "within plus or minus",
        ),
        (
            lambda run, p: (run | {"statistics": {"judge": "x"}}, p),
            r"which judge and simulator scored it; not given: \['simulator'\]",
        ),
    ],
)
def test_a_wrong_run_is_not_written(tmp_path, spoil, message):
    with pytest.raises(UserError, match=message):
        run_files.write_run(tmp_path, *spoil(*explainer_run()))
    assert not list(tmp_path.iterdir())
