"""The look of every figure: one colour for each kind of explainer, fonts, sizes; and files that are
the same bytes each time."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from introspect_utils.report.paper import AS_PUBLISHED, model_name

# Okabe and Ito's colours, told apart with any kind of colour vision.
BLACK, GREY, ORANGE, VERMILLION = "#000000", "#999999", "#E69F00", "#D55E00"
BLUE, SKY, GREEN, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#CC79A7"
WINE, INDIGO, OLIVE = (
    "#882255",
    "#332288",
    "#999933",
)  # three of Paul Tol's muted ones, made for the same
FAINT = "#DDDDDD"
CHANGED = ListedColormap(["#FFFFFF", "#F3D9A0"])  # unchanged, changed
# Colour says what kind of row it is; which row, the label at the axis says. Any other explainer is
# another model: VERMILLION.
EXPLAINER = {
    "self": BLUE,
    "sibling": GREEN,
    "rotated": PURPLE,
    "untrained": GREY,
    "lookup": BLACK,
    "majority": BLACK,
}
EXPLAINER |= {
    "nn-all": WINE,
    "nn-layer": WINE,
    "selfie": INDIGO,
    "most-frequent": BLACK,
    "gold": OLIVE,
}
CONDITION = {
    "no-layer": SKY,
    "no-token": SKY,
    "no-vector": ORANGE,
    "zero-vector": ORANGE,
    "shuffled-vector": ORANGE,
}
LEGEND = {
    BLUE: "self-explainer",
    SKY: "self, layer or token not told",
    ORANGE: "self, without its vector",
    VERMILLION: "another model",
    GREEN: "sibling",
    PURPLE: "rotated",
    GREY: "untrained",
    BLACK: "surface baseline",
    WINE: "nearest neighbour",
    INDIGO: "SelfIE, best of five",
    OLIVE: "gold labels",
}
REFERENCE = {
    "marker": "D",
    "mfc": "none",
    "mec": "#666666",
    "ms": 5.5,
    "mew": 0.7,
    "ls": "",
    "zorder": 3,
}  # the paper's numbers
LABELS = {
    "full": "",
    "no-vector": "– activation",
    "no-layer": "– layer",
    "no-token": "– token",
    "wrong-layer": "another layer told",
    "zero-vector": "zero vector at test",
    "shuffled-vector": "shuffled vector at test",
    "joint": "all tasks at once",
    "lora": "LoRA",
    "random-projection": "random projection",
    "pretrained-projection": "pre-trained projection",
    "capped-projection": "rank-capped projection",
    "sibling": "Sibling",
    "rotated": "Rotated",
    "dot-product": "dot product",
    "self": "Self",
    "untrained": "Untrained",
    "lookup": "Lookup (token type × layers)",
    "majority": "Majority",
    "unchanged": "Always unchanged",
    "hint-letter": "The hint’s letter",
    "majority-letter": "Majority letter",
    "logistic": "Logistic regression (hint, subject, length)",
    "oracle": "Oracle: the target’s own answer",
    "nn-all": "Nearest neighbour, all layers",
    "nn-layer": "Nearest neighbour, same layer",
    "selfie": "SelfIE",
    "selfie-llama-3.1-8b-instruct": "SelfIE (llama-3.1-8b-instruct)",
    "most-frequent": "Most frequent description",
    "gold": "Gold labels",
    "exact_match": "Exact match",
    "has_changed_f1": "Has-changed F1",
    "content_match": "Content match",
    "unparseable": "Unparseable",
    "sae judge": "SAE judge",
    "sae simulator": "SAE simulator",
    "act simulator": "ACT simulator",
    "dact simulator": "dACT simulator",
    "sae simulator_abs": "SAE absolute r",
    "act simulator_abs": "ACT absolute r",
    "dact simulator_abs": "dACT absolute r",
    "sae constant": "SAE constant",
    "act constant": "ACT constant",
    "dact constant": "dACT constant",
    "sae token_match": "Token match",
    "activation_pattern": "SAE activation pattern",
    "dot_product": "Dot product",
    "cka": "CKA",
}
SURFACE_ORDER = (
    "lookup",
    "majority",
    "unchanged",
    "hint-letter",
    "majority-letter",
    "logistic",
    "oracle",
)
EXPLAINER_ORDER = (
    "self",
    "sibling",
    "rotated",
    "other",
    "nn-all",
    "nn-layer",
    "selfie",
    "untrained",
    *SURFACE_ORDER,
)
EXPLAINER_ORDER += ("most-frequent", "gold")
CONDITION_ORDER = (
    "full",
    "no-vector",
    "zero-vector",
    "shuffled-vector",
    "no-layer",
    "no-token",
    "wrong-layer",
    "dot-product",
)
SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "text.hinting": "no_hinting",  # so that text is as wide in a PNG as it is in a PDF
    "svg.hashsalt": "introspect_utils",
    "pdf.fonttype": 42,
}


def kind(explainer: str) -> str:
    """What kind of row an explainer is, one of EXPLAINER_ORDER: "untrained qwen3-8b" is
    "untrained", another model "other"."""
    explainer = explainer.removeprefix(AS_PUBLISHED)
    longer = next(
        (
            name
            for name in ("untrained", "selfie", "sibling", "rotated")
            if explainer.startswith(name)
        ),
        explainer,
    )
    return longer if longer in EXPLAINER_ORDER else "other"


def colour(explainer: str, condition: str = "full") -> str:
    """The colour of a row: of its condition where the self-explainer has one, else of its
    explainer."""
    return (
        CONDITION.get(condition, BLUE)
        if kind(explainer) == "self"
        else EXPLAINER.get(kind(explainer), VERMILLION)
    )


def label(explainer: str, condition: str = "full") -> str:
    """A row's name for people, e.g. `Self`, `Self, – activation`, `qwen3-8b`, `Self, as
    published`."""
    if explainer.startswith(AS_PUBLISHED):
        return ", ".join(
            filter(
                None,
                (label(model_name(explainer)), "as published", LABELS.get(condition, condition)),
            )
        )
    model, at, share = explainer.partition("@")
    named = (
        f"{LABELS.get(model, model)}, {float(share):.0%} of the way"
        if at
        else LABELS.get(explainer, explainer)
    )
    return ", ".join(part for part in (named, LABELS.get(condition, condition)) if part)


def title(column: str, records: Iterable[dict]) -> str:
    """A panel's title: what is scored, and on how many rows."""
    n = sorted({r["n"] for r in records})
    return LABELS[column] + (
        f"\nn = {n[0]}" if len(n) == 1 else f"\nn = {n[0]} to {n[-1]}" if n else ""
    )


def order(explainer: str, condition: str = "full") -> tuple:
    """Sort key of a row: the self-explainer and its conditions, other models, then the
    baselines."""
    place = (
        CONDITION_ORDER.index(condition) if condition in CONDITION_ORDER else len(CONDITION_ORDER)
    )
    return EXPLAINER_ORDER.index(kind(explainer)), explainer, place, condition


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png, .svg and .pdf without dates, so that the same records give the same
    bytes."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in metadata]
    with matplotlib.rc_context(SETTINGS):
        for path, keys in zip(paths, metadata.values(), strict=True):
            figure.savefig(path, metadata=keys)
    return paths
