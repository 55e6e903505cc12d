"""Drawings of the method like the paper's Figures 1 to 4, each of real examples
(`drawn_examples`)."""

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from introspect_utils.report import style
from introspect_utils.report.page import (
    ACTIVE,
    EXPLAINER,
    LINE,
    MARGIN,
    SOFT,
    TARGET,
    WIDTH,
    WORD,
    Page,
    tokens,
    width,
    words,
)
from introspect_utils.tasks.question import VECTOR

GAP = 22  # points between boxes that an arrow leads from and to
CHANGED = style.CHANGED(1.0)
SHADES = LinearSegmentedColormap.from_list("active", ["#FFFFFF00", ACTIVE])


def draw(examples: dict[str, dict]) -> dict[str, Figure]:
    """{name of its files: drawing} of all there is an example of."""
    own = {
        "figure_2": ("features", figure_2),
        "figure_3": ("patching", figure_3),
        "figure_4": ("ablation", figure_4),
    }
    of_tasks = {
        name: figure(examples[task]) for name, (task, figure) in own.items() if task in examples
    }
    return {"figure_1": figure_1(examples), **of_tasks} if examples else {}


@matplotlib.rc_context(style.SETTINGS)
def figure_1(examples: dict[str, dict]) -> Figure:
    """Figure 1: the tasks' questions; what the procedure T finds in the target, and what the
    explainer says of it."""
    page, middle = Page(), 290
    page.write(MARGIN, -MARGIN, words("Target M, procedure T", weight="bold", color=TARGET))
    y = (
        page.write(
            middle,
            -MARGIN,
            words("The same model, trained to explain", weight="bold", color=EXPLAINER),
        )
        - 4
    )
    for letter, (task, example) in zip("ABC", examples.items(), strict=False):
        head, target_side = SHOWN[task]
        y = page.write(MARGIN, y, title(letter, head, f"({example['target']})")) - 2
        asked = labelled(
            "q",
            example["question"]
            if task != "ablation"
            else f"[question and hint, as on the left] {example['ask']}",
        )
        sides = (
            (MARGIN, middle - GAP, TARGET, target_side(example)),
            (middle, WIDTH - MARGIN, EXPLAINER, [asked, [], *said(example)]),
        )
        y = page.boxes(y, *sides) - 10
    return page.done(y + 10)


@matplotlib.rc_context(style.SETTINGS)
def figure_2(example: dict) -> Figure:
    """Figure 2: a feature's description is found by the simulator (eq. 2), and asked of the
    explainer (eq. 3)."""
    page, middle = Page(), 270
    left, right = (MARGIN, middle - GAP), (middle, WIDTH - MARGIN)
    page.write(MARGIN, -MARGIN, title("A", "Where v is active", example["target"]))
    y = page.write(middle, -MARGIN, title("B", "T chooses the description E (eq. 2)")) - 2
    active = [
        *exemplars(example),
        [],
        words(f"{VECTOR} is {example['feature']}, a direction of layer {example['layer']}"),
    ]
    chosen = labelled("E", example["description"], weight="bold") + words(
        f"r = {example['score']:.2f}, chosen", color=SOFT
    )
    others = [
        labelled("E", text) for text in example["candidates"] if text != example["description"]
    ]
    simulator = words(
        "From E and a text the simulator predicts how active v is at every token; r: correlation "
        "with A."
    )
    choice = [words("Candidates, from such texts:"), chosen, *others, [], simulator]
    low = page.boxes(y, (*left, TARGET, active), (*right, TARGET, choice))
    (x, top), y = page.vector, low - 10
    y = page.write(middle, y, title("C", "The explainer says what v means (eq. 3)")) - 2
    asked = [
        labelled("q", example["question"]),
        [],
        words("v takes the place of one token's embedding.", color=SOFT),
    ]
    trained = words(f"Trained on {example['n_train']:,} others and their E; of this one it")
    low = page.boxes(y, (*left, EXPLAINER, asked), (*right, EXPLAINER, [trained, *said(example)]))
    between, (x_q, y_q) = y + LINE / 2 + 4, page.vector
    page.arrow(ACTIVE, (x, top - 5), (x, between), (x_q, between), (x_q, y_q + 6))
    return page.done(low)


@matplotlib.rc_context(style.SETTINGS)
def figure_3(example: dict) -> Figure:
    """Figure 3: an activation of the run on x' is put into the run on x (eq. 4); the explainer says
    what comes of it (eq. 6)."""
    page = Page()
    y = page.write(MARGIN, -MARGIN, title("A", "M runs on x′ and on x", example["target"])) - 4
    parts = example["x_prime"], example["x"]
    runs = [
        [*before.split(), token.strip() or "␣", *behind.split()] for before, token, behind in parts
    ]
    runs = [
        [""] * (max(map(len, runs)) - len(texts)) + texts for texts in runs
    ]  # aligned at their ends
    wide = [max(width(text, {}) for text in (*column, "n")) for column in zip(*runs, strict=True)]
    y, (x, top), beside = stream(page, y, "x′", runs[0], wide, example, example["answer_prime"])
    y, (_, bottom), _ = stream(page, y - 10, "x", runs[1], wide, example, example["before"])
    page.arrow(ACTIVE, (x + 4, top), (beside, top), (beside, bottom), (x + 4, bottom))
    y = page.write(MARGIN, y - 8, title("B", "v of x′ in its place in x (eq. 4, 5)"), WIDTH) - 2
    y = page.boxes(y, (MARGIN, WIDTH - MARGIN, TARGET, patched(example)[2:])) - 10
    y = (
        page.write(MARGIN, y, title("C", "The explainer is given v and asked what it does (eq. 6)"))
        - 2
    )
    return page.done(
        page.boxes(
            y,
            (
                MARGIN,
                WIDTH - MARGIN,
                EXPLAINER,
                [labelled("q", example["question"]), [], *said(example)],
            ),
        )
    )


@matplotlib.rc_context(style.SETTINGS)
def figure_4(example: dict) -> Figure:
    """Figure 4: a question with its hint and without (eq. 7), and the explainer asked what the hint
    does (eq. 8)."""
    page, wide = Page(), (WIDTH - 2 * MARGIN - 2 * GAP) / 3
    lefts = [MARGIN + i * (wide + GAP) for i in range(3)]
    question, hint = question_and_hint(example)
    explained = labelled("E", example["explanation"], weight="bold")
    lines = (
        [*question, hint, [], answer(example["hinted"])],
        [*question, words("(no hint)", color=SOFT), [], answer(example["unhinted"]), [], explained],
        [*question, hint, words(example["ask"]), [], *said(example)],
    )
    titles = (
        title("A", "M with the hint"),
        title("B", "M without it (eq. 7)"),
        title("C", "The explainer (eq. 8)"),
    )
    y = min(page.write(x, -MARGIN, head) for x, head in zip(lefts, titles, strict=True)) - 2
    colours = TARGET, TARGET, EXPLAINER
    return page.done(
        page.boxes(
            y, *((x, x + wide, *rest) for x, *rest in zip(lefts, colours, lines, strict=True))
        )
    )


def title(letter: str, text: str, rest: str = "") -> list[WORD]:
    """The head of a part of a drawing."""
    return [
        (f"{letter}  ", {"weight": "bold", "glued": True}),
        *words(text, weight="bold"),
        *words(rest, color=SOFT),
    ]


def labelled(label: str, text: str, **look) -> list[WORD]:
    """A text after its name: q, E, says."""
    return words(f"{label}:", style="italic") + words(text, **look)


def said(example: dict) -> list[list[WORD]]:
    """What the explainer says, and how right it is."""
    line = labelled("says", example["generation"], weight="bold", color=EXPLAINER)
    if "judge" in example:
        return [
            line,
            words(
                f"judge {example['judge']:.2f}, simulator {example['simulator']:.2f}", color=SOFT
            ),
        ]
    return [
        line,
        words(
            "the same as E"
            if example["generation"] == example["explanation"]
            else "not what E says",
            color=SOFT,
        ),
    ]


def answer(text: str) -> list[WORD]:
    return words("M answers") + words(text.strip(), weight="bold")


def gives(text: str | None) -> list[WORD]:
    """An arrow to what M answers, where it was recorded."""
    return words("→") + answer(text) if text else []


def exemplars(example: dict, n: int | None = None, longest: int = 50) -> list[list[WORD]]:
    """The first texts coloured by how active v is at each token, cut to a line around the most
    active one."""
    lines = []
    for exemplar in example["exemplars"][:n]:
        peak = max(range(len(exemplar)), key=lambda i: exemplar[i][1])
        first, last = 0, len(exemplar)
        while sum(len(text) for text, _ in exemplar[first:last]) > longest and last - first > 1:
            first, last = (
                (first + 1, last) if peak - first >= last - 1 - peak else (first, last - 1)
            )
        shown = [
            (text, {"fill": SHADES(share)} if share else {}) for text, share in exemplar[first:last]
        ]
        lines.append(words("…") + tokens(shown) + words("…"))
    return lines


def described(example: dict) -> list[list[WORD]]:
    head = words(f"{VECTOR} of layer {example['layer']} is most active in")
    return [head, *exemplars(example, 2), [], labelled("E", example["description"], weight="bold")]


def patched(example: dict) -> list[list[WORD]]:
    lines, looks = [], ({}, {"fill": ACTIVE}, {})
    for name, of, output in (("x′:", "x_prime", "answer_prime"), ("x:", "x", "before")):
        sentence = tokens(list(zip(example[of], looks, strict=True)))
        lines.append(words(name, style="italic") + sentence + gives(example[output]))
    layers = f"layers {example['layers'][0]}–{example['layers'][-1]}"
    put = words(f"{VECTOR} of x′, {layers}, put into x:") + answer(example["after"])
    return [*lines, put, [], labelled("E", example["explanation"], weight="bold")]


def question_and_hint(example: dict) -> tuple[list[list[WORD]], list[WORD]]:
    return [words(line) for line in example["question"].split("\n")], tokens(
        [(example["hint"], {"fill": CHANGED})]
    )


def hinted(example: dict) -> list[list[WORD]]:
    question, hint = question_and_hint(example)
    answers = (
        words("With it")
        + answer(example["hinted"] + ",")
        + words("without it")
        + words(example["unhinted"], weight="bold")
    )
    return [*question, hint, [], answers, labelled("E", example["explanation"], weight="bold")]


def stream(
    page: Page,
    y: float,
    name: str,
    texts: list[str],
    wide: list[float],
    example: dict,
    output: str | None,
) -> tuple[float, tuple[float, float], float]:
    """A run of M as a grid, tokens by blocks of layers, above its text: (the y below it, the place
    of the activation that is patched, an x beside it where there are no dots and no words)."""
    blocks, patched_block = example["blocks"][::-1], [example["layers"][0], example["layers"][-1]]
    token, end, x, place = (
        len(texts) - 1 - len(example["x"][2].split()),
        gives(output),
        74.0,
        (0.0, 0.0),
    )
    room = WIDTH - MARGIN - x - sum(wide) - sum(width(f"{text} ", look) for text, look in end)
    gap, below = max(4, min(26, room / len(texts))), y - 11 * len(blocks) - 2
    for row, (first, last) in enumerate(blocks):
        page.write(MARGIN, y - 11 * row, words(f"layers {first}–{last}", color=SOFT))
    for column, text in enumerate(texts):
        centre = x + wide[column] / 2
        for row, block in enumerate(blocks if text else []):
            own = column == token and block == patched_block
            page.axes.plot(
                centre,
                y - 11 * row - 4,
                "o",
                ms=5.5,
                color=ACTIVE if own else style.FAINT,
                mec=SOFT,
                mew=0.5,
            )
            place = (centre, y - 11 * row - 4) if own else place
        page.write(
            centre - width(text, {}) / 2,
            below,
            [(text, {"fill": ACTIVE} if column == token else {})],
        )
        x += wide[column] + gap
    page.write(x, below, end)
    return (
        page.write(MARGIN, below, words(f"{name}:", style="italic")),
        place,
        place[0] + (wide[token] + gap) / 2,
    )


SHOWN = {  # task: (its question, what stands on the target's side)
    "features": ("Feature descriptions: what activates a direction v?", described),
    "patching": ("Activation patching: what does an activation do to the output?", patched),
    "ablation": ("Input ablation: does a part of the input matter?", hinted),
}
