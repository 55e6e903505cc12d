import json
from types import SimpleNamespace

import describing
import numpy as np
import pandas as pd
import pytest

from introspect_utils.report import records as results
from introspect_utils.report.table_rows import rows_of
from introspect_utils.runs import record as run_files
from introspect_utils.scores import metrics
from introspect_utils.settings.errors import UserError

N = 240
TARGET = "smollm2-135m-instruct"
RUN = describing.RUN | {"task": "patching", "target": TARGET, "statistics": {}}
TABLE_6 = [
    {"split": "train", "token_type": "relation", "layers": "0-7", "unchanged": 30, "changed": 12},
    {"split": "test", "token_type": " or / and", "layers": "8-15", "unchanged": 3, "changed": 5},
]
ABLATION_STATISTICS = {
    "table7": [
        {"split": "train", "changed": 60, "unchanged": 40},
        {"split": "test", "changed": 130, "unchanged": 110},
    ],
    "followed": [
        {"subject": "anatomy", "right": True, "n": 10, "followed": 4},
        {"subject": "anatomy", "right": False, "n": 20, "followed": 15},
    ],
}


def answers(condition, explainer="self", accuracy=0.7, seed=0, unparseable=0.05):
    """Predictions of one explainer under one condition for N test rows that are the same in every
    call."""
    rows = np.random.default_rng(99)
    truth = rows.integers(0, 2, N).astype(bool)
    generator = np.random.default_rng(seed)
    right, parsed = generator.random(N) < accuracy, generator.random(N) >= unparseable
    predicted = [bool(t == r) if p else None for t, r, p in zip(truth, right, parsed, strict=True)]
    content_match = right & (generator.random(N) < 0.8)
    return pd.DataFrame(
        {
            "row": np.arange(N),
            "condition": condition,
            "explainer": explainer,
            "generation": [f"The output would ... {row}" for row in range(N)],
            "predicted_changed": pd.Series(predicted, dtype="object"),
            "predicted_content": "Paris",
            "is_different": truth,
            "content": rows.choice(["Paris", "Rome"], N),
            "exact_match": right & parsed & content_match,
            "has_changed": right & parsed,
            "content_match": content_match,
            "token_type": "relation",
            "block": "0-6",
            "pair": [f"fact {row // 4}" for row in range(N)],
            "subject": [f"subject {row // 8}" for row in range(N)],
            "relation": [f"relation {row % 5}" for row in range(N)],
        }
    )


def trained(condition, seed, n_train=2000, accuracy=0.8, target=TARGET, explainer=TARGET):
    name = f"{condition}-{n_train}-{seed}"
    run = RUN | {
        "id": name,
        "target": target,
        "explainer": explainer,
        "condition": [condition],
        "n_train": n_train,
        "seed": seed,
    }
    run |= {"checkpoint": f"artifacts/mini/{name}", "trained_parameters": 1000}
    return run, answers(condition, explainer, accuracy, seed=10 * seed + len(condition))


def full(seed, **fields):
    """A full run with its two controls at test."""
    run, predictions = trained("full", seed, **fields)
    controls = [
        answers(c, run["explainer"], 0.6, seed=100 * seed + i)
        for i, c in enumerate(("zero-vector", "shuffled-vector"), 1)
    ]
    return run | {"condition": ["full", "zero-vector", "shuffled-vector"]}, pd.concat(
        [predictions, *controls]
    )


def data_run():
    baselines = [
        answers("full", name, accuracy, 5, unparseable=0)
        for name, accuracy in (("lookup", 0.72), ("majority", 0.5))
    ]
    run = RUN | {
        "id": "data",
        "condition": ["lookup", "majority"],
        "n_train": 2000,
        "statistics": {"table6": TABLE_6},
    }
    return run, pd.concat(baselines)


def ablation_answers(explainer, condition="full", accuracy=0.7, seed=0):
    """As `answers`, of input ablation."""
    generator = np.random.default_rng(seed)
    table = answers(condition, explainer, accuracy, seed, unparseable=0).drop(
        columns=["token_type", "block", "pair", "relation"]
    )
    letters = {name: generator.choice(list("ABCD"), N) for name in ("predicted_content", "hint")}
    return table.assign(
        subject=[f"subject {row % 12}" for row in range(N)],
        content=np.random.default_rng(5).choice(list("ABCD"), N),
        **letters,
    )


def ablation_runs(target=TARGET):
    of_task = RUN | {"task": "ablation", "target": target}
    baselines = pd.concat(
        [ablation_answers(name, accuracy=0.5) for name in ("unchanged", "oracle")]
    )
    baselines.loc[baselines["explainer"] == "oracle", ["exact_match", "content_match"]] = True
    data = of_task | {
        "id": "ablation-data",
        "condition": ["full"],
        "n_train": 100,
        "statistics": ABLATION_STATISTICS,
    }
    full = of_task | {
        "id": "ablation-full",
        "trained_parameters": 1000,
        "explainer": target,
        "condition": ["full"],
        "n_train": 100,
        "seed": 0,
    }
    untrained = of_task | {
        "id": "ablation-untrained",
        "explainer": target,
        "condition": ["untrained"],
        "n_train": 0,
        "seed": 0,
    }
    return [
        (data, baselines),
        (full, ablation_answers(target, accuracy=0.8)),
        (
            untrained,
            ablation_answers(target, "untrained", accuracy=0.4)
            .assign(predicted_changed=False)
            .pipe(rescored),
        ),
    ]


def rescored(table):
    return table.assign(has_changed=table["predicted_changed"] == table["is_different"])


def all_runs():
    untrained = RUN | {
        "id": "untrained",
        "explainer": TARGET,
        "condition": ["untrained"],
        "n_train": 0,
        "seed": 0,
    }
    return [
        data_run(),
        full(0),
        full(1),
        full(0, n_train=500, accuracy=0.7),
        *(
            trained(condition, 0, accuracy=0.7)
            for condition in ("no-vector", "no-layer", "no-token", "locate")
        ),
        (untrained, answers("untrained", TARGET, 0.4, seed=7, unparseable=0.5)),
    ]


@pytest.fixture(scope="module")
def found():
    return results.records(all_runs())


def pick(found, **fields):
    return [
        record for record in found if all(record[key] == value for key, value in fields.items())
    ]


def test_table_2_has_every_row_and_metric(found):
    names = {(record["explainer"], record["condition"]) for record in pick(found, table="2")}
    conditions = ("full", "no-vector", "no-layer", "no-token", "zero-vector", "shuffled-vector")
    assert names == {("self", c) for c in conditions} | {
        ("untrained", "full"),
        ("lookup", "full"),
        ("majority", "full"),
        ("no-effect", "full"),
    }
    assert len(pick(found, table="2")) == len(names) * 4
    assert len({tuple(record) for record in found}) == 1 and tuple(found[0])[-2:] == ("p", "reason")


def test_values_over_seeds(found):
    (record,) = pick(found, table="2", explainer="self", condition="full", metric="exact_match")
    per_seed = [full(seed)[1].query("condition == 'full'")["exact_match"].mean() for seed in (0, 1)]
    assert record["value"] == pytest.approx(np.mean(per_seed), abs=1e-6)
    assert (record["n"], record["seeds"], record["n_train"]) == (N, [0, 1], 2000)
    assert record["artifact"] == "artifacts/mini/full-2000-0, artifacts/mini/full-2000-1"
    assert 0.01 < record["stderr"] < 0.05


def test_unparseable_is_counted_and_wrong(found):
    (record,) = pick(found, explainer="untrained", metric="unparseable")
    (f1,) = pick(found, table="2", explainer="untrained", metric="has_changed_f1")
    assert record["value"] == pytest.approx(0.5, abs=0.1) and f1["value"] < 0.4
    assert record["p"] is None and record["n_train"] == 0 and record["artifact"] == "runs/untrained"


def test_smaller_sizes_are_kept_apart(found):
    assert {record["n_train"] for record in pick(found, table="scaling")} == {500}
    assert {r["n_train"] for r in pick(found, table="answers", explainer="self")} == {500, 2000}
    assert {record["n_train"] for record in pick(found, table="2", explainer="self")} == {2000}


def two_seeds(condition="full", explainer=TARGET, accuracy=0.8):
    """An explainer of two seeds, with its controls if it is asked them."""
    if condition == "full":
        made = [full(seed, explainer=explainer, accuracy=accuracy) for seed in (0, 1)]
    else:
        made = [trained(condition, seed, 2000, accuracy, explainer=explainer) for seed in (0, 1)]
    name = f"{explainer}-{condition}"
    return [(run | {"id": f"{name}-{run['seed']}", "checkpoint": name}, part) for run, part in made]


def test_with_one_seed_nothing_has_a_p():
    runs = [data_run(), full(0), full(0, explainer="rotated", accuracy=0.7)]
    found = results.records([*runs, trained("no-vector", 0)])
    assert all(r["p"] is None for r in found if r["explainer"] in ("self", "rotated"))
    for r in found:
        if r["table"] == "2" and r["metric"] == "exact_match":
            because = None if r["explainer"] == "no-effect" else "one training seed"
            assert (r["p"], r["reason"]) == (None, because)
        if r["table"] in ("2-paired", "2-vector", "2-vector-paired"):
            assert r["p"] is None and "one training seed" in r["reason"]
            assert r["low"] <= r["value"] <= r["high"] and r["stderr"] > 0 or r["value"] == 0


def test_of_several_seeds_the_best_row_has_p_one():
    found = results.records([data_run(), *two_seeds(), *two_seeds(explainer="rotated")])
    (told,) = pick(found, table="2", metric="exact_match", explainer="no-effect")
    assert told["p"] is None  # no explainer
    rows = [row for row in pick(found, table="2", metric="exact_match") if row is not told]
    best = max(rows, key=lambda record: record["value"])
    assert best["p"] == 1 and all(0 <= record["p"] <= 1 for record in rows)
    assert all(r["reason"] is None for r in rows)


def test_one_seed_against_several_is_paired_by_seed_and_has_no_p():
    runs = [*two_seeds(), trained("full", 1, explainer="rotated", accuracy=0.7)]
    (record,) = pick(
        results.records(runs), table="2-paired", explainer="rotated", metric="exact_match"
    )
    own, other = two_seeds()[1][1], runs[-1][1]
    own = own[own["condition"] == "full"]
    difference = own["exact_match"].mean() - other["exact_match"].mean()
    assert record["value"] == pytest.approx(difference, abs=1e-6)
    assert (record["seeds"], record["p"], record["reason"]) == ([1], None, "one training seed")


def test_what_the_vector_adds_is_paired(found):
    differences = pick(found, table="2-vector", metric="exact_match")
    assert {record["condition"]: record["seeds"] for record in differences} == {
        "full minus zero-vector": [0, 1],
        "full minus shuffled-vector": [0, 1],
        "full minus no-vector": [0],
    }
    by = full(0)[1].set_index("condition")["exact_match"], trained("no-vector", 0, accuracy=0.7)[1]
    (record,) = pick(differences, condition="full minus no-vector")
    difference = by[0].loc["full"].to_numpy(float) - by[1]["exact_match"].to_numpy(float)
    of_pair = difference.reshape(-1, 4).sum(axis=1) - 4 * difference.mean()
    error = np.sqrt(len(of_pair) / (len(of_pair) - 1) * (of_pair**2).sum()) / N
    assert record["value"] == pytest.approx(difference.mean(), abs=1e-6)
    assert record["stderr"] == pytest.approx(error, abs=1e-6)
    assert record["reason"].startswith("another training")
    assert {r["reason"] for r in differences if r is not record} == {None}


def test_what_the_vector_adds_to_content_is_told_of_changed_and_unchanged_rows(found):
    name = "full minus no-vector"
    rows = pick(found, table="2-vector", metric="content_match", condition=name)
    by = {r["data"]: r for r in rows}
    parts = [by["changed rows"], by["unchanged rows"]]
    total = sum(part["value"] * part["n"] for part in parts)
    assert total / N == pytest.approx(by["test"]["value"], abs=1e-5)
    assert all(r["reason"].startswith("another training") and r["p"] is None for r in parts)


def test_how_much_more_the_vector_adds_to_self():
    runs = [*two_seeds(), *two_seeds(explainer="rotated", accuracy=0.7)]
    name = "full minus shuffled-vector"
    (record,) = pick(
        results.records(runs), table="2-vector-paired", condition=name, metric="exact_match"
    )

    def mean(made, condition):
        return np.mean([part[part["condition"] == condition]["exact_match"] for _, part in made])

    own, other = (
        mean(made, "full") - mean(made, "shuffled-vector") for made in (runs[:2], runs[2:])
    )
    assert record["value"] == pytest.approx(own - other, abs=1e-6)
    assert (record["explainer"], record["seeds"]) == ("rotated", [0, 1]) and 0 <= record["p"] <= 1


def test_errors_are_clustered_by_fact_pair(found):
    (record,) = pick(found, table="2", explainer="majority", metric="exact_match")
    assert (record["clusters"], record["n_clusters"]) == ("pair", N // 4)
    assert record["error_by"].keys() == {"subject", "relation"}
    unknown = [(run, part.assign(pair=None)) for run, part in all_runs()]
    (record,) = pick(
        results.records(unknown), table="2", explainer="majority", metric="exact_match"
    )
    assert (record["clusters"], record["n_clusters"], record["error_by"]) == (None, N, {})


def test_p_is_corrected_over_the_columns_of_a_comparison():
    runs = [*two_seeds(), *two_seeds(explainer="rotated", accuracy=0.75)]
    found = pick(results.records(runs), table="2-paired", explainer="rotated", condition="full")
    assert len(found) == 3
    uncorrected = []
    for r in found:
        rows = [row for row in rows_of(runs) if row.condition == "full"]
        a, b = sorted(rows, key=lambda row: row.explainer != "self")
        scores = a.scores(r["metric"]) - b.scores(r["metric"])
        uncorrected.append(metrics.estimate(scores, b.clusters["pair"]).p)
    assert [r["p"] for r in found] == pytest.approx(metrics.holm(uncorrected), rel=1e-3)


def test_two_records_of_one_key_are_an_error():
    run, predictions = data_run()
    again = run | {"id": "again"}
    with pytest.raises(UserError, match="4 records occur twice.* or / and / 8-15 / changed"):
        results.records([(run, predictions), (again, predictions.iloc[:0])])


def test_a_score_that_is_not_a_number_is_an_error():
    run, predictions = full(0)
    scores = predictions["exact_match"].astype(float)
    wrong = predictions.assign(exact_match=scores.where(predictions["row"] > 0))
    with pytest.raises(UserError, match="full-2000-0: exact_match, .*not a number"):
        results.records([(run, wrong)])
    wrong = predictions.assign(exact_match=scores.where(predictions["condition"] == "full"))
    with pytest.raises(UserError, match="full-2000-0 has no exact_match"):
        results.records([(run, wrong)])


def test_the_papers_own_lookup_stands_beside_table_2(found):
    (record,) = pick(found, table="2-lookup")
    assert (record["value"], record["n"], record["artifact"]) == (
        pytest.approx(0.8208, abs=1e-4),
        5600,
        "report/paper.csv",
    )


def test_interaction_of_target_and_explainer():
    other = "gemma3-270m"
    made = {}
    for target in (TARGET, other):
        for explainer, accuracy in ((target, 0.8), (other if target == TARGET else TARGET, 0.6)):
            table = ablation_answers(explainer, accuracy=accuracy, seed=len(made))
            run = RUN | {"task": "ablation", "id": f"{target}-{explainer}", "target": target}
            run |= {"explainer": explainer, "condition": ["full"], "n_train": 100, "seed": 0}
            run |= {"trained_parameters": 1000}
            made[target, explainer == target] = run | {"checkpoint": run["id"]}, table
    (record,) = pick(
        results.records(list(made.values())), table="3-interaction", metric="exact_match"
    )
    gaps = [
        made[target, True][1]["exact_match"].mean() - made[target, False][1]["exact_match"].mean()
        for target in (TARGET, other)
    ]
    assert record["value"] == pytest.approx(sum(gaps), abs=1e-6)
    assert (record["n"], record["clusters"], record["n_clusters"]) == (2 * N, "subject", 12)
    assert (record["p"], record["reason"]) == (None, "one training seed")


def test_locate_and_counts(found):
    (record,) = pick(found, table="C.1")
    assert (record["condition"], record["metric"], record["paper"]) == (
        "locate",
        "exact_match",
        None,
    )
    counts = {(r["data"], r["condition"]): r["value"] for r in pick(found, table="6")}
    assert (
        counts["train", "relation / 0-7 / unchanged"] == 30
        and counts["test", " or / and / 8-15 / changed"] == 5
    )
    assert {r["n"] for r in pick(found, table="6", data="train")} == {42}


def test_the_papers_number_only_where_the_target_is_the_papers(found):
    assert {record["paper"] for record in found} == {None}
    run, predictions = trained(
        "full", 0, target="Qwen/Qwen3-8B", explainer="meta-llama/Llama-3.1-8B"
    )
    found = pick(results.records([(run, predictions)]), table="2")
    papers = {record["metric"]: record["paper"] for record in found}
    assert papers == {
        "exact_match": 0.541,
        "has_changed_f1": 0.739,
        "content_match": 0.654,
        "unparseable": None,
    }
    run, predictions = trained("locate", 0, target="llama-3.1-8b", explainer="llama-3.1-8b")
    assert pick(results.records([(run, predictions)]), table="C.1")[0]["paper"] == 0.987
    run, predictions = data_run()
    found = results.records([(run | {"target": "llama-3.1-8b"}, predictions)])
    assert pick(found, table="6", condition="relation / 0-7 / changed")[0]["paper"] == 911


def test_runs_scored_on_other_rows_are_refused():
    run, predictions = full(1)
    other = predictions.assign(content="Oslo")
    with pytest.raises(UserError, match="different test rows"):
        results.records([full(0), (run, other)])


def test_order_of_rows_and_runs_does_not_matter(found):
    shuffled = [
        (run, predictions.sample(frac=1, random_state=0))
        for run, predictions in reversed(all_runs())
    ]
    assert results.records(shuffled) == found


def test_a_run_comes_back_as_written_and_leaves_no_other_file(tmp_path):
    run, predictions = full(0)
    run_files.write_run(tmp_path / "run", run, predictions)
    run_again, again = run_files.read_run(tmp_path / "run")
    assert run_again == run and results.records([(run_again, again)]) == results.records(
        [(run, predictions)]
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "predictions.parquet",
        "run.json",
    ]
    before = (tmp_path / "run" / "predictions.parquet").read_bytes()
    run_files.write_run(tmp_path / "run", run, predictions)
    assert (tmp_path / "run" / "predictions.parquet").read_bytes() == before


def test_what_is_strange_is_said_on_screen_and_in_the_record(tmp_path, capsys):
    run, predictions = full(0)
    run_files.write_run(tmp_path, run, predictions.assign(generation="the word"))
    kept = run_files.read_run(tmp_path)[0]["statistics"]["warnings"]
    conditions = list(predictions["condition"].unique())
    assert (
        len(kept) == len(set(conditions) - {"zero-vector"})
        and f"all {N} predictions are the same ('the word')" in kept[0]
    )
    assert capsys.readouterr().out == "".join(f"warning: {line}\n" for line in kept)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run, p: (run | {"lr": 1}, p), r"run.json missing or unknown: \['lr'\]"),
        (lambda run, p: (run, p.drop(columns="block")), r"missing or unknown: \['block'\]"),
        (lambda run, p: (run, p.assign(exact_match="yes")), "wrong type"),
        (lambda run, p: (run, pd.concat([p, p])), "occurs twice"),
        (lambda run, p: (run, p.assign(has_changed=True)), "has_changed must be"),
    ],
)
def test_a_wrong_run_is_not_written(tmp_path, spoil, message):
    with pytest.raises(UserError, match=message):
        run_files.write_run(tmp_path, *spoil(*full(0)))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_run_unfinished(tmp_path, monkeypatch):
    run_files.write_run(tmp_path, *full(0))

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_files.pq, "write_table", fail)
    with pytest.raises(KeyboardInterrupt):
        run_files.write_run(tmp_path, *full(0))
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile whose plan is the folders of `all_runs` under a temporary figures folder, and one
    run not yet done."""
    folders = [tmp_path / "runs" / run["id"] for run, _ in all_runs()] + [
        tmp_path / "runs" / "later"
    ]
    runs = [
        SimpleNamespace(outputs=(folder / "run.json", folder / "predictions.parquet"))
        for folder in folders
    ]
    monkeypatch.setattr(results, "load_profile", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(run_files, "load_profile", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(run_files, "plan", lambda profile: runs)
    monkeypatch.setattr(results, "figures_dir", lambda name: tmp_path)
    return tmp_path


def test_results_are_the_same_bytes_each_time(profile, found):
    for run, predictions in all_runs():
        run_files.write_run(profile / "runs" / run["id"], run | {"seconds": 1.0}, predictions)
    assert results.write_results("test") == found
    before = (profile / "results.json").read_bytes()
    for run, predictions in all_runs():
        run_files.write_run(
            profile / "runs" / run["id"], run | {"seconds": 2.0, "device": "other"}, predictions
        )
    results.write_results("test")
    assert (profile / "results.json").read_bytes() == before
    assert json.loads(before) == found


def test_runs_of_other_settings_are_left_out(profile):
    run_files.write_run(profile / "runs" / "data", *data_run())
    run_files.write_run(profile / "runs" / "stale", *full(0))
    assert [run["id"] for run, _ in run_files.read_runs("test")] == ["data"]


def test_no_run_says_what_to_do(profile):
    with pytest.raises(UserError, match="run_all.sh test"):
        run_files.read_runs("test")


def test_the_two_tasks_of_one_target_are_kept_apart(found):
    both = results.records(all_runs() + ablation_runs())
    assert pick(both, task="patching") == pick(found, task="patching")
    ablation = pick(both, task="ablation")
    tables = {"3", "3-paired", "7", "sec5.2", "hints", "answers", "claims"}
    assert {record["table"] for record in ablation} == tables
    assert {(r["explainer"], r["condition"]) for r in pick(ablation, table="3")} == {
        (name, "full") for name in ("self", "untrained", "unchanged", "no-effect", "oracle")
    }
    oracle = pick(ablation, table="3", explainer="oracle", metric="exact_match")[0]
    assert (oracle["value"], oracle["p"], oracle["reason"]) == (1.0, None, None)


def test_what_lies_behind_a_row_of_table_3():
    runs = ablation_runs()
    behind = [
        record
        for record in results.records(runs)
        if record["table"] == "sec5.2" and record["explainer"] == "untrained"
    ]
    table = runs[2][1]
    changed = table[table["is_different"]]
    values = {
        (record["condition"], record["metric"]): (record["value"], record["n"]) for record in behind
    }
    assert values["full", "predicted_changed"] == (0.0, N)
    assert values["full", "predicts_hint"] == (
        pytest.approx((table["predicted_content"] == table["hint"]).mean(), abs=1e-6),
        N,
    )
    assert values["changed rows", "content_match"] == (
        pytest.approx(changed["content_match"].mean(), abs=1e-6),
        len(changed),
    )
    assert values["unchanged rows", "content_match"][1] == N - len(changed)
    assert values["changed minus unchanged rows", "predicted_changed"] == (0.0, N)
    known = pick(results.records(ablation_runs("qwen3-8b")), table="sec5.2", explainer="untrained")
    papers = {(record["condition"], record["metric"]): record["paper"] for record in known}
    assert papers == {
        ("full", "predicted_changed"): 0.004,
        ("full", "predicts_hint"): None,
        ("changed rows", "predicted_changed"): None,
        ("unchanged rows", "predicted_changed"): None,
        ("changed minus unchanged rows", "predicted_changed"): None,
        ("changed rows", "content_match"): 0.143,
        ("unchanged rows", "content_match"): 0.91,
    }


def test_counts_of_the_input_ablation_data():
    found = results.records(ablation_runs("qwen3-8b"))
    counts = {
        (r["data"], r["condition"]): (r["value"], r["n"], r["paper"])
        for r in pick(found, table="7")
    }
    assert counts["train", "changed"] == (60, 100, 8517) and counts["test", "unchanged"] == (
        110,
        240,
        466,
    )
    hints = {r["condition"]: (r["value"], r["n"]) for r in pick(found, table="hints")}
    assert hints == {"anatomy / right": (0.4, 10), "anatomy / wrong": (0.75, 20)}
    assert pick(found, table="3", explainer="self", metric="exact_match")[0]["paper"] == 0.627  # v1


def test_each_task_has_its_own_columns(tmp_path):
    run, predictions = ablation_runs()[1]
    run_files.write_run(tmp_path / "run", run, predictions)
    assert set(run_files.read_run(tmp_path / "run")[1].columns) == set(predictions.columns)
    with pytest.raises(UserError, match=r"\['block', 'hint', 'pair', 'relation', 'token_type'\]"):
        run_files.write_run(tmp_path / "other", run, answers("full"))
