"""B.5: which cases are taken, what the rule says of hand-made ones, what a click saves, and what
Figure 8 shows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from describing import baselines_run, data_run, descriptions, explainer_run
from simulating import make_exemplars

from introspect_utils.extras import error_analysis
from introspect_utils.extras.error_analysis import (
    ErrorLabels,
    automatic_category,
    doubtful_cosine,
    zero_cases,
)
from introspect_utils.features.exemplars import find_exemplars
from introspect_utils.report import result_figures
from introspect_utils.report.paper import ERROR_CATEGORIES, LABEL_ERROR, PUBLISHED
from introspect_utils.report.records import records
from introspect_utils.runs.record import read_run, write_run
from introspect_utils.scores.judge import THRESHOLDS, ratings
from introspect_utils.settings.errors import UserError

CASE = {"active": 1.0, "cosine": 0.0, "simulator": 0.3, "gold_simulator": 0.5}
COUNTS = {
    "explainer model error": 10,
    "noisy/ambiguous label": 4,
    "incorrect label": 2,
    "judge error": 3,
    "sparse activation": 1,
}


@pytest.fixture
def cases():
    found = zero_cases(explainer_run(skill=0.1)[1], baselines_run()[1])
    return found.assign(exemplars=[[f"a <<<{i}>>> & b", "c"] for i in range(len(found))])


# --- the cases
# --------------------------------------------------------------------------------------------------------


def test_cases_are_the_zeros_of_sae_features_with_the_gold_descriptions_score():
    predictions, baselines = explainer_run(skill=0.1)[1], baselines_run()[1]
    cases = zero_cases(predictions, baselines)
    full = predictions[
        (predictions["condition"] == "full") & (predictions["data"] == "sae")
    ].set_index("feature")
    assert 5 < len(cases) < 40 and set(cases["feature"]) == set(full.index[full["judge"] == 0])
    gold = baselines[baselines["explainer"] == "gold"].set_index("feature")
    for case in cases.itertuples():
        assert (case.simulator, case.gold_simulator) == (
            full["simulator"][case.feature],
            gold["simulator"][case.feature],
        )
        assert (case.generation, case.gold) == ("words for animals", "names of animals")


def test_at_most_n_cases_are_drawn_by_the_seed():
    runs = explainer_run(skill=0.1)[1], baselines_run()[1]
    drawn = [zero_cases(*runs, n=5, seed=seed)["feature"].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 5
    assert set(drawn[0]) < set(zero_cases(*runs)["feature"])


def test_other_test_rows_are_refused():
    other = baselines_run()[1].assign(gold="another label")
    with pytest.raises(UserError, match="tested on different rows"):
        zero_cases(explainer_run(skill=0.1)[1], other)


def test_a_run_without_zeros_has_no_cases():
    none = descriptions("self").assign(judge=1.0)
    assert zero_cases(none, baselines_run()[1]).empty and set(
        error_analysis.counts([]).values()
    ) == {0}


# --- the automatic rule
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "category"),
    [
        ({}, "explainer model error"),
        (
            {"simulator": 0.55},
            "explainer model error",
        ),  # better than the gold description by no more than the margin
        ({"simulator": 0.65}, "noisy/ambiguous label"),
        ({"simulator": 0.25, "gold_simulator": 0.09}, "incorrect label"),
        ({"simulator": 0.25, "gold_simulator": -0.5}, "incorrect label"),
        ({"simulator": 0.1, "gold_simulator": 0.05}, "explainer model error"),  # neither says much
        ({"cosine": 0.26}, "judge error"),
        ({"cosine": 0.25}, "explainer model error"),
        ({"cosine": 0.26, "simulator": 0.9}, "judge error"),
        ({"active": 0.4}, "sparse activation"),
        ({"active": 0.5}, "explainer model error"),
        ({"active": 0.4, "cosine": 0.3, "simulator": 0.9}, "sparse activation"),
    ],
)
def test_the_rule(changes, category):
    assert (
        automatic_category(SimpleNamespace(**CASE | changes), doubtful_cosine("embedding"))
        == category
    )


def test_the_embedding_judge_contradicts_a_chat_model_and_doubts_its_own_narrow_zeros():
    other, own = doubtful_cosine("openai"), doubtful_cosine("embedding")
    assert ratings([other, other - 1e-6], THRESHOLDS).tolist() == [2, 1]  # above 0 from there on
    assert ratings([own], THRESHOLDS).tolist() == [1] and own == pytest.approx(other - 0.05)


def test_a_direction_active_in_few_contexts_is_told_from_its_exemplars(tiny):
    """One active in 3 contexts of 40, one in 20 of them; residuals [40, 4, 2] are the activations
    themselves."""
    h = torch.zeros(40, 4, 2)
    h[[5, 9, 30], 2, 0] = torch.tensor([8.0, 10.0, 9.0])
    h[::2, 1, 1] = 5.0
    tokens = torch.arange(160).view(40, 4) % 50 + 10
    exemplars = find_exemplars(h, tokens, torch.eye(2), n_top=8, n_random=2, seed=0)
    assert error_analysis.active_share(exemplars) == [3 / 8, 1]
    first, second = error_analysis.excerpts(tiny, exemplars, span=1)
    assert len(first) == len(second) == 8
    decode = tiny.tokenizer.decode
    before, peak, after = (
        decode(tokens[9, t : t + 1]) for t in (1, 2, 3)
    )  # context 9, its token 2, is the highest
    assert first[0] == f"{before}<<<{peak}>>>{after}"


def test_what_the_rule_looks_at_is_there_without_a_case_too(tiny, monkeypatch):
    """No case: `.str` on an empty column blocked the tables (20.19)."""
    monkeypatch.setattr(
        error_analysis,
        "load_judge",
        lambda name, device: SimpleNamespace(cosines=lambda pairs: np.array([0.4] * len(pairs))),
    )
    cases = zero_cases(explainer_run(skill=0.1)[1], baselines_run()[1], n=3)
    for n in (3, 0):
        own = make_exemplars(3, vocabulary=300).take(range(n))
        found = error_analysis.sorted_by_rule(cases.head(n), tiny, own, "embedding")
        assert len(found) == n and found["automatic"].isin(list(ERROR_CATEGORIES)).all()
        assert found["exemplars"].str[:1].str.join(" | ").map(type).eq(str).all()
        assert found["cosine"].tolist() == [0.4] * n and found["active"].dtype == float


# --- a person's labels


def test_every_click_is_saved_and_read_back(cases, tmp_path):
    person = ErrorLabels(cases, tmp_path)
    text, buttons = person.show().children
    assert [button.description for button in buttons.children] == list(ERROR_CATEGORIES)
    assert f"0 of {len(cases)} cases are labelled" in text.value
    assert "a &lt;&lt;&lt;0&gt;&gt;&gt; &amp; b" in text.value
    case = cases.iloc[0]
    said = (case["feature"], "names of animals", "words for animals", f"{case['simulator']:.2f}")
    assert all(shown in text.value for shown in said)
    buttons.children[3].click()
    buttons.children[0].click()
    assert f"2 of {len(cases)} cases are labelled" in text.value
    again = ErrorLabels(cases, tmp_path)
    assert again.labels == person.labels == ["judge error", "explainer model error"]
    assert ErrorLabels(cases.iloc[::-1], tmp_path).labels == []  # other cases


# --- records and Figure 8
# ---------------------------------------------------------------------------------------------


def analysed(target="smollm2-135m-instruct", **shares):
    """A run of notebook 11 with these counts."""
    run, nothing = data_run(target)
    asked = {
        "id": f"features-errors-{target}",
        "explainer": "self",
        "condition": ["full"],
        "n_train": 1000,
        "seed": 0,
    }
    return run | asked | {"statistics": {"fig8": shares}}, nothing


def of_figure_8(runs):
    return {(r["metric"], r["condition"]): r for r in records(runs) if r["table"] == "fig8"}


def test_a_record_for_each_category_and_the_labels_together(tmp_path):
    run, _ = analysed(share_automatic=COUNTS, share=dict.fromkeys(COUNTS, 1))
    write_run(tmp_path, run)
    found = of_figure_8([explainer_run(), baselines_run(), read_run(tmp_path)])
    assert found.keys() == {
        (m, c) for m in ("share", "share_automatic") for c in (*ERROR_CATEGORIES, LABEL_ERROR)
    }
    both = found["share_automatic", LABEL_ERROR]
    assert (both["value"], both["n"], both["seeds"], both["n_train"]) == (0.3, 20, [0], 1000)
    assert both["stderr"] == pytest.approx((0.3 * 0.7 / 20) ** 0.5, abs=1e-6)
    assert found["share", LABEL_ERROR]["value"] == 0.4 and found["share", "judge error"]["n"] == 5
    assert both["artifact"] == f"runs/{run['id']}" and both["paper"] is None


def test_the_papers_shares_stand_beside_a_persons_of_the_same_target():
    found = of_figure_8([analysed("meta-llama/Llama-3.1-8B", share=COUNTS, share_automatic=COUNTS)])
    paper = {category: r["paper"] for (metric, category), r in found.items() if metric == "share"}
    assert paper == {
        **dict.fromkeys(ERROR_CATEGORIES, None),
        **{
            "explainer model error": 0.27,
            LABEL_ERROR: 0.435,
            "judge error": 0.11,
            "sparse activation": 0.18,
        },
    }
    assert {r["paper"] for (metric, _), r in found.items() if metric == "share_automatic"} == {None}
    assert {row.condition for row in PUBLISHED if row.table in ("fig8", "B.5")} <= {
        *ERROR_CATEGORIES,
        LABEL_ERROR,
    }


def test_figure_8_shows_a_persons_categories_where_there_are_any():
    automatic = {"share_automatic": COUNTS}
    person = {"share": dict.fromkeys(COUNTS, 1), "share_automatic": COUNTS}
    by_rule, by_person = (
        result_figures.figure_8(records([analysed("a", **shares)]), least=5)
        for shares in (automatic, person)
    )
    assert "a rule puts" in by_rule.get_suptitle() and "a person puts" in by_person.get_suptitle()
    by_rule, by_person = by_rule.axes[0], by_person.axes[0]
    assert by_rule.get_title().startswith("20 cases") and by_person.get_title().startswith(
        "5 cases"
    )
    names = [label.get_text() for label in by_rule.get_yticklabels()]
    assert names == [*ERROR_CATEGORIES, "both label errors"]
    shown = [bar.get_width() for bar in by_rule.patches]
    assert sorted(shown) == pytest.approx([5, 10, 15, 20, 30, 50])
    low, high = by_rule.collections[0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((29.9, 70.1), abs=0.1)  # Wilson's of 10 of 20
    paper = [float(line.get_xdata()[0]) for line in by_rule.lines if line.get_marker() == "D"]
    assert sorted(paper) == pytest.approx([11, 18, 27, 43.5])


def test_figure_8_of_no_case_is_not_drawn():
    none = records([analysed(share_automatic=dict.fromkeys(COUNTS, 0))])
    assert result_figures.figure_8(none, least=0) is None
