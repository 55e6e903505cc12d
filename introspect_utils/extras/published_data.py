"""What the authors published, as the notebooks of a task read their data, and what is known of it
without a model.

Rows of patching and input ablation are taken as they are, their split too. Of features
(`sae_archive`) the vectors, the chosen descriptions and the sequences are theirs; what is scored on
a sequence is the `context` tokens around its highest activation.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from introspect_utils.extras import sae_archive
from introspect_utils.extras.archives import joined
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
        return {
            split: task_ablation.checked(part, f"{split}.parquet") for split, part in rows.items()
        }
    untyped = {"token_type": "not published"}
    return {
        split: [row if row["token_type"] else row | untyped for row in part]
        for split, part in rows.items()
    }


def counts(task: str, rows: Rows) -> dict:
    """Table 6 or 7 of the rows, and how many of the facts, or questions, of test rows stand among
    the training rows too."""
    train, test = asked_about(rows, SCHEMAS[task])
    known = {"asked_about": len(test), "also_in_training": len(train & test)}
    if task == "patching":
        return known | {
            "table6": [line for split in rows for line in patching.statistics(rows[split], split)]
        }
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
        [
            of_task(test, [say(*answer) for answer in answers], name, "full")
            for name, answers in said.items()
        ]
    )


def published_features(
    wanted: Features, target: str, folder: Path
) -> tuple[Directions, Exemplars, pd.DataFrame]:
    """(directions, exemplars, descriptions) of the authors' archives; what is converted of them is
    kept in `folder`.

    The held-out directions come first: SAE features, full activations and activation differences,
    up to `n_test` and `n_act` of each layer that have enough sequences. They alone have exemplars.
    Behind them stand as many training features of each layer as make max(sizes), in the archive's
    order. The table has a row for each SAE feature: `feature` (its name), `split`, `layer`,
    `description` (the chosen label), `score` (the published one).

    Raises `UserError` as `sae_archive` does.
    """
    paths = {data: archive(wanted.published, data) for data in ARCHIVES}
    others = {data: sae_archive.vectors(paths[data], data) for data in ("act", "dact")}
    sae_archive.convert(paths["sae"], folder, others["act"].vectors.shape[1])
    tokenizer, n_train = load_tokenizer(target), -(-max(wanted.sizes) // len(wanted.layers))
    held_out, training, labels = [], [], {}
    for layer in wanted.layers:
        known = {
            split: sae_archive.descriptions(folder, split, layer) for split in ("train", "test")
        }
        labels |= {f"sae/{layer}/{row['feature']}": row for rows in known.values() for row in rows}
        n_rows = max((row["n_rows"] for row in known["test"]), default=0)
        test, rows = (
            sae_archive.directions(folder, "test", layer),
            [row["row"] for row in known["test"]],
        )
        held_out.append(
            _with_exemplars(
                paths["sae"], wanted, tokenizer, layer, test, rows, n_rows, wanted.n_test
            )
        )
        for data, part in others.items():
            of_layer = part.take(part.where(layer=layer))
            if n := len(of_layer):
                held_out.append(
                    _with_exemplars(
                        paths[data], wanted, tokenizer, layer, of_layer, range(n), n, wanted.n_act
                    )
                )
        train = sae_archive.directions(folder, "train", layer)
        training.append(train.take(range(min(n_train, len(train)))))
    directions = Directions.concat([part for part, _ in held_out] + training)
    table = pd.DataFrame({name: getattr(directions, name) for name in ("names", "split", "layers")})
    table = table.rename(columns={"names": "feature", "layers": "layer"}).iloc[
        directions.where(data="sae")
    ]
    chosen = {
        key: [labels[name][key] for name in table["feature"]] for key in ("description", "score")
    }
    return directions, joined([found for _, found in held_out]), table.assign(**chosen)


def _with_exemplars(
    path: Path,
    wanted: Features,
    tokenizer: PreTrainedTokenizerBase,
    layer: int,
    part: Directions,
    rows: Sequence[int | None],
    n_rows: int,
    n: int,
) -> tuple[Directions, Exemplars]:
    """The first `n` directions that have `rows` in the exemplar files of an archive, those of them
    with enough sequences."""
    usable = [number for number, row in enumerate(rows) if row is not None][:n]
    sizes = wanted.context, wanted.n_top, wanted.n_random
    kept, found = sae_archive.exemplars(
        path, layer, [rows[number] for number in usable], n_rows, tokenizer, *sizes
    )
    return part.take([usable[number] for number in kept]), found
