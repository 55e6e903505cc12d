"""Made-up runs of feature descriptions, for the tests of records, tables and figures."""

import numpy as np
import pandas as pd

from introspect_utils.runs import record as run_files
from introspect_utils.tasks import TASKS

TARGET = "smollm2-135m-instruct"
JUDGE, SIMULATOR = "embedding: all-MiniLM-L6-v2", "artifacts/mini/checkpoints/simulator"
DATA = ["sae"] * 40 + ["act"] * 20 + ["dact"] * 15
RUN = dict.fromkeys(run_files.RUN_KEYS) | {
    "task": "features",
    "settings": {},
    "seconds": 90.0,
    "finished": "2026-11-21T10:00:00+00:00",
    "peak_memory_mb": 900,
    "commit": "0123456789ab",
    "versions": {"torch": "2.13.0"},
    "device": "x86_64 CPU, 2 threads",
}
SCORED = {"judge": JUDGE, "simulator": SIMULATOR}
TOKEN_MATCH = {"no-layer": [0.8, 0.02, 40], "wrong-layer": [0.7, 0.03, 40]}
SKILL = {  # of an explainer under a condition
    ("self", "full"): 0.6,
    ("self", "zero-vector"): 0.2,
    ("self", "shuffled-vector"): 0.15,
    ("gemma3-270m", "full"): 0.5,
    ("untrained", "full"): 0.1,
    ("nn-all", "full"): 0.4,
    ("nn-all", "dot-product"): 0.35,
    ("nn-layer", "full"): 0.38,
    ("selfie", "full"): 0.3,
    ("most-frequent", "full"): 0.1,
    ("gold", "full"): 0.45,
}


def descriptions(explainer, condition="full", skill=0.5, seed=0):
    """Scored descriptions of the directions of `DATA`; gold labels are of SAE features only."""
    generator = np.random.default_rng(seed)
    r = np.clip(generator.normal(skill, 0.2, len(DATA)), -1, 1)
    table = pd.DataFrame(
        {
            "row": range(len(DATA)),
            "feature": [f"{data}/{i % 3}/{i}" for i, data in enumerate(DATA)],
            "data": DATA,
            "layer": [str(i % 3) for i in range(len(DATA))],
            "explainer": explainer,
            "condition": condition,
            "generation": "words for animals",
            "gold": ["names of animals" if data == "sae" else "" for data in DATA],
            "judge": np.clip(np.round(4 * (r + generator.normal(0, 0.1, len(DATA)))) / 4, 0, 1),
            "simulator": r,
            "simulator_abs": np.minimum(np.abs(r) + 0.05, 1),
            "constant": generator.integers(0, 3, len(DATA)),
        }
    )
    table.loc[table["data"] != "sae", "judge"] = np.nan
    return table if explainer != "gold" else table[table["data"] == "sae"].assign(judge=1.0)


def data_run(target=TARGET):
    """Directions and candidate descriptions: a run without predictions."""
    columns = list(TASKS["features"].all_columns)
    return RUN | {
        "id": f"data-{target}",
        "target": target,
        "condition": [],
        "statistics": {},
    }, pd.DataFrame(columns=columns)


def baselines_run(target=TARGET):
    names = [
        name
        for name in SKILL
        if name[0] in ("nn-all", "nn-layer", "selfie", "most-frequent", "gold")
    ]
    tables = [descriptions(*name, SKILL[name], seed) for seed, name in enumerate(names, 50)]
    run = RUN | {
        "id": f"baselines-{target}",
        "target": target,
        "condition": ["full"],
        "n_train": 1000,
        "statistics": {**SCORED},
    }
    return run, pd.concat(tables)


def explainer_run(explainer="self", seed=0, n_train=1000, skill=None, target=TARGET):
    """An explainer with its controls at test, or, of no training rows, untrained."""
    name = f"{target}-{explainer}-{n_train}-{seed}"
    run = RUN | {
        "id": name,
        "target": target,
        "explainer": explainer,
        "n_train": n_train,
        "seed": seed,
    }
    skill = SKILL[explainer, "full"] if skill is None else skill
    if not n_train:
        return run | {"condition": ["untrained"], "statistics": {**SCORED}}, descriptions(
            explainer, "untrained", 0.1, seed + 7
        )
    controls = [
        descriptions(explainer, c, 0.2, 10 * seed + i)
        for i, c in enumerate(("zero-vector", "shuffled-vector"), 1)
    ]
    run |= {
        "condition": ["full", "zero-vector", "shuffled-vector"],
        "checkpoint": f"artifacts/mini/{name}",
        "trained_parameters": 1000,
    }
    run["statistics"] = SCORED | {"token_match": TOKEN_MATCH}
    return run, pd.concat([descriptions(explainer, "full", skill, 10 * seed), *controls])


def feature_runs(target=TARGET):
    """The data, the baselines, and explainers: self with two seeds and a smaller size, another
    model with two seeds, and untrained."""
    self_explainers = (explainer_run(seed=seed, target=target) for seed in (0, 1))
    name = "gemma3-270m" if target == TARGET else TARGET
    others = (explainer_run(name, seed, skill=0.5, target=target) for seed in (0, 1))
    smaller, untrained = (
        explainer_run(n_train=200, skill=0.3, target=target),
        explainer_run(n_train=0, target=target),
    )
    made = [*self_explainers, smaller, *others, untrained]
    return [data_run(target), baselines_run(target), *made]


def planned_run(run):
    """What a planned run of feature descriptions (`runs.Run`) could give."""
    asked = run.parameters
    if "explainer" in asked:
        return explainer_run(
            asked["explainer"], asked["seed"], asked["n_train"], skill=0.5, target=asked["target"]
        )
    return baselines_run(asked["target"]) if "baselines" in run.id else data_run(asked["target"])
