"""The look of every figure and the names of rows (`words.yaml`), one colour and one marker for each
kind of row; and files that are the same bytes each time."""

from pathlib import Path

import matplotlib
import yaml
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from introspect_utils.report.paper import AS_PUBLISHED, model_name

WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text("utf-8"))
KINDS, LABELS, BASELINES = WORDS["kinds"], WORDS["labels"], WORDS["baselines"]
BLACK, GREY, ORANGE, FAINT = "#000000", "#999999", "#E69F00", "#DDDDDD"
BLUE, SKY, SELFIE = "#0072B2", "#56B4E9", KINDS["selfie"][0]
CHANGED = ListedColormap(["#FFFFFF", "#F3D9A0"])  # unchanged, changed
COLUMN, PAGE = 3.3, 6.75  # inches: figures are drawn at the size they are printed at
PAPER = {"marker": "D", "mfc": "none", "color": "#666666", "ms": 4, "mew": 0.7, "ls": "", "lw": 0.7}
SETTINGS = WORDS["look"]
STYLED = matplotlib.rc_context(SETTINGS)  # a decorator


def kind(explainer: str, condition: str = "full") -> str:
    """What kind of row it is, one of KINDS: "untrained qwen3-8b" is "untrained", another model
    "other"; self without its vector, and self not told the layer, are kinds of their own."""
    name = explainer.removeprefix(AS_PUBLISHED)
    if name in BASELINES:
        return "baseline"
    families = ("untrained", "selfie", "sibling", "rotated")
    of_family = (family for family in families if name.startswith(family))
    found = next(of_family, name if name in KINDS else "other")
    if found == "self" and condition.endswith("-vector"):
        return "without-vector"
    return "not-told" if found == "self" and condition in ("no-layer", "no-token") else found


def look(explainer: str, condition: str = "full") -> dict:
    """Colour and marker of a row, the same in every figure; hollow if its vector is a wrong one or
    its projection starts at random."""
    colour, marker, _ = KINDS[kind(explainer, condition)]
    hollow = condition.endswith("-vector") or condition == "random-projection"
    return {"color": colour, "marker": marker, "mfc": "none" if hollow else colour}


def label(explainer: str, condition: str = "full") -> str:
    """A row's name for people, e.g. `Self`, `Self, layer not told`, `qwen3-8b`, `Self, as
    published`."""
    model, at, share = explainer.partition("@")
    if explainer.startswith(AS_PUBLISHED):
        name = f"{label(model_name(explainer))}, as published"
    else:
        name = LABELS.get(model, model) + (f" {float(share):.0%}" if at else "")
    told = (LABELS.get(part, part) for part in condition.split(", "))
    name = name.replace("untrained ", "Untrained ", 1)
    return ", ".join(filter(None, (name, *told)))


def order(explainer: str, condition: str = "full") -> tuple:
    """Sort key of a row: the self-explainer and its conditions, other models, the baselines."""
    conditions, of_kind = WORDS["conditions"], kind(explainer)
    place = conditions.index(condition) if condition in conditions else len(conditions)
    baseline = BASELINES.index(explainer) if of_kind == "baseline" else 0
    return list(KINDS).index(of_kind), baseline, explainer, place, condition


@STYLED
def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png, .svg and .pdf without dates, so that the same records give the same
    bytes."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    folder.mkdir(parents=True, exist_ok=True)
    for form, keys in metadata.items():
        figure.savefig(folder / f"{name}.{form}", metadata=keys)
    return [folder / f"{name}.{form}" for form in metadata]
