"""What the drawings of the method show: of each task a test row, as target, procedure T and
self-explainer had it.

The row is to explain the method, not to represent the scores. Of those that the explainer answers
right, it is a short one whose answer changes; of features, one that had several candidate
descriptions, whose description the simulator scores best. The questions lie among a profile's
artifacts, so the examples are kept as `figures/<profile>/examples.json`: a clone that has the runs
alone can draw them.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from introspect_utils.report.table_rows import self_explained
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir, figures_dir, replaced, run_dir
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import ablation_questions, describing, patching_questions
from introspect_utils.tasks.rows import ABLATION, read_rows

AROUND = 7  # tokens on either side of an exemplar's most active one
N_EXEMPLARS = 4


def find_examples(profile: Profile, runs: Sequence[tuple[dict, pd.DataFrame]]) -> dict[str, dict]:
    """{task: example} of the tasks whose self-explainer has been run, and write them to
    `examples.json`.

    A task whose data are no longer on this machine has the example that was kept, as long as it is
    of the same run.
    """
    path = figures_dir(profile.name) / "examples.json"
    kept, found = json.loads(path.read_text("utf-8")) if path.exists() else {}, {}
    for task, (file, example) in READERS.items():
        run, said = self_explained(runs, task) or ({}, None)
        folder = artifacts_dir(profile.name) / task / folder_name(run.get("target", ""))
        if said is not None and (folder / file).is_file():
            own = example(profile, folder, run, said)
        else:
            own = kept.get(task) if _is_of(kept.get(task), run, said) else None
        if own:
            found[task] = own
    with replaced(path) as part:
        part.write_text(json.dumps(found, ensure_ascii=False) + "\n", "utf-8")
    return found


def _is_of(example: dict | None, run: dict, said: pd.DataFrame | None) -> bool:
    """Whether an example is of this very run."""
    if example is None or said is None or example["run"] != run["id"]:
        return False
    return said.loc[said["row"] == example["row"], "generation"].tolist() == [example["generation"]]


def _common(run: dict, said) -> dict:
    """What the examples of all tasks have: `said` is the row of the run's predictions."""
    of_run = {"run": run["id"], "target": run["target"], "n_train": run["n_train"]}
    return of_run | {"row": int(said.row), "generation": said.generation}


def _features(profile: Profile, folder: Path, run: dict, said: pd.DataFrame) -> dict | None:
    """A held-out SAE feature: its top exemplars with their activations (0..1 of the highest), its
    candidate descriptions, the one that the simulator chose with its score (eq. 2), and what the
    explainer says of it."""
    from introspect_utils.features.directions import Directions
    from introspect_utils.features.exemplars import Exemplars
    from introspect_utils.models.load import load_tokenizer

    sae = said[said["data"] == "sae"]
    if sae.empty:
        return None
    candidates = pd.read_parquet(folder / "candidates.parquet").set_index("feature")["candidates"]
    chosen = sae.assign(
        right=sae["generation"] == sae["gold"],
        several=[len(candidates[name]) > 1 for name in sae["feature"]],
    )
    best = next(chosen.sort_values(["right", "several", "simulator"], ascending=False).itertuples())
    directions, tokenizer = (
        Directions.load(folder / "directions.safetensors"),
        load_tokenizer(run["target"]),
    )
    row_of = {name: row for row, name in enumerate(directions.names)}
    asked = describing.examples(
        directions.take([row_of[name] for name in said["feature"]]),
        said["gold"],
        "full",
        run["seed"],
    )
    own, shown = Exemplars.load(folder / "exemplars.safetensors").take([row_of[best.feature]]), []
    for sequence, active in zip(
        own.tokens[own.sequences[0, :N_EXEMPLARS]], own.binned()[0] / 10, strict=False
    ):
        at = int(active.argmax())
        window = slice(max(0, at - AROUND), at + AROUND + 1)
        texts = [tokenizer.decode([token]) for token in sequence[window].tolist()]
        shown.append(
            [
                [text, round(share, 1)]
                for text, share in zip(texts, active[window].tolist(), strict=True)
            ]
        )
    described = pd.read_parquet(
        run_dir(profile.name, f"simulator-{folder.name}") / "descriptions.parquet"
    ).set_index("feature")
    return _common(run, best) | {
        "feature": best.feature,
        "layer": int(best.layer),
        "question": asked[said["feature"].tolist().index(best.feature)].question.text,
        "exemplars": shown,
        "candidates": list(candidates[best.feature])[: profile.features.simulator.scored],
        "description": best.gold,
        "score": float(described.loc[best.feature, "score"]),
        "judge": best.judge,
        "simulator": best.simulator,
    }


def _patching(profile: Profile, folder: Path, run: dict, said: pd.DataFrame) -> dict | None:
    """A patch of a token t of x by that of x': both statements in three parts (before t, t, behind
    t), and the answers."""
    rows = read_rows(folder / "test.parquet")
    fitting = [
        (s, rows[s.row], parts) for s in said.itertuples() if (parts := _statements(rows[s.row]))
    ]
    if not fitting:
        return None
    s, row, (x, other) = min(fitting, key=lambda fit: _clear(*fit))
    question = patching_questions.examples(rows, "full", run["seed"])[s.row].question.text
    return _common(run, s) | {
        "x": x,
        "x_prime": other,
        "layers": row["layer"],
        "blocks": [
            list(block) for block in sorted({(of["layer"][0], of["layer"][-1]) for of in rows})
        ],
        "before": row["original_continuation"][0],
        "after": row["ablated_continuation"][0],
        "answer_prime": row["gt_counterfactual_target"]
        if profile.patching.known_only
        else None,  # known to be what M answers
        "question": question.replace("".join(row["input_tokens"]), "… " + "".join(x)),
        "explanation": patching_questions.answer(row),
    }


def _clear(said, row: dict, parts: tuple[list[str], list[str]]) -> tuple:
    """Sort key of patches: right, changed, to the answer of x', at the subject's last token,
    between short statements."""
    counterfactual = row["gt_counterfactual_target"].startswith(
        row["ablated_continuation"][0].strip()
    )
    at_subject = row["token_type"] == "Subject Final"
    return (
        not said.exact_match,
        not said.is_different,
        not counterfactual,
        not at_subject,
        len("".join(sum(parts, []))),
    )


def _statements(row: dict) -> tuple[list[str], list[str]] | None:
    """x and x' without solved examples and options, each as [before t, t, behind t]; None where t
    is not in both of them, or something else than what stands before t differs."""
    tokens, position = row["input_tokens"], row["patch_position"]
    text, x, other = "".join(tokens), patching_questions.statement(row), row["counterfactual_text"]
    other = patching_questions.statement({"input_tokens": [other]})
    first = text.rindex(x) if x else 0
    start = len("".join(tokens[: position["orig_pos"]])) - first
    end = start + len(tokens[position["orig_pos"]])
    token, behind = position["counterfact_text_token"], x[end:]
    if start < 0 or end > len(x) or not other.endswith(token + behind):
        return None
    return [x[:start], x[start:end], behind], [
        other[: len(other) - len(token + behind)],
        token,
        behind,
    ]


def _ablation(profile: Profile, folder: Path, run: dict, said: pd.DataFrame) -> dict | None:
    """A question with its hint, the target's answers with and without it, and what the explainer
    says of them."""
    rows = ablation_questions.checked(read_rows(folder / "test.parquet", ABLATION), "test.parquet")
    followed = [
        row["random_hint_prediction"] == ablation_questions.hint_letter(row["hint"]) for row in rows
    ]
    s = min(
        said.itertuples(),
        key=lambda s: (
            not s.exact_match,
            not s.is_different,
            not followed[s.row],
            len(rows[s.row]["hint_user_prompt"]),
        ),
    )
    row = rows[s.row]
    return _common(run, s) | {
        "question": row["original_user_prompt"],
        "hint": row["hint"],
        "hinted": row["random_hint_prediction"],
        "unhinted": row["zeroshot_prediction"],
        "ask": ablation_questions.ASK.strip(),
        "explanation": ablation_questions.answer(row),
    }


READERS = {  # task: (the file among the artifacts that it reads, how)
    "features": ("exemplars.safetensors", _features),
    "patching": ("test.parquet", _patching),
    "ablation": ("test.parquet", _ablation),
}
