"""Tables and figures from the records of `results.json`, the paper's own rows (`paper.py`) beside
ours."""

import re
from collections.abc import Iterable

from matplotlib.figure import Figure

from introspect_utils.report import style
from introspect_utils.report.layout import (
    BOLD,
    ONE_SEED,
    TRAINED,
    UNSAID,
    Group,
    artifacts,
    by_row,
    by_target,
    dot_figure,
    named,
    published_rows,
    score,
    seeds,
    trained,
)
from introspect_utils.report.paper import PATCHING_METRICS, TOKEN_TYPES, lookup, model_name
from introspect_utils.report.table import Score, Table


def table2(records: list[dict]) -> Table:
    """Table 2, activation patching: our rows, then the paper's for its two targets."""
    metrics = (*PATCHING_METRICS, "unparseable")
    ours = by_row(records, "2")
    rows = [
        (*named(row), *(score(by.get(m)) for m in metrics)) + (row["n"], *trained(row))
        for row, by in ours
    ]
    rows += [
        (
            f"{target} (paper)",
            style.label(explainer, condition),
            *(by[m] for m in PATCHING_METRICS),
            "–",
            *UNSAID,
        )
        for target, explainer, condition, by in published_rows("2")
    ]
    notes = [BOLD + " The paper's bold is not in our copy of its text, so its rows carry none."]
    if all(len(row["seeds"]) < 2 for row, _ in ours):
        notes.append(ONE_SEED)
    for target in sorted({row["target"] for row, _ in ours}):
        band = [
            r["stderr"]
            for r in records
            if (r["table"], r["target"], r["metric"]) == ("2-vector", target, "exact_match")
        ]
        if band:
            notes.append(
                f"{target}: a difference in exact match below about {196 * max(band):.1f} points "
                "(1.96 standard errors of a paired difference) cannot be told from none."
            )
    return Table(
        "Table 2. Activation patching: what each explainer predicts of its target (mean ± standard "
        "error, scaled to 100).",
        ("Target", "Explainer", *(style.LABELS[m] for m in metrics), "n", *TRAINED),
        tuple(rows),
        tuple(notes),
        artifacts(ours),
    )


def table_vector(records: list[dict]) -> Table:
    """What the vector adds: an explainer minus the same one without, with a zero, or with another
    row's vector."""
    ours = by_row(records, "2-vector")
    rows = [
        (f"{row['target']} (here)", style.label(row["explainer"]), row["condition"])
        + (*(score(by.get(m), signed=True) for m in PATCHING_METRICS), row["n"], seeds(row))
        for row, by in ours
    ]
    paper = {
        (target, explainer, condition): by
        for target, explainer, condition, by in published_rows("2")
    }
    for target, explainer, condition in paper:
        if condition == "no-vector":
            full, without = paper[target, explainer, "full"], paper[target, explainer, condition]
            differences = [
                Score(full[m].value - without[m].value, signed=True) for m in PATCHING_METRICS
            ]
            rows.append(
                (
                    f"{target} (paper)",
                    style.label(explainer),
                    "full minus no-vector",
                    *differences,
                    "–",
                    "–",
                )
            )
    return Table(
        "What the vector adds: paired differences on the same test rows (± standard error, scaled "
        "to 100).",
        (
            "Target",
            "Explainer",
            "Difference",
            *(style.LABELS[m] for m in PATCHING_METRICS),
            "n",
            "Seeds",
        ),
        tuple(rows),
        (
            "no-vector is another training run: with one seed its error leaves the training noise "
            "out.",
            "The paper's differences are those of its two rows; without its predictions they have "
            "no paired error.",
        ),
        artifacts(ours),
    )


def _counts(cells: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str, int], dict]:
    """{(split, token type, block number): {"layers", "unchanged", "changed"}} from (split,
    condition, count) of table 6."""
    named = [(split, *condition.rsplit(" / ", 2), int(count)) for split, condition, count in cells]
    blocks = sorted(
        {layers for _, _, layers, _, _ in named},
        key=lambda layers: int(re.search(r"\d+", layers)[0]),
    )
    table: dict[tuple, dict] = {}
    for split, token_type, layers, has_changed, count in named:
        cell = table.setdefault(
            (split, token_type, blocks.index(layers)),
            {"layers": layers, "unchanged": 0, "changed": 0},
        )
        cell[has_changed] += count
    return table


def table6(records: list[dict]) -> Table:
    """Table 6: rows of the data sets for each split, token type, layer block and label, beside the
    paper's Llama-3.1-8B counts.

    Our tokens outside the paper's five types, each its own type in the data, are one line per block
    here ("other tokens").
    """
    paper = _counts((row.data, row.condition, row.value) for row in lookup(table="6"))
    rows, made_by = [], {r["target"]: r["artifact"] for r in records if r["table"] == "6"}
    for target in sorted(made_by):
        named = []
        for r in records:
            if (r["table"], r["target"]) == ("6", target):
                token_type, rest = (
                    r["condition"].split(" / ")[0],
                    r["condition"].rsplit(" / ", 2)[1:],
                )
                named.append(
                    (
                        r["data"],
                        " / ".join(
                            [token_type if token_type in TOKEN_TYPES else "other tokens", *rest]
                        ),
                        r["value"],
                    )
                )
        ours = _counts(named)
        nothing = {"layers": "–", "unchanged": "–", "changed": "–"}
        order = [*TOKEN_TYPES, "other tokens"]
        for key in sorted(
            ours.keys() | paper.keys(),
            key=lambda key: (key[0] != "train", order.index(key[1]), key[2]),
        ):
            cells = [
                table.get(key, nothing)[name]
                for table in (ours, paper)
                for name in ("layers", "unchanged", "changed")
            ]
            rows.append((target, key[0], key[1], *cells))
    return Table(
        "Table 6. Rows of the activation-patching data by split, token type, layer block and "
        "label; at the right the paper's "
        "for Llama-3.1-8B, block by block.",
        (
            "Target",
            "Split",
            "Token type",
            "Layers",
            "Unchanged",
            "Changed",
            "Paper: layers",
            "Paper: unchanged",
            "Paper: changed",
        ),
        tuple(rows),
        artifacts=tuple(made_by[row[0]] for row in rows),
    )


def table_locate(records: list[dict]) -> Table:
    """Section C.1: exact match of the layers and the token decoded from the vector and the text."""
    rows, ours = [], by_row(records, "C.1")
    for row, by in ours:
        name = f"{row['target']} (here)", style.label(row["explainer"])
        rows.append((*name, score(by["exact_match"]), row["n"], *trained(row)))
    for target, explainer, _, by in published_rows("C.1"):
        rows.append((f"{target} (paper)", style.label(explainer), by["exact_match"], *UNSAID))
    return Table(
        "Section C.1. Which token and layers a vector comes from (mean ± standard error, scaled to "
        "100).",
        ("Target", "Explainer", style.LABELS["exact_match"], "n", *TRAINED),
        tuple(rows),
        artifacts=artifacts(ours),
    )


BEHIND = (
    ("full", "predicted_changed"),
    ("changed rows", "content_match"),
    ("unchanged rows", "content_match"),
    ("full", "predicts_hint"),
)


def table3(records: list[dict]) -> Table:
    """Table 3, input ablation: our rows, then those of the paper's two versions; at the right what
    section 5.2 looks at."""
    metrics = (*PATCHING_METRICS, "unparseable")
    behind = {
        (r["target"], r["explainer"], r["condition"], r["metric"]): score(r)
        for r in records
        if r["table"] == "sec5.2"
    }
    ours = by_row(records, "3")
    rows = [
        (*named(row), *(score(by.get(m)) for m in metrics))
        + tuple(behind.get((row["target"], row["explainer"], *key), "–") for key in BEHIND)
        + (row["n"], *trained(row))
        for row, by in ours
    ]
    quoted = {
        (*key, metric): cell for *key, by in published_rows("sec5.2") for metric, cell in by.items()
    }
    for version in ("v1", "v3"):
        for target, explainer, condition, by in published_rows("3", version):
            scores = (by.get(m, "–") for m in metrics)
            seen = (
                quoted.get((target, explainer, *key), "–") if version == "v1" else "–"
                for key in BEHIND
            )
            rows.append(
                (
                    f"{target} (paper {version})",
                    style.label(explainer, condition),
                    *scores,
                    *seen,
                    *UNSAID,
                )
            )
    notes = [
        BOLD
        + " The paper's bold compares the targets of one explainer, and is not in our copy of its text.",
        "The paper's v1 is whole, and its values are those in `results.json`; of v3 the numbers "
        "known here are shown.",
        "Oracle: told the target's own answers without the hint; no explainer, and no part of the "
        "bold.",
    ]
    return Table(
        "Table 3. Input ablation: what each explainer predicts of its target (mean ± standard "
        "error, scaled to 100).",
        (
            "Target",
            "Explainer",
            *(style.LABELS[m] for m in metrics),
            "Says “changed”",
            "Content match, changed rows",
        )
        + ("Content match, unchanged rows", "Names the hint’s letter", "n", *TRAINED),
        tuple(rows),
        tuple(notes),
        artifacts(ours),
    )


def table7(records: list[dict]) -> Table:
    """Table 7: changed and unchanged rows of the input-ablation data, the paper's two targets
    below."""
    cells = [
        (f"{r['target']} (here)", r["data"], r["condition"], r["value"])
        for r in records
        if r["table"] == "7"
    ]
    cells += [
        (f"{row.target} (paper)", row.data, row.condition, int(row.value))
        for row in lookup(table="7")
    ]
    counts: dict[tuple, dict[str, int]] = {}
    for target, part, label, value in cells:
        counts.setdefault((target, part), {})[label] = value
    rows = [
        (
            *key,
            of["changed"],
            of["unchanged"],
            Score(of["changed"] / (of["changed"] + of["unchanged"])),
        )
        for key, of in counts.items()
    ]
    order = sorted(rows, key=lambda row: ("(paper)" in row[0], row[0], row[1] != "train"))
    made_by = {f"{r['target']} (here)": r["artifact"] for r in records if r["table"] == "7"}
    return Table(
        "Table 7. Rows of the input-ablation data by split and label.",
        ("Target", "Split", "Changed", "Unchanged", "Share changed"),
        tuple(order),
        artifacts=tuple(made_by[row[0]] for row in order if row[0] in made_by),
    )


def hint_cells(records: list[dict]) -> dict[str, list[dict]]:
    """The records of table "hints" as the cells that `figures.hints_followed` draws."""
    cells: dict[str, list[dict]] = {}
    for r in (record for record in records if record["table"] == "hints"):
        subject, right = r["condition"].rsplit(" / ", 1)
        cell = {
            "subject": subject,
            "right": right == "right",
            "n": r["n"],
            "followed": round(r["value"] * r["n"]),
        }
        cells.setdefault(r["target"], []).append(cell)
    return cells


def figure_patching(records: list[dict]) -> Figure:
    """Table 2 as dots with 95% bars, a line of panels for each target.

    Diamonds are the paper's rows of the same name, for the same target where the paper has it, else
    for Qwen3-8B.
    """
    groups = [
        Group(
            rows, model_name(target) if lookup(table="2", target=model_name(target)) else "qwen3-8b"
        )
        for target, rows in by_target(by_row(records, "2")).items()
    ]
    return dot_figure(groups, PATCHING_METRICS, width=7.2, limits=[(0, 100)] * 3)
