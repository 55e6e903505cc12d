"""The tables of `tables.yaml`, from the records of `results.json`: our rows, the paper's below."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import yaml

from introspect_utils.report import style
from introspect_utils.report.paper import TOKEN_TYPES, lookup
from introspect_utils.report.table import Score, Table
from introspect_utils.scores.metrics import bold

SPECS = yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text("utf-8"))
COLUMNS = tuple(SPECS["table1"]["columns"])  # of Tables 1 and 4
ONE_SEED = "One training seed: the standard errors are over the test rows only."
BOLD = "Bold: not significantly different from the best row of the same target (paired t-test, p ≥ 0.05)."
TYPES = (*TOKEN_TYPES, "other tokens")  # of Table 6, the last of ours alone
UNSAID = {"n": None, "seeds": [], "n_train": None, "trained_parameters": 0, "artifact": None}
ROW = tuple[dict, dict[str, dict]]  # any record of a table row, and its records by column


def column(record: dict) -> str:
    """The column of a record: its metric, and before it the held-out set where a task has several;
    of section 5.2 the condition."""
    if record["table"] == "sec5.2":
        return f"{record['condition']} {record['metric']}"
    one_set = record["data"] == "test"
    return record["metric"] if one_set else f"{record['data']} {record['metric']}"


def rows(records: Iterable[dict], tables: Iterable[str], beside: str | None = None) -> list[ROW]:
    """(any record, {column: record}) for each row of some tables, in their order. The columns of
    table `beside` are put at the end of the rows of "full"."""
    found: dict[tuple, dict[str, dict]] = {}
    places = {table: place for place, table in enumerate(tables)}
    for r in sorted(records, key=lambda r: r["table"] == beside):
        condition = "full" if r["table"] == beside else r["condition"]
        key = (places.get(r["table"], 0), r["target"], r["explainer"], condition, r["n_train"] or 0)
        if r["table"] in places or (r["table"] == beside and key in found):
            found.setdefault(key, {})[column(r)] = r
    return [(next(iter(by.values())), by) for by in found.values()]


def our_rows(records: Iterable[dict], *tables: str, beside: str | None = None) -> list[ROW]:
    """`rows` in the order of `style.order`."""
    places = {table: place for place, table in enumerate(tables)}

    def key(row: ROW) -> tuple:
        r = row[0]
        order = style.order(r["explainer"], r["condition"])
        return places[r["table"]], r["target"], order, -(r["n_train"] or 0)

    return sorted(rows(records, tables, beside), key=key)


def paper_rows(table: str, version: str = "v1", beside: str | None = None) -> list[ROW]:
    """The paper's rows of a table as ours. Of "<n>-paired" and "<n>-vector", which it does not have:
    differences of its rows, the errors added as if the rows were independent."""
    name, _, kind = table.partition("-")
    quoted = [asdict(row) for name in (name, beside) for row in lookup(version, table=name)]
    found = rows([row | UNSAID | {"p_vs_best": None} for row in quoted], [name], beside)
    by_name = {(r["target"], r["explainer"], r["condition"]): by for r, by in found}
    differences = []
    for (target, explainer, condition), by in by_name.items():
        own = by_name.get((target, explainer if kind == "vector" else "self", "full"), {})
        asked = condition == "no-vector" if kind == "vector" else is_other(explainer, condition)
        columns = [name for name in by if name in own] if asked else []
        pairs = {name: _minus(own[name], by[name], table, kind) for name in columns}
        differences += [(next(iter(pairs.values())), pairs)] if pairs else []
    return differences if kind else found


def is_other(explainer: str, condition: str) -> bool:
    """Whether a row is a trained explainer other than the target, given all that self is given."""
    others = style.kind(explainer) in ("sibling", "rotated", "other")
    return others and condition in ("full", *PROJECTIONS)


PROJECTIONS = ("random-projection", "pretrained-projection", "capped-projection")


def _minus(a: dict, b: dict, table: str, kind: str) -> dict:
    error = sum((record["stderr"] or 0) ** 2 for record in (a, b)) ** 0.5
    condition = "full minus no-vector" if kind == "vector" else b["condition"]
    value = {"value": a["value"] - b["value"], "stderr": error}
    return b | value | {"table": table, "condition": condition}


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
    shown = [(f"{row['target']} (here)", row, by) for row, by in ours]
    for version in versions:
        paper = f"paper {version}" if len(versions) > 1 else "paper"
        of_paper = paper_rows(spec["records"][0], version, beside)
        shown += [(f"{row['target']} ({paper})", row, by) for row, by in of_paper]
    lines = []
    for target, row, by in shown:
        cells = [_cell(by, name, spec.get("signed", False)) for name in spec["columns"]]
        last = [_last(name, row, by, spec["columns"]) for name in spec["last"]]
        lines.append((target, style.label(row["explainer"], row["condition"]), *cells, *last))
    notes = [note.format(bold=BOLD) for note in spec.get("notes", [])]
    for r in records:
        if (
            r["table"] == "scored-by"
            and r["metric"] == "judge"
            and spec["records"] in (["1"], ["4"])
        ):
            notes += _scorers(r, ours, records)
    errors = [r["stderr"] for _, by in ours for r in by.values() if spec.get("signed")]
    if errors:
        band = f"{196 * statistics.median(errors):.1f} points (1.96 median standard errors)"
        notes.append(f"A difference below about {band} cannot be told from none.")
    if "trained_parameters" in spec["last"] and all(len(row["seeds"]) < 2 for row, _ in ours):
        notes.append(ONE_SEED)
    header = ("Target", spec.get("explainer", "Explainer"))
    header += tuple(style.LABELS[name] for name in (*spec["columns"], *spec["last"]))
    artifacts = tuple(row["artifact"] for row, _ in ours)
    return Table(spec["caption"], header, tuple(lines), tuple(notes), artifacts)


def _scorers(judge: dict, ours: list[ROW], records: list[dict]) -> list[str]:
    """What the descriptions of a target of the table were scored by."""
    target = judge["target"]
    key = ("scored-by", target, "simulator")
    names = [r["condition"] for r in records if (r["table"], r["target"], r["metric"]) == key]
    if target not in {row["target"] for row, _ in ours}:
        return []
    by = f"{judge['condition']} and the simulator `{names[0]}`"
    return [f"{target}: scored by the judge {by}."]


def _cell(by: dict[str, dict], name: str, signed: bool) -> Score | str:
    """A record as a cell: a score; of similarities mean ± standard deviation; a mean number of
    constant exemplars is no share."""
    if name not in by:
        return "–"
    r, deviation = by[name], by.get(f"{name}_sd")
    if r["metric"] == "constant":
        return f"{r['value']:.2f}"
    error = deviation["value"] if deviation else r["stderr"]
    return Score(
        r["value"], error, bold(r["p_vs_best"]), signed, r["p_vs_best"] if signed else None
    )


def _last(name: str, row: dict, by: dict[str, dict], columns: list[str]) -> str:
    """One of the last cells: the test rows (of each held-out set, where they differ), the seeds,
    the training rows, the trained parameters."""
    if name == "n":
        sets = {by[c]["data"]: by[c]["n"] for c in reversed(columns) if c in by and by[c]["n"]}
        counts = [str(n) for n in reversed(sets.values())]
        return " / ".join(counts if len(set(counts)) > 1 else counts[:1]) or "–"
    if name == "seeds":
        return ", ".join(map(str, row["seeds"])) or "–"
    if name == "n_train":
        return "–" if row["n_train"] is None else str(row["n_train"])
    return f"{row['trained_parameters']:,}" if row["trained_parameters"] else "–"


def counts(records: Iterable[dict], table: str) -> dict[tuple[str, ...], dict[str, int]]:
    """{(target, split, *parts of the condition): {"changed": rows, "unchanged": rows}} of Table 6 or
    7, ours and the paper's. Token types that the paper has not are one, "other tokens"."""
    found: dict[tuple, dict[str, int]] = {}
    here = [r | {"target": f"{r['target']} (here)"} for r in records if r["table"] == table]
    paper = [asdict(row) for row in lookup(table=table)]
    for r in here + [r | {"target": f"{r['target']} (paper)"} for r in paper]:
        *parts, label = r["condition"].rsplit(" / ", 2)
        if parts:
            numbers = [int(number) for number in parts[1].strip("[]").replace("-", ",").split(",")]
            kind = parts[0] if parts[0] in TYPES else TYPES[-1]
            parts = [kind, f"{numbers[0]}–{numbers[-1]}"]
        cell = found.setdefault((r["target"], r["data"], *parts), {"changed": 0, "unchanged": 0})
        cell[label] += int(r["value"])
    return found


def _counts(spec: dict, records: list[dict]) -> Table:
    """A table with a row for each part of a data set: its rows whose answer changes, and not."""

    def key(row: tuple) -> tuple:
        target, split, *parts = row
        place = [TYPES.index(parts[0]), int(parts[1].split("–")[0])] if parts else []
        return "(paper)" in target, target, split != "train", place

    found = counts(records, spec["records"][0])
    rows = sorted(found, key=key)
    made_by = {
        f"{r['target']} (here)": r["artifact"] for r in records if r["table"] in spec["records"]
    }
    lines = []
    for row in rows:
        changed, unchanged = found[row]["changed"], found[row]["unchanged"]
        lines.append((*row, changed, unchanged, Score(changed / max(changed + unchanged, 1))))
    header = ("Target", "Split", *spec["counts"], "Changed", "Unchanged", "Share changed")
    artifacts = tuple(made_by[row[0]] for row in rows if row[0] in made_by)
    return Table(spec["caption"], header, tuple(lines), (), artifacts)
