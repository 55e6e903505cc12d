"""The tables of `tables.yaml`, from the records of `results.json`: our rows, the paper's below."""

import re
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import yaml

from introspect_utils.report import style
from introspect_utils.report.paper import TOKEN_TYPES, lookup
from introspect_utils.report.table import Score, Table
from introspect_utils.scores.metrics import bold
from introspect_utils.tasks import TASKS


def _specs() -> dict[str, dict]:
    """The tables of `tables.yaml`; a task that is in none of them gets one of its metrics."""
    specs = yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text("utf-8"))
    last = specs["table1"]["last"]
    for task in TASKS.values():
        if not any(task.table in spec["records"] for spec in specs.values()):
            made = {"records": [task.table], "caption": task.title}
            specs[f"table{task.table}"] = made | {"columns": list(task.metrics), "last": last}
    return specs


SPECS = _specs()
COLUMNS = tuple(SPECS["table1_paired"]["columns"])  # of the figures of Tables 1 and 4
ONE_SEED = "One training seed: the standard errors are over the test rows only."
BOLD = "Bold: not significantly different from the best row of the same target (paired t-test, "
BOLD += "p ≥ 0.05 by some kind of cluster). Explainers of one training seed are not compared."
TYPES = (*TOKEN_TYPES, "other tokens")  # of Table 6, the last of ours alone
UNSAID = {"n": None, "seeds": [], "n_train": None, "trained_parameters": 0, "p": None}
ROW = tuple[dict, dict[str, dict]]  # any record of a table row, and its records by column


def column(record: dict) -> str:
    """The column of a record: its metric, and before it the held-out set where a task has several;
    of section 5.2 the condition."""
    part = record["condition"] if record["table"] == "sec5.2" else record["data"]
    return record["metric"] if part == "test" else f"{part} {record['metric']}"


def rows(records: Iterable[dict], *tables: str, beside: str | None = None) -> list[ROW]:
    """(any record, {column: record}) for each row of some tables, the columns of table `beside` at
    the end of its row of "full"."""
    found: dict[tuple, dict[str, dict]] = {}
    for r in sorted(records, key=lambda r: r["table"] == beside):
        table = tables[0] if r["table"] == beside else r["table"]
        condition = "full" if r["table"] == beside else r["condition"]
        key = (table, r["target"], r["explainer"], condition, r["n_train"])
        if table in tables and (r["table"] != beside or key in found):
            found.setdefault(key, {})[column(r)] = r
    return [(next(iter(by.values())), by) for by in found.values()]


def our_rows(records: Iterable[dict], *tables: str, beside: str | None = None) -> list[ROW]:
    """`rows` table by table and target by target, in the order of `style.order`."""

    def place(row: ROW) -> tuple:
        r = row[0]
        order = style.order(r["explainer"], r["condition"])
        return tables.index(r["table"]), r["target"], order, -(r["n_train"] or 0)

    return sorted(rows(records, *tables, beside=beside), key=place)


def paper_rows(table: str, version: str = "v1", beside: str | None = None) -> list[ROW]:
    """The paper's rows of a table as ours. Of "<n>-paired" and "<n>-vector", which it does not
    have: differences of its rows, the errors added as if the rows were independent."""
    name, _, kind = table.partition("-")
    quoted = [row._asdict() | UNSAID for t in (name, beside) for row in lookup(version, table=t)]
    found = rows(quoted, name, beside=beside)
    by_key = {(r["target"], r["explainer"], r["condition"]): by for r, by in found}
    differences = []
    for (target, explainer, condition), by in by_key.items() if kind else ():
        own = by_key.get((target, explainer if kind == "vector" else "self", "full"), {})
        asked = condition == "no-vector" if kind == "vector" else is_other(explainer, condition)
        named = {"table": table, "condition": f"full minus {condition}"}
        named |= {"condition": condition} if kind == "paired" else {}
        pairs = {c: _minus(own[c], by[c]) | named for c in by if asked and c in own}
        differences += [(next(iter(pairs.values())), pairs)] if pairs else []
    return differences if kind else found


def _minus(a: dict, b: dict) -> dict:
    error = ((a["stderr"] or 0) ** 2 + (b["stderr"] or 0) ** 2) ** 0.5
    return b | {"value": a["value"] - b["value"], "stderr": error}


def is_other(explainer: str, condition: str) -> bool:
    """Whether a row is a trained explainer other than the target, given all that self is given."""
    others = style.kind(explainer) in ("sibling", "rotated", "other")
    return others and (condition == "full" or condition.endswith("-projection"))


def table(name: str, records: list[dict]) -> Table | None:
    """A table of `tables.yaml`; None where no record of ours is in it."""
    spec = SPECS[name]
    if not any(r["table"] in spec["records"] for r in records):
        return None
    return (_counts if "counts" in spec else _scores)(spec, records)


def _scores(spec: dict, records: list[dict]) -> Table:
    """A table with a row for each explainer under a condition."""
    beside, versions = spec.get("beside"), spec.get("paper", [])
    ours = our_rows(records, *spec["records"], beside=beside)
    parts = spec.get("parts", {})  # what stands for "here" in the rows of a table
    shown = [(parts.get(row["table"], "here"), row, by) for row, by in ours]
    for version in versions:
        paper = f"paper {version}" if len(versions) > 1 else "paper"
        shown += [(paper, *row) for row in paper_rows(spec["records"][0], version, beside)]
    lines = []
    for where, row, by in shown:
        cells = [_cell(by, name, spec.get("signed", False)) for name in spec["columns"]]
        last = [_last(name, row, by, spec["columns"]) for name in spec["last"]]
        name = style.label(row["explainer"], row["condition"])
        lines.append((f"{row['target']} ({where})", name, *cells, *last))
    is_bold = any(isinstance(cell, Score) and cell.bold for line in lines for cell in line)
    notes = [note.format(bold=BOLD * is_bold).strip() for note in spec.get("notes", [])]
    notes = [*filter(None, notes), *_missing(spec, ours), *_errors_by(spec, ours)]
    targets = {row["target"] for row, _ in ours} if spec["records"] in (["1"], ["4"]) else ()
    for r in records:
        if r["table"] == "scored-by" and r["target"] in targets:
            notes.append(f"{r['target']}: scored by the {r['metric']} `{r['condition']}`.")
    signed = [r for _, by in ours for r in by.values() if spec.get("signed")]
    if errors := [r["stderr"] for r in signed if r["stderr"] is not None]:
        band = f"{196 * statistics.median(errors):.1f} points (1.96 median standard errors)"
        notes.append(f"A difference below about {band} cannot be told from none.")
    if "trained_parameters" in spec["last"] and all(len(row["seeds"]) < 2 for row, _ in ours):
        notes.append(ONE_SEED)
    names = [style.LABELS.get(name, name) for name in (*spec["columns"], *spec["last"])]
    header = ("Target", spec.get("explainer", "Explainer"), *names)
    artifacts = tuple(row["artifact"] for row, _ in ours)
    return Table(spec["caption"], header, tuple(lines), tuple(notes), artifacts)


def _missing(spec: dict, ours: list[ROW]) -> list[str]:
    """What is to be said of explainers, conditions and tables of which there is no row."""
    there = {part for row, _ in ours for part in row["condition"].split(", ")}
    there |= {row[key] for row, _ in ours for key in ("explainer", "table")}
    return [note for name, note in spec.get("absent", {}).items() if name not in there]


def _errors_by(spec: dict, ours: list[ROW]) -> list[str]:
    """The error of the first number by each kind of cluster, where the task has several."""
    name = spec["columns"][0]
    r = next((by[name] for _, by in ours if name in by), {})
    if not r.get("error_by"):
        return []
    errors = {r["clusters"]: r} | r["error_by"]
    told = ", ".join(f"± {100 * e['stderr']:.1f} by {by}" for by, e in errors.items())
    row = style.label(r["explainer"], r["condition"])
    return [f"Errors are clustered by {r['clusters']}. {row}, {style.LABELS[name]}: {told}."]


def _cell(by: dict[str, dict], name: str, signed: bool) -> Score | str:
    """A record as a cell: a score; of similarities mean ± standard deviation; a number of constant
    exemplars or of directions is no share."""
    if name not in by or by[name]["value"] is None:
        return "–"
    r, error = by[name], by.get(f"{name}_sd", {}).get("value", by[name]["stderr"])
    if r["metric"] == "constant":
        return f"{r['value']:.2f}"
    if r["metric"] == "beats-selfie":
        return f"{r['value']:.0f}"
    return Score(r["value"], error, bold(r["p"]), signed, r["p"] if signed else None)


def _last(name: str, row: dict, by: dict[str, dict], columns: list[str]) -> str:
    """One of the last cells: the test rows (of each held-out set, where they differ), the seeds,
    the training rows, the trained parameters."""
    if name == "n":
        sets = {by[c]["data"]: str(by[c]["n"]) for c in columns[::-1] if c in by and by[c]["n"]}
        counts = list(sets.values())[::-1]
        return " / ".join(counts if len(set(counts)) > 1 else counts[:1]) or "–"
    if name == "seeds":
        return ", ".join(map(str, row["seeds"])) or "–"
    if name == "n_train":
        return "–" if row["n_train"] is None else str(row["n_train"])
    return f"{row['trained_parameters']:,}" if row["trained_parameters"] else "–"


def _counts(spec: dict, records: list[dict]) -> Table:
    """A table with a row for each part of a data set, ours and the paper's: its rows whose answer
    changes, and not. Token types that the paper has not are one, "other tokens"."""
    [table] = spec["records"]
    ours = [r for r in records if r["table"] == table]
    sums: dict[tuple, Counter] = {}
    for where, found in (("here", ours), ("paper", [row._asdict() for row in lookup(table=table)])):
        for r in found:
            *parts, label = r["condition"].rsplit(" / ", 2)
            order, names = (), ()
            if parts:  # a token type and layers
                type_ = TYPES.index(parts[0]) if parts[0] in TYPES else len(TYPES) - 1
                layers = [int(number) for number in re.findall(r"\d+", parts[1])]
                order, names = (type_, layers[0]), (TYPES[type_], f"{layers[0]}–{layers[-1]}")
            order = (where, r["target"], r["data"] != "train", *order)
            row = (f"{r['target']} ({where})", r["data"], *names)
            sums.setdefault((order, row), Counter())[label] += int(r["value"])
    lines = []
    for order, row in sorted(sums):
        n = sums[order, row]
        lines.append((*row, n["changed"], n["unchanged"], Score(n["changed"] / max(n.total(), 1))))
    header = ("Target", "Split", *spec["counts"], "Changed", "Unchanged", "Share changed")
    made_by = {f"{r['target']} (here)": r["artifact"] for r in ours}
    artifacts = tuple(made_by[line[0]] for line in lines if line[0] in made_by)
    return Table(spec["caption"], header, tuple(lines), (), artifacts)
