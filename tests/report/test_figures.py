import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from introspect_utils.report import figures, style
from introspect_utils.scores.metrics import wilson


def test_scores_by_layer():
    scores, layers = [0.1, 0.3, 0.5, -0.2], [9, 9, 9, 3]
    figure = figures.score_distribution(scores, layers)
    assert [ax.get_title() for ax in figure.axes] == [
        "layer 3 (median -0.20)",
        "layer 9 (median 0.30)",
    ]
    assert [sum(bar.get_height() for bar in ax.patches) for ax in figure.axes] == [1, 3]
    assert len(figures.score_distribution([0.5] * 7, range(7)).axes) == 7


def test_hints_by_area_have_wilsons_intervals():
    cells = [
        {"subject": "virology", "right": True, "n": 20, "followed": 5},
        {"subject": "astronomy", "right": True, "n": 10, "followed": 10},
        {"subject": "astronomy", "right": False, "n": 4, "followed": 1},
    ]
    figure = figures.hints_followed({"one": cells, "two": cells})
    panel, other = figure.axes
    areas = [label.get_text() for label in panel.get_yticklabels()]
    assert areas == ["all", "STEM", "humanities", "social sciences", "other"]
    assert [ax.get_title() for ax in (panel, other)] == ["one", "two"]
    dots = sorted(x for line in panel.lines for x in np.atleast_1d(line.get_xdata()) if x == x)
    for share in (50, 100, 25):  # all right, STEM right, STEM wrong
        assert any(abs(x - share) < 1e-6 for x in dots)
    low = 100 * wilson(15, 30)[1]
    assert any(abs(x - low) < 1e-6 for x in dots)
    assert "one 47%" in figure.get_suptitle()


def test_dictionaries_by_layer():
    reports = {
        layer: {"explained_variance": layer / 100, "l0": 16.0, "dead": 0.1} for layer in (21, 3)
    }
    panels = figures.dictionary_quality(reports).axes
    assert panels[0].lines[0].get_xdata().tolist() == [3, 21] and panels[0].lines[
        0
    ].get_ydata().tolist() == [0.03, 0.21]
    assert [ax.get_title() for ax in panels] == [
        "explained variance",
        "latents active at once",
        "share of dead latents",
    ]


def test_bars_are_means_with_95_percent_intervals():
    scores = np.array([0.2, 0.4, 0.6, 0.1])
    (ax,) = figures.score_bars(
        {"description": scores, "shuffled description": -scores, "constant": np.zeros(4)}
    ).axes
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(
        [scores.mean(), -scores.mean(), 0]
    )
    low, high = ax.collections[0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 3.1824 * scores.std(ddof=1) / 2, rel=1e-4)
    assert (
        ax.patches[0].get_facecolor()
        != ax.patches[1].get_facecolor()
        == ax.patches[2].get_facecolor()
    )


def test_calibration_is_the_mean_of_each_step():
    predicted = np.array([[[0.2, 0.3, 9.6]], [[0.1, 4.0, 10.0]]])
    true = np.array([[[0, 2, 8]], [[4, 5, 10]]])
    zero, four, ten = figures.calibration(predicted, true).to_dict("records")
    assert (zero["value"], zero["n"], zero["true"], zero["predicted"]) == (
        0,
        3,
        2.0,
        pytest.approx(0.2),
    )
    assert (four["n"], four["true"], four["stderr"]) == (
        1,
        5.0,
        0.0,
    )  # one direction: its error is unknown
    # two clusters with sums of residuals -2 and +2 around 2
    assert zero["stderr"] == pytest.approx(np.sqrt(2 * (4 + 4)) / 3) and (
        ten["true"],
        ten["n"],
    ) == (9.0, 2)


def test_the_error_of_calibration_is_that_over_directions():
    """Directions differ, tokens of one hardly do: many tokens do not make the error small."""
    generator = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(150):
        true = generator.normal(5, 1, (30, 1, 1)) + generator.normal(0, 0.1, (30, 4, 8))
        (step,) = figures.calibration(np.full(true.shape, 5.0), true).to_dict("records")
        means.append(step["true"])
        errors.append(step["stderr"])
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_calibration_plot_shows_every_step_and_where_the_tokens_are():
    generator = np.random.default_rng(0)
    true = generator.integers(0, 11, (20, 2, 9))
    ax, behind = figures.calibration_plot(true, true).axes
    assert ax.containers[0][0].get_xdata() == pytest.approx(range(11))
    assert ax.containers[0][0].get_ydata() == pytest.approx(range(11))
    assert sum(bar.get_height() for bar in behind.patches) == pytest.approx(100)


class Tokens(HTMLParser):
    """The texts with a tooltip, their backgrounds, and all tags."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.shown, self._inside = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = "title" in dict(attrs)
        if self._inside:
            self.shown.append(
                [re.search("#[0-9a-f]{6}", dict(attrs)["style"])[0], dict(attrs)["title"], ""]
            )

    def handle_data(self, data):
        if self._inside:
            self.shown[-1][2] += data

    def handle_endtag(self, tag):
        self._inside = False


def test_tokens_are_shaded_by_activation_true_above_simulated():
    tokens = [[" the", " cat", "\n"], ["a", "b", "c"]]
    true, simulated = np.array([[0, 10, 5], [0, 0, 0]]), np.array([[12.0, 0.0, -1.0], [1, 2, 3]])
    shown = Tokens(figures.token_html("words for animals", tokens, true, simulated, 0.5).data).shown
    assert [text for *_, text in shown] == [" the", " cat", "⏎"] * 2 + ["a", "b", "c"] * 2
    colours = [colour for colour, *_ in shown]
    assert colours[:6] == [
        "#ffffff",
        style.SKY.lower(),
        "#aad9f4",
        style.SKY.lower(),
        "#ffffff",
        "#ffffff",
    ]
    assert [title for _, title, _ in shown[:3]] == ["0.0", "10.0", "5.0"]
    greens = [int(colour[3:5], 16) for colour in colours[9:]]
    assert (
        greens == sorted(greens, reverse=True) and len(set(greens)) == 3
    )  # darker as the activation rises


@settings(max_examples=25)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=5), st.text(max_size=12))
def test_no_text_becomes_markup(tokens, description):
    values = np.zeros((1, len(tokens)))
    html = figures.token_html(description, [tokens], values, values).data
    found = Tokens(html)
    assert set(found.tags) <= {"div", "b", "span"} and len(found.shown) == 2 * len(tokens)
    assert found.tags.count("b") == 1 and found.tags.count("div") == 3


def test_markup_in_descriptions_and_tokens_is_escaped():
    html = figures.token_html(
        "<script>x</script>", [['<img src="x">', "&amp;"]], np.zeros((1, 2)), np.zeros((1, 2))
    ).data
    assert "<script>" not in html and "<img" not in html
    assert [text for *_, text in Tokens(html).shown[:2]] == ['<img src="x">', "&amp;"]
