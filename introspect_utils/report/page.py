"""A page that a drawing is written on, in points (1/72 inch), from the top down: its height is what
was written.

Text is measured by its font, so that lines break and boxes close around what is in them, whatever
the models said.
"""

import re
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

from introspect_utils.report import style
from introspect_utils.tasks.question import VECTOR

WIDTH, MARGIN, PAD = 504, 6, 7  # points
SIZE, LINE = 7.5, 11.5  # of text, and from line to line
LONGEST = 22  # characters that are kept on a line
TARGET, INK, SOFT = "#444444", "#1c1c1c", "#666666"
EXPLAINER, ACTIVE = style.BLUE, style.ORANGE
FILL = {TARGET: "#F5F5F5", EXPLAINER: "#EAF3F9"}
WORD = tuple[
    str, dict
]  # a text in one piece, and how it looks: color, weight, style, the `fill` behind it; `glued` to the next


def words(text: str, **look) -> list[WORD]:
    """A text as words that lines break between; the continuous token is drawn as v, answers in
    <<<>>> keep together."""
    kept = re.sub(
        r"<<<.{1,14}?>>>",
        lambda answer: answer[0].replace(" ", "\u00a0"),
        text.replace(VECTOR, "\0"),
    )
    found = []
    for word in kept.replace("\n", "↵ ").split(" "):
        parts = [
            (part, look) if part != "\0" else (" v ", {"fill": ACTIVE, "weight": "bold"})
            for part in re.split("(\0)", word)
        ]
        found += [
            (piece, {**how, "glued": True})
            for part, how in parts
            for piece in re.findall(f".{{1,{LONGEST}}}", part)
        ]
        if found:
            found[-1] = (found[-1][0], {**found[-1][1], "glued": False})
    return found


def tokens(texts: list[WORD]) -> list[WORD]:
    """The tokens of a sentence, with the space that one begins with outside of its fill."""
    found = []
    for text, look in texts:
        inner = text.replace("\n", "↵ ").lstrip(" ")
        found += [(" ", {"glued": True})] * (found != [] and inner != text) + [
            (inner, {**look, "glued": True})
        ] * bool(inner)
    return [*found[:-1], (found[-1][0], {**found[-1][1], "glued": False})] if found else []


class Page:
    """A page of `WIDTH` points; y counts downwards from 0 to negative numbers. `vector`: where v
    was written last."""

    def __init__(self):
        self.figure = Figure(figsize=(WIDTH / 72, 1))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_xlim(0, WIDTH)
        self.vector = (0.0, 0.0)

    def write(self, x: float, y: float, line: list[WORD], right: float = WIDTH) -> float:
        """Write words from (x, y) on, breaking lines before `right`; the y below them."""
        left, start = x, True
        for text, look in line:
            wide = width(text, look)
            if x + wide > right and not start:
                x, y = left, y - LINE
            if text != " " or x > left:
                self._word(x, y, text, wide, look)
                x, start = x + wide + (0 if look.get("glued") else width(" ", {})), False
        return y - LINE

    def _word(self, x: float, y: float, text: str, wide: float, look: dict) -> None:
        if text == " v ":
            self.vector = (x + wide / 2, y - 4)
        if "fill" in look:
            self.axes.add_patch(
                Rectangle((x - 0.6, y - 8.8), wide + 1.2, 10.4, fc=look["fill"], lw=0, zorder=1.5)
            )
        font = {key: value for key, value in look.items() if key in ("color", "weight", "style")}
        self.axes.text(
            x, y - 6.5, text, **{"color": INK, **font}, fontsize=SIZE, parse_math=False, zorder=2
        )

    def boxes(self, top: float, *contents: tuple[float, float, str, list[list[WORD]]]) -> float:
        """Boxes side by side, (left, right, the colour whose it is, lines) each; the y of their
        lower edge. An empty line is half as high."""
        low = top
        for left, right, _, lines in contents:
            y = top - PAD + 1
            for line in lines:
                y = self.write(left + PAD, y, line, right - PAD) if line else y - LINE / 2
            low = min(low, y - PAD + 4)
        for left, right, colour, _ in contents:
            shape = FancyBboxPatch(
                (left, low),
                right - left,
                top - low,
                boxstyle="round,pad=0,rounding_size=4",
                lw=0.9,
                zorder=1,
            )
            shape.set(edgecolor=colour, facecolor=FILL[colour])
            self.axes.add_patch(shape)
        for (_, end, *_), (start, *_) in pairwise(contents):
            self.arrow(INK, (end + 2, (top + low) / 2), (start - 2, (top + low) / 2))
        return low

    def arrow(self, colour: str, *corners: tuple[float, float]) -> None:
        look = {
            "arrowstyle": "-|>",
            "mutation_scale": 8,
            "lw": 1.2,
            "joinstyle": "miter",
            "capstyle": "butt",
            "zorder": 3,
        }
        self.axes.add_patch(FancyArrowPatch(path=Path(corners), color=colour, **look))

    def done(self, y: float) -> Figure:
        """The figure, cut below y."""
        height = MARGIN - y
        self.figure.set_size_inches(WIDTH / 72, height / 72)
        self.axes.set_ylim(-height, 0)
        return self.figure


def width(text: str, look: dict) -> float:
    """How wide a text is, in points."""
    font = FontProperties(
        family="DejaVu Sans",
        size=SIZE,
        **{key: look[key] for key in ("weight", "style") if key in look},
    )
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
