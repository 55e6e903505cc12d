"""Feature descriptions (sections 2.2 and 3) as a task: the prompts of appendix D, T_feat (eq. 2),
and the check of the layer in the prompt (B.4)."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import isnan
from typing import TYPE_CHECKING

from introspect_utils.data.splits import check_disjoint
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import run_dir
from introspect_utils.tasks.conditions import CONTROLS, controlled
from introspect_utils.tasks.question import FORMS, PROMPTS, Example, Question, in_form
from introspect_utils.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

    from introspect_utils.features.directions import Directions
    from introspect_utils.features.exemplars import Exemplars
    from introspect_utils.settings.profile import Profile

# B.4: asked in the paper's one prompt; the last two are the chance level
SAME = 0.9999  # cosine of directions from which on they are one and the same
LAYER_ARMS = ("full", "no-layer", "wrong-layer", "shuffled-vector", "zero-vector")


@dataclass(frozen=True)
class Described:
    """Directions of one split with their gold descriptions ("" for none); exemplars of test rows
    only, since published training directions have none."""

    directions: Directions
    gold: list[str]
    exemplars: Exemplars | None


def templates(form: str = "") -> list[str]:
    """The templates of a form, those of appendix D for ""."""
    return PROMPTS["features"][FORMS[form or "chat"]["features"]]


def prompt(template: str, layer: int | None, form: str = "") -> str:
    """A template filled with the number of a layer, or with the layer left out."""
    texts = {"opening": f"At layer {layer}, ", "at_layer": f" at layer {layer}"}
    texts |= {"Layer": f"Layer {layer}, "}
    texts = texts if layer is not None else dict.fromkeys(texts, "")
    return in_form(form, "features", template.format(**texts))


def examples(
    directions: Directions,
    descriptions: Sequence[str],
    condition: str,
    seed: int,
    form: str = "",
    layers: Sequence[int] = (),
    template: str = "",
) -> list[Example]:
    """Directions with their descriptions ("" for none) as training or test examples (eq. 3).

    Row i has the same template, drawn at random if none is given, under every condition: `full`;
    those of `conditions.controlled`; `no-layer` in the text; `wrong-layer`, one of `layers` or of
    those that occur (B.4). The layers that choose the projection are always the true ones.
    Raises `UserError` where there is no other row, or no other layer.
    """
    rng, numbers = random.Random(seed), list(directions.layers)
    chosen = rng.choices([template] if template else templates(form), k=len(directions))
    if condition == "no-layer":
        numbers = [None] * len(numbers)
    elif condition == "wrong-layer":
        numbers = other_layers(numbers, seed, layers)
    rows = zip(chosen, numbers, directions.vectors, directions.layers, descriptions, strict=True)
    worded = [
        Example(Question(prompt(text, number, form), v, (layer,), prompt=form), description)
        for text, number, v, layer, description in rows
    ]
    kinds = list(zip(directions.data, directions.layers, strict=True))
    return controlled(worded, condition, seed, kinds)


def other_layers(layers: Sequence[int], seed: int, among: Sequence[int] = ()) -> list[int]:
    """For each row another layer than its own, drawn from `among`, or from those that occur."""
    among, rng = sorted(set(among or layers)), random.Random(seed)
    if not set(among) - {layers[0]}:
        raise UserError(f"wrong-layer: there is no other layer than {among[0]} to name")
    return [rng.choice([other for other in among if other != layer]) for layer in layers]


def layer_check(
    directions: Directions, layers: Sequence[int], seed: int, form: str = "", n: int = 100
) -> dict[str, list[Question]]:
    """B.4: {arm of `LAYER_ARMS`: questions} about `n` SAE features spread over all layers, all in
    the paper's one prompt; the wrong layer is one of `layers`."""
    of_layers: dict[int, list[int]] = {}
    for row in directions.where(data="sae"):
        of_layers.setdefault(directions.layers[row], []).append(row)
    draw = random.Random(seed)
    shuffled = [draw.sample(rows, len(rows)) for rows in of_layers.values()]
    in_turn = [row for turn in zip_longest(*shuffled) for row in turn if row is not None]
    asked = directions.take(sorted(in_turn[:n]))
    words = next(text for text in reversed(templates(form)) if text.startswith("What does"))
    nothing = [""] * len(asked)
    arms = [arm for arm in LAYER_ARMS if arm != "wrong-layer" or len(set(layers)) > 1]
    return {
        arm: [e.question for e in examples(asked, nothing, arm, seed, form, layers, words)]
        for arm in arms
    }


def token_match(first: Sequence[int], second: Sequence[int]) -> float:
    """B.4: the share of positions at which two rollouts of the same length have the same token."""
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def split(
    directions: Directions, gold: Mapping[str, str], n_train: int, seed: int
) -> dict[str, list[int]]:
    """Numbers of the directions to train on, `n_train` at random of those with a description, some
    of every layer where so many suffice, and to test on: all but SAE features without one.

    Raises `UserError` where too few have one, there is nothing to test on, or a direction is in
    both parts.
    """
    described = [i for i in directions.where(split="train") if directions.names[i] in gold]
    if len(described) < n_train:
        raise UserError(
            f"{n_train} training directions are asked for and {len(described)} are described: "
            "lower features.sizes"
        )
    held_out = directions.where(split="test")
    test = [i for i in held_out if directions.data[i] != "sae" or directions.names[i] in gold]
    if not test:
        raise UserError("there are no test directions: raise features.n_test or n_act")
    rows = {"train": sample(described, directions.layers, n_train, seed), "test": test}
    twin = _twins(directions, rows["test"], rows["train"])
    tested = (twin.get(i, i) for i in rows["test"])
    check_disjoint(rows["train"], tested, "direction", "directions.safetensors")
    return rows


def sample(numbers: Sequence[int], layers: Sequence[int], n: int, seed: int) -> list[int]:
    """`n` of the `numbers` at random. If no direction of some layer is drawn, its first one in
    another random order takes the place of one of the layer that has the most."""
    rng = random.Random(seed)
    drawn, others = rng.sample(numbers, n), rng.sample(numbers, len(numbers))
    for layer in sorted({layers[i] for i in numbers}):
        by_layer = Counter(layers[i] for i in drawn)
        [(most, several)] = by_layer.most_common(1) or [(None, 0)]
        if layer not in by_layer and several > 1:
            place = next(at for at, i in enumerate(drawn) if layers[i] == most)
            drawn[place] = next(i for i in others if layers[i] == layer)
    return drawn


def _twins(directions: Directions, rows: Sequence[int], others: Sequence[int]) -> dict[int, int]:
    """{one of `rows`: the one of `others` in its layer that points where it does, whatever its
    length}."""
    twin = {}
    for layer in {directions.layers[i] for i in rows}:
        parts = [[i for i in part if directions.layers[i] == layer] for part in (rows, others)]
        unit = [directions.vectors[part].double() for part in parts]
        unit = [v / v.norm(dim=1, keepdim=True) for v in unit]
        for a, b in (unit[0] @ unit[1].T > SAME).nonzero().tolist():
            twin[parts[0][a]] = parts[1][b]
    return twin


def description(generation: str) -> str:
    """The description in a generation: its first line, without full stops and spaces at the end."""
    return re.sub(r"[\s.]+$", "", generation.strip().splitlines()[0]) if generation.strip() else ""


def t_feat(
    candidates: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]
) -> list[tuple[str, float]]:
    """T_feat (eq. 2): of each direction's candidate descriptions the one of the highest score, the
    first of equal ones. Raises `UserError` for a direction without candidates, or with a score that
    is not a number."""
    chosen = []
    for number, (texts, values) in enumerate(zip(candidates, scores, strict=True)):
        if not len(texts) or any(map(isnan, values)):
            raise UserError(
                f"T_feat: direction {number} has no candidate description, or a score that is not "
                "a number; leave it out"
            )
        chosen.append(max(zip(texts, values, strict=True), key=lambda pair: pair[1]))
    return chosen


def most_frequent(descriptions: Sequence[str]) -> str:
    """The commonest training description, the first of equally common ones: the floor of what sees
    nothing."""
    return Counter(descriptions).most_common(1)[0][0]


def chosen_descriptions(profile: Profile, target: str) -> dict[str, str]:
    """The description of each direction, by its name, that T_feat chose in notebook 04. Raises
    `UserError` if that has not been run."""
    import pandas as pd

    path = run_dir(profile.name, f"simulator-{folder_name(target)}") / "descriptions.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing: notebooks/04_simulator.ipynb makes it")
    described = pd.read_parquet(path)
    return dict(zip(described["feature"], described["description"], strict=True))


def read(profile: Profile, target: str, n_train: int, seed: int) -> dict[str, Described]:
    from introspect_utils.features.directions import Directions
    from introspect_utils.features.exemplars import Exemplars

    folder = TASK.folder(profile, target)
    directions = Directions.load(folder / "directions.safetensors")
    exemplars = Exemplars.load(folder / "exemplars.safetensors")
    gold, rows = chosen_descriptions(profile, target), {}
    for part, numbers in split(directions, gold, n_train, seed).items():
        taken = directions.take(numbers)
        labels = [gold.get(name, "") for name in taken.names]
        rows[part] = Described(taken, labels, exemplars.take(numbers) if part == "test" else None)
    return rows


def predictions(rows: Described, generations, explainer, condition, score):
    said = {(explainer, condition): [description(text) for text in generations]}
    return score(rows.directions, said, rows.gold, rows.exemplars.scoring())


def wrong(run: dict, predictions: pd.DataFrame) -> str | None:
    if not len(predictions):
        return None
    if not predictions["data"].isin(["sae", "act", "dact"]).all():
        return "data must be sae, act or dact"
    described = predictions["data"] == "sae"
    # a chat model may give no rating, rarely; a pair that many rows share it is asked once
    unrated_first = predictions[described].sort_values("judge", na_position="first")
    pairs = unrated_first.drop_duplicates(["generation", "gold"])["judge"]
    rated_by_mistake = predictions.loc[~described, "judge"].notna().any()
    if rated_by_mistake or pairs.isna().sum() > max(1, 0.02 * len(pairs)):
        return "judge must be a number in the rows of sae, and null in those of act and dact"
    judge, r, abs_r = (predictions[name] for name in ("judge", "simulator", "simulator_abs"))
    scores = judge.dropna().between(0, 1).all() and abs_r.between(0, 1 + 1e-6).all()
    if not (scores and (r.abs() <= abs_r + 1e-6).all()):
        return (
            "judge and simulator_abs must lie in 0..1, simulator within plus or minus simulator_abs"
        )
    missing = sorted({"judge", "simulator"} - run["statistics"].keys())
    if missing:
        return f"its statistics must say which judge and simulator scored it; not given: {missing}"
    return None


TASK = Task(
    name="features",
    title="Feature descriptions: what activates a direction v?",
    data="01_data_features",
    train="05_train_features",
    data_settings=(
        *("text", "context", "n_contexts", "layers", "dictionaries", "d_sae", "k", "n_samples"),
        *("n_test", "n_act", "act_center", "n_top", "n_random", "descriptions", "candidates"),
    ),
    columns={
        "feature": "string",  # the direction's name
        "data": "string",  # its held-out set: sae | act | dact
        "layer": "string",
        "gold": "string",  # "" for act and dact, which have no label
        "judge": "double",  # 0..1; null for act and dact
        "simulator": "double",  # eq. 2, -1..1
        "simulator_abs": "double",  # the mean |r|
        "constant": "int64",  # exemplars without a correlation, which entered both means as 0
    },
    test_row=("row", "feature", "layer", "gold"),
    clusters=("feature", "layer"),
    metrics=("judge", "simulator"),
    table="1",
    later_table="4",
    read=read,
    examples=lambda rows, condition, seed, form="": examples(
        rows.directions, rows.gold, condition, seed, form
    ),
    predictions=predictions,
    wrong=wrong,
    table_files=("table1",),
    data_files=("directions.safetensors", "exemplars.safetensors", "candidates.parquet"),
    scoring_settings=("judge", "chat_model"),
    controls=CONTROLS,
    simulated=True,
    row_tokens=64,
)
