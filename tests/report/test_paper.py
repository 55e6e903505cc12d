"""The paper's numbers agree with each other, and have the names of our runs. (Against the paper's
text all of them were compared when `paper.csv` was written.)"""

import pytest
from sklearn.metrics import f1_score

from introspect_utils.report import paper
from introspect_utils.report.feature_records import FITTED
from introspect_utils.report.paper import PUBLISHED, lookup, published
from introspect_utils.settings.names import MODELS
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile


def test_v3_of_table_3():
    self, untrained = (
        [row.value for row in lookup(version="v3", target="qwen3-8b", explainer=e)]
        for e in ("self", "untrained")
    )
    assert self == [0.834, 0.87, 0.906] and untrained == [0.089, 0.444, 0.353]
    (llama,) = lookup(version="v3", target="llama-3.1-8b-instruct")
    assert (llama.explainer, llama.metric, llama.value) == ("self", "exact_match", 0.638)


def test_counts_add_up_to_the_published_datasets():
    def total(**fields):
        return sum(row.value for row in lookup(metric="count", **fields))

    assert total(table="6", data="train") == 13_454 and total(table="6", data="test") == 5_600
    assert (
        total(table="7", target="qwen3-8b", data="train")
        == total(table="7", target="llama-3.1-8b-instruct", data="train")
        == 12_642
    )


def test_one_number_by_its_names():
    one = published("2", "test", "qwen3-8b", "self", "full", "exact_match")
    assert (one.value, one.stderr, one.task, one.version) == (0.64, 0.004, "patching", "v1")
    assert published("2", "test", "smollm2-135m-instruct", "self", "full", "exact_match") is None
    assert (
        published("3", "test", "qwen3-8b", "self", "full", "exact_match").value == 0.627
    )  # not v3
    assert paper.model_name("Qwen/Qwen3-8B") == "qwen3-8b"
    name = paper.count_condition("Subject Final", "0-7", "changed")
    assert name == "subject-final / 0-7 / changed"
    name = paper.count_condition("New Answer Option", "0-7", "changed")
    assert name == "changed-answer-option / 0-7 / changed"
    other = paper.count_condition(" New York / x", "0-7", "changed")
    assert other.rsplit(" / ", 2) == [" New York / x", "0-7", "changed"]


def test_published_rows_have_the_names_that_runs_have():
    """A run of a profile, named as records name it, finds the paper's number."""
    for file, table, target, explainer, condition, value in (
        ("paper/optional/llama-70b.yaml", "1", "llama-3.1-8b", "llama-3.1-70b", "full", 0.639),
        ("paper/optional/llama-70b.yaml", "1", "llama-3.1-8b", "llama-3.1-70b", FITTED, 0.741),
        ("paper/optional/gemma.yaml", "4", "gemma-2-9b", "gemma-2-9b-it", "full", 0.5712),
    ):
        section = load_profile(REPO / "params" / file).features
        assert target in section.targets and explainer in section.explainers
        assert condition in section.conditions
        known = published(table, "sae", target, explainer, condition, "judge")
        assert known.value == value
    every = {(row.explainer) for row in lookup(table="1")} | {
        r.explainer for r in lookup(table="4")
    }
    models = {name for name in every if "-" in name and not name.startswith(("nn-", "selfie"))}
    assert models <= MODELS.keys()


def test_ratios_of_section_3_4_are_those_of_table_1():
    found = {(r.data, r.metric): r.value for r in lookup(table="sec3.4")}
    assert found == {
        ("sae", "judge"): 1.15,
        ("sae", "simulator"): 1.15,
        ("act", "simulator"): 2.7,
        ("dact", "simulator"): 1.7,
    }
    for (data, metric), ratio in found.items():
        fitted, other = (
            published("1", data, "llama-3.1-8b", "llama-3.1-70b", condition, metric).value
            for condition in (FITTED, "full")
        )
        assert fitted / other == pytest.approx(ratio, abs=0.05)


def test_the_papers_table_6_as_a_lookup():
    """19.10: the score by scikit-learn."""
    truth, said = paper.table_6_outcomes()
    assert len(truth) == 5600
    assert f1_score(truth, said, average="macro") == pytest.approx(0.821, abs=5e-4)


def test_no_number_twice_and_all_on_one_scale():
    keys = [
        (r.table, r.data, r.target, r.explainer, r.condition, r.metric, r.version)
        for r in PUBLISHED
    ]
    assert len(set(keys)) == len(keys)
    shares = [row for row in PUBLISHED if row.metric != "count" and row.table != "sec3.4"]
    assert all(0 <= row.value <= 1 for row in shares)
