"""Feature descriptions (sections 2.2 and 3) as a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import run_dir
from introspect_utils.tasks.conditions import CONTROLS
from introspect_utils.tasks.task import Task

if TYPE_CHECKING:
    from introspect_utils.features.directions import Directions
    from introspect_utils.features.exemplars import Exemplars
    from introspect_utils.settings.profile import Profile


@dataclass(frozen=True)
class Described:
    """Directions of one split with their gold descriptions ("" where there is none) and exemplars."""

    directions: Directions
    gold: list[str]
    exemplars: Exemplars


def chosen_descriptions(profile: Profile, target: str) -> dict[str, str]:
    """T_feat (eq. 2): the description of each direction, by its name, that the simulator of
    notebook 04 chose. Raises `UserError` if that has not been run."""
    import pandas as pd

    path = run_dir(profile.name, f"simulator-{folder_name(target)}") / "descriptions.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing: notebooks/04_simulator.ipynb makes it")
    described = pd.read_parquet(path)
    return dict(zip(described["feature"], described["description"], strict=True))


def read(profile, target, n_train, seed):
    from introspect_utils.features.directions import Directions
    from introspect_utils.features.exemplars import Exemplars
    from introspect_utils.tasks.describing import split

    folder = TASK.folder(profile, target)
    directions = Directions.load(folder / "directions.safetensors")
    exemplars = Exemplars.load(folder / "exemplars.safetensors")
    gold = chosen_descriptions(profile, target)
    rows = {}
    for part, numbers in split(directions, gold, n_train, seed).items():
        taken = directions.take(numbers)
        labels = [gold.get(name, "") for name in taken.names]
        rows[part] = Described(taken, labels, exemplars.take(numbers))
    return rows


def examples(rows, condition, seed):
    from introspect_utils.tasks.describing import examples

    return examples(rows.directions, rows.gold, condition, seed)


def predictions(rows, generations, explainer, condition, score):
    from introspect_utils.tasks.describing import description

    said = {(explainer, condition): [description(text) for text in generations]}
    return score(rows.directions, said, rows.gold, rows.exemplars.scoring())


def wrong(run, predictions):
    if not len(predictions):
        return None
    if not predictions["data"].isin(["sae", "act", "dact"]).all():
        return "data must be sae, act or dact"
    if (predictions["judge"].notna() != (predictions["data"] == "sae")).any():
        return "judge must be a number in the rows of sae, and null in those of act and dact"
    judge, r, abs_r = (predictions[name] for name in ("judge", "simulator", "simulator_abs"))
    if not (
        judge.dropna().between(0, 1).all()
        and (r.abs() <= abs_r + 1e-6).all()
        and abs_r.between(0, 1 + 1e-6).all()
    ):
        return (
            "judge and simulator_abs must lie in 0..1, simulator within plus or minus simulator_abs"
        )
    missing = {"judge", "simulator"} - run["statistics"].keys()
    if missing:
        return f"its statistics must say which judge and which simulator scored it; not given: {sorted(missing)}"
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
    clusters=("feature",),
    metrics=("judge", "simulator"),
    table="1",
    read=read,
    examples=examples,
    predictions=predictions,
    wrong=wrong,
    table_files=("table1", "table1_paired"),
    data_files=("directions.safetensors", "exemplars.safetensors", "candidates.parquet"),
    figure="figure_2",
    scoring_settings=("judge", "chat_model"),
    controls=CONTROLS,
    simulated=True,
    row_tokens=64,
)
