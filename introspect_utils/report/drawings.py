"""Drawings of the method like the paper's Figures 1 to 4 (`drawings.yaml`), of real examples
(`drawn_examples`). Text is measured by its font, so that lines break whatever a model said."""

import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import yaml
from jinja2 import DictLoader, Environment
from markupsafe import Markup, escape
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import text_to_path

from introspect_utils.report import style
from introspect_utils.tasks.question import VECTOR

WIDTH, MARGIN, PAD, GAP = 486, 4, 6, 18  # points; the width is 6.75 inches
SIZE, LINE = 7, 10.5  # of the text and of a line
LONGEST = 22  # characters that are kept on a line
DRAWINGS = yaml.safe_load(Path(__file__).with_name("drawings.yaml").read_text("utf-8"))
EDGE = {"target": {"ec": "#444444", "fc": "#F5F5F5"}}
EDGE |= {"explainer": {"ec": style.BLUE, "fc": "#EAF3F9"}}
SHADES = LinearSegmentedColormap.from_list("active", ["#F5F5F5", style.ORANGE])
LOOKS = {"b": {"weight": "bold"}, "i": {"style": "italic"}, "s": {"color": "#666666"}}
LOOKS |= {"e": {"color": style.BLUE, "weight": "bold"}, "v": {"fill": style.ORANGE}}
LOOKS |= {"h": {"fill": to_hex(style.CHANGED(1.0))}}
LOOKS |= {f"a{tenth}": {"fill": to_hex(SHADES(tenth / 10))} for tenth in range(1, 11)}


def shaded(exemplars: list, longest: int = 46) -> Markup:
    """Exemplars as marked lines, shaded by how active v is, cut around the most active token."""
    lines = []
    for tokens in exemplars:
        peak = max(tokens, key=lambda token: token[1])
        while sum(len(text) for text, _ in tokens) > longest and len(tokens) > 1:
            in_second_half = 2 * tokens.index(peak) >= len(tokens) - 1
            tokens = tokens[1:] if in_second_half else tokens[:-1]
        marks = [(round(10 * share), escape(text.replace("\n", "↵"))) for text, share in tokens]
        lines.append("".join(f"<a{a}>{text}</a{a}>" if a else text for a, text in marks))
    return Markup("\n".join(f"… {line.strip()} …" for line in lines))


VECTOR_MARK = Markup("<v>\u00a0v\u00a0</v>")
TEMPLATES = Environment(autoescape=True, loader=DictLoader({"said": DRAWINGS["said"].strip()}))
TEMPLATES.filters |= {"shaded": shaded, "vector": lambda q: VECTOR_MARK.join(q.split(VECTOR))}


def filled(text: str, example: dict) -> str:
    """A template with an example in it; a short answer is kept on a line."""
    made = TEMPLATES.from_string(text).render(e=example)
    answer = r"&lt;&lt;&lt;.{1,14}?&gt;&gt;&gt;"
    return re.sub(answer, lambda found: found[0].replace(" ", "\u00a0"), made)


def words(line: str) -> list[tuple[str, dict]]:
    """A marked line as (text, look): pieces that are written without a break, spaces between."""
    found, open_marks = [], []
    for part in re.split(r"(</?\w+>)", line):
        if mark := re.fullmatch(r"<(/?)(\w+)>", part):
            open_marks = open_marks[:-1] if mark[1] else [*open_marks, mark[2]]
        else:
            look = {key: value for mark in open_marks for key, value in LOOKS[mark].items()}
            pieces = re.findall(rf" |[^ ]{{1,{LONGEST}}}", unescape(part))
            found += [(piece, {} if piece == " " else look) for piece in pieces]
    return found


def width(text: str, look: dict) -> float:
    """How wide a text is, in points."""
    font = {key: look[key] for key in ("weight", "style") if key in look}
    properties = FontProperties(family=style.SETTINGS["font.family"], size=SIZE, **font)
    return text_to_path.get_text_width_height_descent(text, properties, ismath=False)[0]


def write(axes, x: float, y: float, text: str, right: float) -> float:
    """Write marked lines from (x, y) downwards, breaking them before `right`; the y below them."""
    for line in text.split("\n"):
        at = x
        for piece, look in words(line):
            wide = width(piece, look)
            if at + wide > right and at > x:
                at, y = x, y - LINE
            if piece == " ":
                at += wide if at > x else 0
                continue
            if "fill" in look:
                spot = Rectangle((at - 0.5, y - 8), wide + 1, 9.5, fc=look["fill"], lw=0, zorder=2)
                axes.add_patch(spot)
            font = {key: value for key, value in look.items() if key != "fill"}
            axes.text(at, y - 6, piece, fontsize=SIZE, parse_math=False, zorder=3, **font)
            at += wide
        y -= LINE if line else LINE / 2
    return y


def _boxes(axes, y: float, boxes: list, example: dict) -> float:
    """Boxes side by side under their heads, arrows between them; the y of their lower edge."""
    wides = [share * (WIDTH - 2 * MARGIN + GAP) - GAP for _, _, share, _ in boxes]
    lefts = [MARGIN + sum(wides[:i]) + i * GAP for i in range(len(boxes))]
    places, top = list(zip(lefts, wides, boxes, strict=True)), y
    for x, wide, (head, *_) in places:
        top = min(top, write(axes, x, y, filled(head, example), x + wide) - 2)
    low = top
    for x, wide, (*_, text) in places:
        end = write(axes, x + PAD, top - PAD, filled(text, example), x + wide - PAD)
        low = min(low, end - PAD + 3)
    for x, wide, (_, whose, *_) in places:
        look = {"boxstyle": "round,pad=0,rounding_size=4", "lw": 0.8, **EDGE[whose]}
        axes.add_patch(FancyBboxPatch((x, low), wide, top - low, **look))
    for (x, wide, *_), (to, *_) in pairwise(places):
        ends = {"xy": (to - 2, (top + low) / 2), "xytext": (x + wide + 2, (top + low) / 2)}
        axes.annotate("", **ends, arrowprops={"arrowstyle": "-|>", "lw": 1})
    return low - 8


@style.STYLED
def drawing(name: str, examples: dict[str, dict]) -> Figure | None:
    """One of Figures 1 to 4, of the tasks that there is an example of."""
    if not examples.keys() & DRAWINGS[name].keys():
        return None
    figure = Figure(figsize=(WIDTH / 72, 1))
    axes, y = figure.add_axes((0, 0, 1, 1)), -MARGIN
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    for task, boxes in DRAWINGS[name].items():
        if example := examples.get(task.removesuffix("_2")):
            y = _boxes(axes, y, boxes, example)
    y = write(axes, MARGIN, y, DRAWINGS["notes"][name], WIDTH - MARGIN)
    figure.set_size_inches(WIDTH / 72, (MARGIN - y) / 72)
    axes.set_ylim(y - MARGIN, 0)
    return figure
