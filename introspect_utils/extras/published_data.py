"""What the authors published, as the notebooks of a task read their data, and what is known of it
without a model.

Rows of patching and input ablation are taken as they are, their split too. Of features
(`archives`) the vectors, the chosen descriptions and the sequences are theirs; what is scored on
a sequence is the `context` tokens around its highest activation.
"""

from pathlib import Path

import pandas as pd

from introspect_utils.extras import archives
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import load_tokenizer
from introspect_utils.runs.beside import ARCHIVES, archive
from introspect_utils.scores import surface
from introspect_utils.settings.sections import Features
from introspect_utils.tasks import ablation, outcome, patching, task_ablation, task_patching
from introspect_utils.tasks.rows import ABLATION, PATCHING, asked_about, fetch, read_splits

Rows = dict[str, list[dict]]  # by split
SCHEMAS = {"patching": PATCHING, "ablation": ABLATION}


def published_rows(task: str, source: str, folder: Path, n_train: int, target: str) -> Rows:
    """The published rows of "patching" or "ablation" about `target`, put as {split}.parquet in
    `folder`: the first `n_train`, and all test rows.

    Raises `UserError` as `fetch` and `read_splits` do.
    """
    fetch(source, folder, SCHEMAS[task], target)
    rows = read_splits(folder, n_train, SCHEMAS[task])
    if task == "ablation":
        checked = task_ablation.checked
        return {split: checked(part, f"{split}.parquet") for split, part in rows.items()}
    for row in rows["train"] + rows["test"]:
        row["token_type"] = row["token_type"] or "not published"
    return rows


def counts(task: str, rows: Rows) -> dict:
    """Table 6 or 7 of the rows, and how many of the facts, or questions, of test rows stand among
    the training rows too."""
    train, test = asked_about(rows, SCHEMAS[task])
    known = {"asked_about": len(test), "also_in_training": len(train & test)}
    if task == "patching":
        table6 = [line for split in rows for line in patching.statistics(rows[split], split)]
        return known | {"table6": table6}
    named = [row | {"subject": row["subject"] or "all"} for part in rows.values() for row in part]
    return known | {"table7": ablation.statistics(rows), "followed": ablation.followed(named)}


def surface_predictions(task: str, rows: Rows) -> pd.DataFrame:
    """The scored predictions of what sees neither vector nor model: the floor of Table 2 or 3, as
    notebook 02 or 03 has it."""
    train, test = rows["train"], rows["test"]
    if task == "patching":
        truth = [(row["is_different"], row["ablated_continuation"][0]) for row in train]
        cells = ([task_patching.cell(row) for row in part] for part in (train, test))
        lookup = surface.lookup(next(cells), truth, next(cells))
        said = {"lookup": lookup, "majority": surface.majority(truth, len(test))}
        of_task, say = task_patching.predictions, outcome.explanation
    else:
        truth = [(row["changed_pred_bc_hint"], row["zeroshot_prediction"]) for row in train]
        seen = [[task_ablation.surface(row) for row in part] for part in (train, test)]
        said = surface.letter_answers(truth, *seen, [row["zeroshot_prediction"] for row in test])
        of_task, say = task_ablation.predictions, task_ablation.say
    return pd.concat(
        of_task(test, [say(*answer) for answer in answers], name, "full")
        for name, answers in said.items()
    )


def published_features(asked: Features, target: str) -> tuple[Directions, Exemplars, pd.DataFrame]:
    """(directions, exemplars, descriptions) of the authors' archives.

    The held-out directions come first: SAE features, full activations and activation differences,
    up to `n_test` and `n_act` of each layer that have enough sequences. They alone have exemplars.
    Behind them stand as many training features of each layer as make max(sizes), in the archive's
    order. The table has a row for each SAE feature: `feature` (its name), `split`, `layer`,
    `description` (the chosen label), `score` (the published one).

    Raises `UserError` as `archives` does. Memory: one layer's features at a time, and of the
    exemplar files only the rows asked for.
    """
    paths = {data: archive(asked.published, data) for data in ARCHIVES}
    others = {data: archives.other_vectors(paths[data], data) for data in ("act", "dact")}
    described = {split: archives.descriptions(paths["sae"], split) for split in ("train", "test")}
    tokenizer, n_train = load_tokenizer(target), -(-max(asked.sizes) // len(asked.layers))
    sizes = asked.context, asked.n_top, asked.n_random
    held_out, training, chosen = [], [], []
    for layer in asked.layers:
        of_layer = {split: known[known["layer"] == layer] for split, known in described.items()}
        test = of_layer["test"].dropna(subset="row")[: asked.n_test]
        pairs = {"test": test, "train": of_layer["train"][:n_train]}
        sae = archives.sae_directions(paths["sae"], layer, others["act"].vectors.shape[1], pairs)
        training.append(sae["train"])
        n_rows = int(of_layer["test"]["n_rows"].max()) if len(of_layer["test"]) else 0
        parts = [("sae", sae["test"], test["row"].astype(int).tolist(), n_rows)]
        for data, part in others.items():
            numbers = part.where(layer=layer)
            if kept := numbers[: asked.n_act]:
                parts.append((data, part.take(kept), range(len(kept)), len(numbers)))
        for data, part, rows, n_rows in parts:
            found = archives.sequences(paths[data], layer, rows, n_rows, tokenizer, *sizes)
            held_out.append(part.take(list(found)))
            chosen += found.values()
    directions = Directions.concat(held_out + training)
    exemplars = archives.make_exemplars(chosen, asked.n_top)
    table = pd.DataFrame({"feature": directions.names, "split": directions.split})
    known = pd.concat(described.values())[["feature", "split", "layer", "description", "score"]]
    table = table.iloc[directions.where(data="sae")].merge(known, on=["feature", "split"])
    return directions, exemplars, table
