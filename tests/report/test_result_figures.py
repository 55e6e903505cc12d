"""The figures of the results: what they show, and that they can be read at the size of a column."""

import itertools

import numpy as np
import pytest
from describing import TARGET, explainer_run, feature_runs
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from recording import ROWS, ablation_records, record, some_records

from introspect_utils.report import hero, other_figures, similarity, style
from introspect_utils.report import result_figures as figures
from introspect_utils.report.paper import LABEL_ERROR, PATCHING_METRICS, lookup
from introspect_utils.report.records import records as made
from introspect_utils.report.scaling import figure_scaling
from introspect_utils.report.table_rows import ONE_SEED
from introspect_utils.report.tables import COLUMNS

SIMILAR = {"self": 1.0, "sibling": 0.95, "rotated@0.5": 0.7, "rotated": 0.02, "gemma3-270m": 0.1}


@pytest.fixture(scope="module")
def records():
    """Of all tasks: features with the dial and similarities, patching, and two targets' hints."""
    runs = [explainer_run(name, skill=0.3 + s / 5) for name, s in SIMILAR.items() if name != "self"]
    runs += [explainer_run("self", n_train=n, skill=0.3) for n in (50, 200)]
    cells = [
        {"explainer": name, "condition": "full", "n": 48}
        | {key: x for metric in similarity.METRICS for key in (metric, f"{metric}_sd")}
        for name, x in SIMILAR.items()
    ]
    data = feature_runs()[0]
    fields = {"id": "similarity", "explainer": "similarity", "condition": []}
    similar = data[0] | fields | {"statistics": {"similarity": cells}}
    found = made([*feature_runs(), *runs, (similar, data[1])])
    hints = ablation_records()
    other = [r | {"target": "gemma3-270m"} for r in hints if r["table"] == "3"]
    swapped = {"gemma3-270m": TARGET}
    other = [r | {"explainer": swapped.get(r["explainer"], r["explainer"])} for r in other]
    paired = [
        record("2-paired", explainer, "full", metric, 0.1, task="patching")
        for explainer in ("gemma3-270m", "majority", "lookup")
        for metric in PATCHING_METRICS
    ]
    return [*found, *some_records(), *paired, *hints, *other, *blamed(40)]


def blamed(n):
    shares = dict.fromkeys(("explainer model error", "judge error"), 0.4)
    shares |= {"noisy/ambiguous label": 0.1, "incorrect label": 0.1, LABEL_ERROR: 0.2}
    shares |= {"sparse activation": 0.0}
    fields = {"n": n, "task": "features", "data": "sae"}
    return [record("fig8", "self", c, "share_automatic", v) | fields for c, v in shares.items()]


@pytest.fixture(scope="module")
def drawn(records):
    """{name: figure} of all there are."""
    found = {
        "features": figures.of_table(records, ("1", "4"), COLUMNS, "nn-all"),
        "paired": figures.of_differences(records, ("1-paired",), COLUMNS),
        "hero": hero.hero(records),
        "patching": figures.of_table(records, ("2",), PATCHING_METRICS, "other"),
        "hints": figures.of_table(records, ("3",), PATCHING_METRICS, "other"),
        "5": figure_scaling(records, TARGET, COLUMNS[:1], 1),
        "7": figure_scaling(records, TARGET, COLUMNS[1:], 1),
        "6": similarity.figure_6(records),
        "6 all": similarity.figure_6(records, similarity.METRICS, COLUMNS),
        "8": figures.figure_8(records),
        "matrix": other_figures.figure_matrix(records),
        "ablation": other_figures.figure_ablation(records),
    }
    return found


def dots(axes):
    """Where the dots of a dot plot are, ours and the paper's diamonds."""
    lines = [container.lines[0] for container in axes.containers]
    places = [(line.get_marker() == "D", float(line.get_xdata()[0])) for line in lines]
    return [x for paper, x in places if not paper], [x for paper, x in places if paper]


def test_every_text_is_seven_points_or_more_and_whole(drawn):
    for name, figure in drawn.items():
        assert figure.get_figwidth() in (style.COLUMN, style.PAGE), name
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw_without_rendering()
        low, high = figure.get_tightbbox(renderer).get_points()  # inches
        assert (low >= -0.02).all() and (high <= figure.get_size_inches() + 0.02).all(), name
        for text in figure.findobj(Text):
            assert text.get_fontsize() >= 7 or not text.get_text().strip(), (name, text.get_text())


def test_every_figure_says_its_message(drawn):
    titles = {name: figure.get_suptitle() for name, figure in drawn.items()}
    assert all(titles.values()) and len(set(titles.values())) >= len(titles) - 2, titles


def test_nothing_is_drawn_of_nothing():
    assert hero.hero([]) is None and figures.figure_8(blamed(12)) is None
    assert figures.of_table([], ("1",), COLUMNS, "nn-all") is None
    assert figures.of_differences([], ("1-paired",), COLUMNS) is None
    assert other_figures.figure_matrix(ablation_records()) is None
    assert other_figures.figure_ablation([]) is None
    assert figure_scaling(some_records(), TARGET, COLUMNS, 1) is None
    assert similarity.figure_6(some_records()) is None


def test_the_hero_has_a_few_rows_beside_the_papers(records, drawn):
    features, patching, hints = drawn["hero"].axes
    names = [label.get_text() for label in features.get_yticklabels()]
    others = ["Rotated", "Another model", "Nearest neighbour", "SelfIE"]
    assert names == ["Self", "Self, wrong vector", *others]
    assert features.get_title().endswith("◇ of llama-3.1-8b")
    ours, paper = dots(features)
    own = figures.pick(records, "sae judge", table="1", explainer="self", condition="full")
    assert ours[0] == pytest.approx(100 * own["value"]) and 76.2 in [round(x, 1) for x in paper]
    floors = [axes.lines[-1].get_xdata()[0] for axes in (features, patching, hints)]
    zero = figures.pick(records, "sae judge", table="1", explainer="self", condition="zero-vector")
    # no oracle is a floor; self without its vector is one, and each is named below its panel
    assert floors == pytest.approx([100 * zero["value"], 28.1, 20.0])
    assert [axes.get_xlabel() for axes in (features, patching)] == [
        "floor: Self, zero\nvector at test",
        "floor: Self, trained\nwithout the vector",
    ]
    # of Table 3 the numbers of v1, all of one version
    assert [round(x, 1) for x in dots(hints)[1]] == [62.7, 14.6, 30.2]
    title = drawn["hero"].get_suptitle().replace("\n", " ")
    assert title.endswith(
        "Features: above itself with a wrong vector, above nearest neighbour; Patching: "
        "above itself with a wrong vector; "
        "Hints: not compared"
    )


def test_the_hero_has_rows_that_score_alike(records):
    """By one column: a control that changes nothing is left out only of whole tables."""
    one = [r for r in records if figures.column(r) == "sae judge" and r["table"] == "1"]
    alike = [r | {"value": 0.1} for r in one]
    others = [r for r in records if r not in one]
    names = hero.hero([*others, *alike]).axes[0].get_yticklabels()
    assert len(names) == 6


def test_the_heros_title_compares_self_with_each_rival():
    above, level = ({"value": value, "stderr": 0.02} for value in (0.1, 0.01))
    both = [("Self, wrong vector", above), ("Nearest neighbour", level), ("SelfIE", None)]
    said = "above itself with a wrong vector, not told apart from nearest neighbour"
    assert hero.verdict(both) == said
    assert hero.verdict([("SelfIE", above | {"reason": ONE_SEED})]) == "no verdict (one seed)"


@pytest.mark.parametrize(
    ("value", "said"), [(0.2, "above"), (0.01, "not told apart from"), (-0.2, "below")]
)
def test_two_models_that_explain_each_other_are_compared_both_ways(records, value, said):
    gain = [
        record("3-interaction", "gemma3-270m", "self minus other, both", metric, value)
        for metric in PATCHING_METRICS
    ]
    told = f"Hints: {said} another model, both ways together"
    assert told in hero.hero([*records, *gain]).get_suptitle().replace("\n", " ")
    table = figures.of_table([*records, *gain], ("3",), PATCHING_METRICS, "other")
    said = said.removesuffix(" from")
    assert table.get_suptitle() == (
        f"Self beside another model, both ways together: {said} in 3 of 3 scores"
    )


def test_a_table_as_dots_leaves_out_what_changes_nothing(records, drawn):
    panel = drawn["patching"].axes[0]
    assert len(dots(panel)[0]) == len(ROWS)
    qwen = lookup(table="2", target="qwen3-8b", metric="exact_match")
    same = [100 * row.value for row in qwen if (row.explainer, row.condition) in ROWS]
    assert sorted(dots(panel)[1]) == pytest.approx(sorted(same))
    twin = [
        r | {"explainer": "sibling"}
        for r in records
        if r["table"] == "2" and r["explainer"] == "self"
    ]
    again = figures.of_table([*records, *twin], ("2",), PATCHING_METRICS, "other")
    assert len(dots(again.axes[0])[0]) == len(ROWS)


def test_bars_are_95_percent_intervals(drawn):
    [bars] = [
        c for c in drawn["patching"].axes[0].containers[0].lines[2] if isinstance(c, LineCollection)
    ]
    (low, _), (high, _) = bars.get_segments()[0]
    assert high - low == pytest.approx(2 * 200 * 0.019)


def test_paired_differences_are_those_to_other_trained_explainers(drawn):
    ours, papers = (
        [label.get_text() for label in drawn["paired"].axes[at].get_yticklabels()]
        for at in (0, len(COLUMNS))
    )
    assert ours == ["Sibling (one seed)", "Rotated (one seed)", "gemma3-270m"]
    assert papers and all("→ " in name for name in papers)
    assert drawn["paired"].axes[0].lines[-1].get_xdata()[0] == 0


@pytest.mark.parametrize(
    ("value", "stderr", "said"),
    [(0.1, 0.02, "is above"), (-0.1, 0.02, "is below"), (0.1, 0.06, "is not told apart from")],
)
def test_words_are_those_of_the_interval(value, stderr, said):
    assert figures.word({"value": value, "stderr": stderr}) == said
    layer = {"stderr": 0.06, "low": value - 0.12, "high": value + 0.12}
    by_layer = {"value": value, "stderr": stderr, "error_by": {"layer": layer}}
    assert figures.word(by_layer) == "is not told apart from"
    assert figures.word(None) == "is not compared with"


def test_a_title_counts_the_scores_of_every_column():
    above, level = ({"value": value, "stderr": 0.02} for value in (0.1, 0.01))
    said = "above in 2 of 3 scores, not told apart in 1 of 3 scores"
    assert figures.tally([above, level, None, above]) == said
    assert figures.tally([above | {"reason": ONE_SEED}] * 2) == "one seed, no verdict"
    assert figures.tally([None]) == "not compared"


def test_no_title_gives_a_verdict_from_one_seed(records):
    one = [r | {"seeds": [0], "reason": ONE_SEED} for r in records]
    made = {
        "hero": hero.hero(one),
        "features": figures.of_table(one, ("1",), COLUMNS, "nn-all"),
        "paired": figures.of_differences(one, ("1-paired",), COLUMNS),
        "6": similarity.figure_6(one),
        "5": figure_scaling(one, TARGET, COLUMNS[:1], 1),
    }
    for name, figure in made.items():
        assert "seed" in figure.get_suptitle(), (name, figure.get_suptitle())
    assert figures.word({"value": 0.1, "stderr": 0.02, "reason": ONE_SEED}) == (
        "is 10.0 points (one seed) above"
    )


def test_figure_8_has_a_bar_for_each_category_in_a_neutral_colour(drawn):
    [axes] = drawn["8"].axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([40, 10, 10, 40, 0, 20])
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert axes.get_title() == "40 cases; the paper’s: by people"
    assert "a rule puts 40%" in drawn["8"].get_suptitle()
    person = [r | {"metric": "share"} for r in blamed(25)]
    assert "a person puts 40%" in figures.figure_8([*blamed(40), *person]).get_suptitle()


def test_the_matrix_has_every_target_explained_by_every_model(drawn):
    first = drawn["matrix"].axes[0]
    assert [text.get_text() for text in first.texts] == ["40.0", "30.0", "30.0", "40.0"]
    assert drawn["matrix"].get_suptitle().startswith("Self is the best explainer in ")
    alone = [r for r in ablation_records() if r["explainer"] == "self"]
    other = [r | {"target": "qwen3-8b"} for r in alone]
    assert "in 0 of 0 pairs" in other_figures.figure_matrix([*alone, *other]).get_suptitle()


def test_rows_are_told_apart_without_colour(drawn):
    looks = [style.look(kind) for kind in style.KINDS]
    assert len({look["marker"] for look in looks}) == len(looks)


def deuteranopia(colour):
    """A colour as a person without M cones sees it (Viénot 1999), for differences alone."""
    lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    long, _, short = lms @ np.array(to_rgb(colour))
    return np.linalg.inv(lms) @ np.array([long, 0.494207 * long + 1.24827 * short, short])


def test_colours_that_stand_together_differ_to_every_eye():
    together = ("self", "rotated", "other", "nn-all", "selfie")
    colours = [style.KINDS[kind][0] for kind in together]
    for seen in (to_rgb, deuteranopia):
        for a, b in itertools.combinations(colours, 2):
            assert np.linalg.norm(np.subtract(seen(a), seen(b))) > 0.15, (a, b)


def test_a_row_has_one_look_everywhere():
    assert style.look("published self") == style.look("self") != style.look("published llama-3-8b")
    assert style.look("untrained qwen3-8b") == style.look("untrained")
    assert style.look("selfie-llama-3.1-8b-instruct") == style.look("selfie")
    rotated, control = style.look("rotated@0.5"), style.look("rotated", "zero-vector")
    assert control == rotated | {"mfc": "none"} != rotated == style.look("rotated")
    assert (
        style.look("self", "zero-vector") == style.look("self", "no-vector") != style.look("self")
    )


def test_files_are_the_same_bytes_each_time_and_svg_text_stays_text(records, tmp_path, monkeypatch):
    monkeypatch.setitem(style.SETTINGS, "savefig.dpi", 40)
    first, second = (
        style.save_figure(hero.hero(records), tmp_path / name, "hero") for name in "ab"
    )
    assert [path.suffix for path in first] == [".png", ".svg", ".pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert ">Nearest neighbour</text>" in first[1].read_text()


def test_before_an_explainer_is_done_there_is_no_hero(records):
    hints = [r for r in records if r["table"] == "3" and r["explainer"] in ("oracle", "majority")]
    assert hints and hero.hero(hints) is None
