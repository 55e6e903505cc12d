"""The comparisons that the paper's claims rest on: each a function from the records of
`results.json`.

"Above" is meant at the 5% level, two-sided: of a difference paired by test row by its t-test where
the records hold one, else by 1.96 standard errors. Rows without a paired record are compared as if
they were independent: the error of their difference is sqrt(a^2 + b^2). A function returns no
comparison at all where the records are not there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from introspect_utils.report import style
from introspect_utils.report.similarity import points, rank_correlation
from introspect_utils.report.table import Score
from introspect_utils.report.tables import COLUMNS
from introspect_utils.scores.metrics import SIGNIFICANCE

Z = 1.96
LESS_DATA, COMPARABLE = 100, 0.9  # times less data; share of a score that counts as reached
READ = 0.9  # exact match that counts as read
RARELY = 0.05  # share of rows that counts as hardly ever


@dataclass(frozen=True)
class Comparison:
    """What is compared, its numbers, whether it `holds`, and what made them.

    `holds` is None where the records are not there; `what` then says which runs make them.
    """

    what: str
    numbers: str = ""
    holds: bool | None = None
    artifacts: tuple[str, ...] = ()


def _pick(records: list[dict], **fields) -> list[dict]:
    return [
        record for record in records if all(record[key] == value for key, value in fields.items())
    ]


def _row(record: dict) -> str:
    return style.label(record["explainer"], record["condition"])


def _column(record: dict) -> str:
    """The column of Table 1 or 4 that a record belongs to."""
    return f"{record['data']} {record['metric']}"


def _minus(a: dict, b: dict, what: str) -> Comparison:
    """Whether `a` is above `b`, as independent values."""
    value, stderr = a["value"] - b["value"], (a["stderr"] ** 2 + b["stderr"] ** 2) ** 0.5
    return Comparison(
        what,
        str(Score(value, stderr, signed=True)),
        value > Z * stderr,
        (a["artifact"], b["artifact"]),
    )


def _is_another_model(explainer: str) -> bool:
    """Whether it is a trained model other than the target, the target's sibling and the target
    rotated."""
    return style.kind(explainer) == "other"


# --- feature descriptions
# ---------------------------------------------------------------------------------------------


def _paired(r: dict, what: str) -> Comparison:
    """Whether a paired difference is above 0."""
    numbers = f"{Score(r['value'], r['stderr'], signed=True)}, p = {r['p_vs_best']:.2g}"
    return Comparison(
        what, numbers, r["value"] > 0 and r["p_vs_best"] < SIGNIFICANCE, (r["artifact"],)
    )


def ahead(
    records: list[dict], explainers: Iterable[str], columns: tuple[str, ...] = COLUMNS
) -> list[Comparison]:
    """The self-explainer minus each of `explainers`, paired, in each column; nothing if one of them
    is not there."""
    found = []
    for explainer in explainers:
        rows = {
            _column(r): r
            for r in _pick(records, table="1-paired", explainer=explainer, condition="full")
        }
        if not rows.keys() & set(columns):
            return []
        chosen = (rows[column] for column in columns if column in rows)
        found += [_paired(r, f"Self minus {_row(r)}, {style.LABELS[_column(r)]}") for r in chosen]
    return found


def beats_other_models(records: list[dict]) -> list[Comparison]:
    explainers = dict.fromkeys(record["explainer"] for record in _pick(records, table="1-paired"))
    return ahead(records, filter(_is_another_model, explainers))


def _described(records: list[dict], column: str) -> dict[tuple[str, str], dict]:
    """The record of each (explainer, condition) in a column of Table 1."""
    return {
        (r["explainer"], r["condition"]): r
        for r in _pick(records, table="1")
        if _column(r) == column
    }


def closer_is_better(records: list[dict]) -> list[Comparison]:
    found = []
    for column in COLUMNS:
        shown = next(
            iter(points(records, "dot_product", column).values()), []
        )  # of one training size
        if len(shown) >= 3:
            rows = [row for _, row in sorted(shown, key=lambda point: point[0])]
            found.append(
                _minus(
                    rows[-1],
                    rows[0],
                    f"{_row(rows[-1])} minus {_row(rows[0])}, {style.LABELS[column]}",
                )
            )
            rank = rank_correlation(shown) or 0.0  # all equally similar: none
            what = f"rank correlation of {len(rows)} explainers, {style.LABELS[column]}"
            found.append(
                Comparison(what, f"{rank:+.2f}", rank > 0, tuple(row["artifact"] for row in rows))
            )
    return found


def aligned_is_better(records: list[dict]) -> list[Comparison]:
    found = []
    for column in COLUMNS:
        scores = _described(records, column)
        for (name, condition), row in scores.items():
            if (
                condition == "pretrained-projection"
                and _is_another_model(name)
                and (name, "full") in scores
            ):
                what = f"{name}, pre-trained minus random projection, {style.LABELS[column]}"
                found.append(_minus(row, scores[name, "full"], what))
    return found


def needs_less_data(records: list[dict]) -> list[Comparison]:
    nearest = _described(records, "sae judge").get(("nn-all", "full"))
    own = _pick(records, explainer="self", condition="full", data="sae", metric="judge")
    few = [
        r
        for r in own
        if r["table"] in ("1", "scaling")
        and nearest
        and LESS_DATA * r["n_train"] <= nearest["n_train"]
    ]
    if not few:
        return []
    most = max(few, key=lambda record: record["n_train"])
    share = most["value"] / nearest["value"]
    cells = Score(most["value"], most["stderr"]), Score(nearest["value"], nearest["stderr"])
    what = f"Self of {most['n_train']} directions against {_row(nearest)} of {nearest['n_train']}, SAE judge"
    artifacts = most["artifact"], nearest["artifact"]
    return [
        Comparison(
            what, f"{cells[0]} against {cells[1]}: {share:.0%}", share >= COMPARABLE, artifacts
        )
    ]


def few_are_its_fault(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="fig8", condition="explainer model error", metric="share")
    return [_marked(row, "zero scores that are the explainer's error", below=0.5) for row in rows]


# --- patching and hints
# -----------------------------------------------------------------------------------------------


def _exact(records: list[dict], table: str) -> list[tuple[dict, dict]]:
    """(the self-explainer, another row of its target) for each other row of Table 2 or 3: exact
    match, in full."""
    rows = _pick(records, table=table, condition="full", metric="exact_match")
    return [
        (own, row)
        for own in _pick(rows, explainer="self")
        for row in rows
        if row["target"] == own["target"] and row != own
    ]


def beats_untrained(records: list[dict]) -> list[Comparison]:
    pairs = [(own, row) for own, row in _exact(records, "2") if row["explainer"] == "untrained"]
    return [
        _minus(own, row, f"Self minus Untrained, patching of {own['target']}") for own, row in pairs
    ]


def beats_others_at_patching(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="2-paired", condition="full", metric="exact_match")
    return [
        _paired(r, f"Self minus {_row(r)}, patching of {r['target']}")
        for r in rows
        if _is_another_model(r["explainer"])
    ]


def beats_itself_on_others(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="3", condition="full", metric="exact_match")
    pairs = [
        (own, row)
        for own in _pick(rows, explainer="self")
        for row in rows
        if row["explainer"] == own["target"]
    ]
    return [
        _minus(own, row, f"{own['target']} on its own hints minus on those of {row['target']}")
        for own, row in pairs
    ]


def reads_the_vector(records: list[dict]) -> list[Comparison]:
    found = []
    for r in _pick(
        records,
        table="2-vector",
        explainer="self",
        condition="full minus no-vector",
        metric="exact_match",
    ):
        numbers = str(Score(r["value"], r["stderr"], signed=True))
        what = f"{r['target']}: Self minus Self without activation"
        found.append(Comparison(what, numbers, r["value"] > Z * r["stderr"], (r["artifact"],)))
    return found


def annotations_add_nothing(records: list[dict]) -> list[Comparison]:
    found, own = [], _pick(records, table="2", explainer="self", metric="exact_match")
    for full in _pick(own, condition="full"):
        rows = {row["condition"]: row for row in _pick(own, target=full["target"])}
        if not {"no-vector", "no-layer", "no-token"} <= rows.keys():
            return []
        for name in ("no-layer", "no-token"):
            without = f"Self without {name.removeprefix('no-')}"
            cost = _minus(full, rows[name], f"{full['target']}: Self minus {without} (not above 0)")
            found.append(Comparison(cost.what, cost.numbers, not cost.holds, cost.artifacts))
            what = f"{full['target']}: {without} minus Self without activation"
            found.append(_minus(rows[name], rows["no-vector"], what))
    return found


def _marked(record: dict, what: str, above: float = -1.0, below: float = 2.0) -> Comparison:
    """Whether the 95% interval of a share lies between two marks."""
    value, half = record["value"], Z * record["stderr"]
    holds = above < value - half and value + half < below
    return Comparison(
        f"{record['target']}: {what}",
        str(Score(value, record["stderr"])),
        holds,
        (record["artifact"],),
    )


def reads_layer_and_token(records: list[dict]) -> list[Comparison]:
    rows = _pick(records, table="C.1", explainer="self", metric="exact_match")
    return [_marked(row, "layers and token both right", above=READ) for row in rows]


def hardly_says_changed(records: list[dict]) -> list[Comparison]:
    rows = _pick(
        records, table="sec5.2", explainer="untrained", condition="full", metric="predicted_changed"
    )
    return [_marked(row, "untrained says “changed”", below=RARELY) for row in rows]
