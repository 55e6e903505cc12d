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

from introspect_utils.data.prompts import statement
from introspect_utils.report.table_rows import self_explained
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import figures_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import TASKS, task_ablation
from introspect_utils.tasks.rows import ABLATION, read_rows

AROUND, N_EXEMPLARS, N_RANDOM = 7, 4, 10  # tokens on either side of an exemplar's most active one


def find_examples(profile: Profile, runs: Sequence[tuple[dict, pd.DataFrame]]) -> dict[str, dict]:
    """{task: example} of the tasks whose self-explainer has been run, and write them to
    `examples.json`. A task whose data are not on this machine has the example that was kept, as
    long as it is of the same run and generation."""
    path = figures_dir(profile.name) / "examples.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    found = {}
    for name, reader in READERS.items():
        if not (explained := self_explained(runs, name)):
            continue
        (run, said), task, example = explained, TASKS[name], kept.get(name)
        said, folder = said.set_index("row", drop=False), task.folder(profile, run["target"])
        there = (folder / task.data_files[-1]).is_file()
        if there and (chosen := reader(profile, run, said, folder)):
            rows, row, shown = chosen
            asked = task.examples(rows, "full", run["seed"])[row]
            example = {"run": run["id"], "target": run["target"], "n_train": run["n_train"]}
            example |= {"row": row, "question": asked.question.text}
            example |= {"explanation": asked.explanation, "generation": said.loc[row, "generation"]}
            example |= shown
            if before := example.pop("asked", None):  # what stands before the statement is left out
                example["question"] = example["question"].replace(*before)
        if example and example["run"] == run["id"]:
            row = said.loc[example["row"]]
            if row["generation"] == example["generation"]:
                found[name] = example | {"verdict": verdict(row)}
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


def _features(profile: Profile, run: dict, said: pd.DataFrame, folder: Path) -> tuple | None:
    """(all test rows, one of them, what is shown): a held-out SAE feature, its top exemplars with
    their activations (0..1), its candidates, and the score of the one that was chosen (eq. 2)."""
    from introspect_utils.models.load import load_tokenizer

    sae = said[said["data"] == "sae"]
    if sae.empty:
        return None
    rows = TASKS["features"].read(profile, run["target"], 0, run["seed"])["test"]
    candidates = pd.read_parquet(folder / "candidates.parquet").set_index("feature")["candidates"]
    several = candidates[sae["feature"]].str.len().to_numpy() > 1
    clear = sae.assign(right=sae["generation"] == sae["gold"], several=several)
    best = clear.sort_values(["right", "several", "simulator"], ascending=False).iloc[0]
    tokenizer = load_tokenizer(run["target"])

    def active(row: int) -> list:
        """[[token, activation 0..1]] around the peak of each of its first exemplars."""
        own, shown = rows.exemplars.take([row]), []
        texts = own.tokens[own.sequences[0, :N_EXEMPLARS]]
        for tokens, shares in zip(texts, own.binned()[0] / 10, strict=False):
            peak = int(shares.argmax())
            window = slice(max(0, peak - AROUND), peak + AROUND + 1)
            pairs = zip(tokens[window].tolist(), shares[window].tolist(), strict=True)
            shown.append([[tokenizer.decode([token]), round(share, 1)] for token, share in pairs])
        return shown

    simulator = run_dir(profile.name, f"simulator-{folder_name(run['target'])}")
    scores = pd.read_parquet(simulator / "descriptions.parquet").set_index("feature")["score"]
    shown = {
        "layer": int(best["layer"]),
        "exemplars": active(int(best["row"])),
        "candidates": list(candidates[best["feature"]])[: profile.features.simulator.scored],
        "score": float(scores[best["feature"]]),
        "at_random": {r.feature: active(r.row)[:2] for r in at_random(said).itertuples()},
    }
    return rows, int(best["row"]), shown


def _patching(profile: Profile, run: dict, said: pd.DataFrame, folder: Path) -> tuple | None:
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
    known = profile.patching.known_only
    shown = {
        "x": x,
        "x_prime": other,
        "layers": row["layer"],
        "before": row["original_continuation"][0],
        "after": row["ablated_continuation"][0],
        "answer_prime": row["gt_counterfactual_target"] if known else None,
        "asked": ("".join(row["input_tokens"]), "… " + "".join(x)),
    }
    return rows, int(s.row), shown


def _statements(row: dict) -> tuple[list[str], list[str]] | None:
    """x and x' without solved examples and options, each as [before t, t, behind t]; None where t
    is not in both of them, or something else than what stands before t differs."""
    tokens, position = row["input_tokens"], row["patch_position"]
    text = "".join(tokens)
    x, other = (statement(part) for part in (text, row["counterfactual_text"]))
    start = len("".join(tokens[: position["orig_pos"]])) - (text.rindex(x) if x else 0)
    end = start + len(tokens[position["orig_pos"]])
    token, behind = position["counterfact_text_token"], x[end:]
    if start < 0 or end > len(x) or not other.endswith(token + behind):
        return None
    before = other[: len(other) - len(token + behind)]
    return [x[:start], x[start:end], behind], [before, token, behind]


def _ablation(profile: Profile, run: dict, said: pd.DataFrame, folder: Path) -> tuple:
    """A question with its hint, and the target's answers with and without it: best a right answer,
    a hint that is followed, and a short question."""
    rows = task_ablation.checked(read_rows(folder / "test.parquet", ABLATION), "test.parquet")

    def clear(s) -> tuple:
        row = rows[s.row]
        followed = row["random_hint_prediction"] == row["hint_letter"]
        return not s.exact_match, not s.is_different, not followed, len(row["hint_user_prompt"])

    s = min(said.itertuples(), key=clear)
    row = rows[s.row]
    shown = {
        "question": row["original_user_prompt"],
        "hint": row["hint"],
        "hinted": row["random_hint_prediction"],
        "unhinted": row["zeroshot_prediction"],
        "ask": task_ablation.ASK,
    }
    return rows, int(s.row), shown


READERS = {"features": _features, "patching": _patching, "ablation": _ablation}
