"""The test rows that the drawings of the method show, and ten drawn at random with their exemplars.

A drawn row is to explain the method, not to represent the scores: of those that the self-explainer
answers right, a short one whose answer changes; of features, one that had several candidate
descriptions. The data lie among a profile's artifacts, so what is shown is kept as
`figures/<profile>/examples.json`: a clone that has the runs alone can draw it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from introspect_utils.report.table_rows import self_explained
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir, figures_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import task_ablation, task_features, task_patching
from introspect_utils.tasks.rows import ABLATION, read_rows

AROUND, N_EXEMPLARS, N_RANDOM = 7, 4, 10  # tokens on either side of an exemplar's most active one


def find_examples(profile: Profile, runs: Sequence[tuple[dict, pd.DataFrame]]) -> dict[str, dict]:
    """{task: example} of the tasks whose self-explainer has been run, and write them to
    `examples.json`. A task whose data are not on this machine has the example that was kept, as
    long as it is of the same run and generation."""
    path = figures_dir(profile.name) / "examples.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    found = {}
    for task, (file, reader) in READERS.items():
        run, said = self_explained(runs, task) or ({}, None)
        folder = artifacts_dir(profile.name) / task / folder_name(run.get("target", ""))
        example = kept.get(task, {})
        if said is not None and (folder / file).is_file():
            example = reader(profile, folder, run, said)
        if example and example.get("run") == run.get("id"):
            row = said[said["row"] == example["row"]].iloc[0]
            if row["generation"] == example["generation"]:
                found[task] = example | {"verdict": verdict(row)}
    with replaced(path) as part:
        part.write_text(json.dumps(found, ensure_ascii=False) + "\n", "utf-8")
    return found


def at_random(said: pd.DataFrame) -> pd.DataFrame:
    """Ten test rows (of features: held-out SAE features), the same ones each time."""
    rows = said[said["data"] == "sae"] if "data" in said else said
    return rows.sample(min(N_RANDOM, len(rows)), random_state=0)


def verdict(row: pd.Series) -> str:
    """How right a prediction is."""
    if "judge" in row:
        return f"judge {row['judge']:.2f}, simulator {row['simulator']:.2f}"
    return "right" if row["exact_match"] else f"wrong: M’s answer is {row['content']!r}"


def _common(run: dict, said) -> dict:
    """What the examples of all tasks have: `said` is the row of the run's predictions."""
    of_run = {"run": run["id"], "target": run["target"], "n_train": run["n_train"]}
    return of_run | {"row": int(said.row), "generation": said.generation}


def _features(profile: Profile, folder: Path, run: dict, said: pd.DataFrame) -> dict | None:
    """A held-out SAE feature: its top exemplars with their activations (0..1), its candidates, the
    one that the simulator chose with its score (eq. 2), and what is said of it."""
    from introspect_utils.features.directions import Directions
    from introspect_utils.features.exemplars import Exemplars
    from introspect_utils.models.load import load_tokenizer

    sae = said[said["data"] == "sae"]
    if sae.empty:
        return None
    candidates = pd.read_parquet(folder / "candidates.parquet").set_index("feature")["candidates"]
    several = [len(candidates[name]) > 1 for name in sae["feature"]]
    chosen = sae.assign(right=sae["generation"] == sae["gold"], several=several)
    best = next(chosen.sort_values(["right", "several", "simulator"], ascending=False).itertuples())
    directions = Directions.load(folder / "directions.safetensors")
    exemplars = Exemplars.load(folder / "exemplars.safetensors")
    tokenizer, row_of = (
        load_tokenizer(run["target"]),
        {n: i for i, n in enumerate(directions.names)},
    )
    asked = directions.take([row_of[name] for name in said["feature"]])
    questions = task_features.examples(asked, said["gold"], "full", run["seed"])

    def active(feature: str) -> list:
        """[[token, activation 0..1]] around the peak of each of its first exemplars."""
        own, shown = exemplars.take([row_of[feature]]), []
        texts = own.tokens[own.sequences[0, :N_EXEMPLARS]]
        for tokens, shares in zip(texts, own.binned()[0] / 10, strict=False):
            start = max(0, int(shares.argmax()) - AROUND)
            window = slice(start, int(shares.argmax()) + AROUND + 1)
            decoded = [tokenizer.decode([token]) for token in tokens[window].tolist()]
            shown.append(
                [[t, round(s, 1)] for t, s in zip(decoded, shares[window].tolist(), strict=True)]
            )
        return shown

    simulator = run_dir(profile.name, f"simulator-{folder.name}") / "descriptions.parquet"
    score = pd.read_parquet(simulator).set_index("feature").loc[best.feature, "score"]
    return _common(run, best) | {
        "feature": best.feature,
        "layer": int(best.layer),
        "question": questions[said["feature"].tolist().index(best.feature)].question.text,
        "exemplars": active(best.feature),
        "candidates": list(candidates[best.feature])[: profile.features.simulator.scored],
        "description": best.gold,
        "score": float(score),
        "at_random": {feature: active(feature)[:2] for feature in at_random(said)["feature"]},
    }


def _patching(profile: Profile, folder: Path, run: dict, said: pd.DataFrame) -> dict | None:
    """A patch of a token t of x by that of x': both statements in three parts (before t, t, behind
    t), and the answers. Best a right answer, a change to the answer of x', whole words at the
    subject's end, and short statements."""
    rows = read_rows(folder / "test.parquet")
    parts = {s.row: _statements(rows[s.row]) for s in said.itertuples()}

    def clear(s) -> tuple:
        row, texts = rows[s.row], sum(parts[s.row], [])
        other = row["gt_counterfactual_target"].startswith(row["ablated_continuation"][0].strip())
        words = [before == "" or token.startswith(" ") for before, token, _ in parts[s.row]]
        at_end = row["token_type"] == "Subject Final"
        wrong = not s.exact_match, not s.is_different, not other, not at_end, not all(words)
        return (*wrong, len("".join(texts)))

    s = min((s for s in said.itertuples() if parts[s.row]), key=clear, default=None)
    if s is None:
        return None
    row, (x, other) = rows[s.row], parts[s.row]
    question = task_patching.examples(rows, "full", run["seed"])[s.row].question.text
    return _common(run, s) | {
        "x": x,
        "x_prime": other,
        "layers": row["layer"],
        "before": row["original_continuation"][0],
        "after": row["ablated_continuation"][0],
        "answer_prime": row["gt_counterfactual_target"] if profile.patching.known_only else None,
        "question": question.replace("".join(row["input_tokens"]), "… " + "".join(x)),
        "explanation": task_patching.answer(row),
    }


def _statements(row: dict) -> tuple[list[str], list[str]] | None:
    """x and x' without solved examples and options, each as [before t, t, behind t]; None where t
    is not in both of them, or something else than what stands before t differs."""
    tokens, position = row["input_tokens"], row["patch_position"]
    text = "".join(tokens)
    x, other = (task_patching.statement(part) for part in (text, row["counterfactual_text"]))
    start = len("".join(tokens[: position["orig_pos"]])) - (text.rindex(x) if x else 0)
    end = start + len(tokens[position["orig_pos"]])
    token, behind = position["counterfact_text_token"], x[end:]
    if start < 0 or end > len(x) or not other.endswith(token + behind):
        return None
    before = other[: len(other) - len(token + behind)]
    return [x[:start], x[start:end], behind], [before, token, behind]


def _ablation(profile: Profile, folder: Path, run: dict, said: pd.DataFrame) -> dict | None:
    """A question with its hint, the target's answers with and without it, and what the explainer
    says of them: best a right answer, a hint that is followed, and a short question."""
    rows = task_ablation.checked(read_rows(folder / "test.parquet", ABLATION), "test.parquet")

    def clear(s) -> tuple:
        row = rows[s.row]
        followed = row["random_hint_prediction"] == row["hint_letter"]
        return not s.exact_match, not s.is_different, not followed, len(row["hint_user_prompt"])

    s = min(said.itertuples(), key=clear)
    row = rows[s.row]
    return _common(run, s) | {
        "question": row["original_user_prompt"],
        "hint": row["hint"],
        "hinted": row["random_hint_prediction"],
        "unhinted": row["zeroshot_prediction"],
        "ask": task_ablation.ASK,
        "explanation": task_ablation.answer(row),
    }


READERS = {  # task: (the file among the artifacts that it reads, how)
    "features": ("exemplars.safetensors", _features),
    "patching": ("test.parquet", _patching),
    "ablation": ("test.parquet", _ablation),
}
