"""Put the numbers of `figures/*/results.json` into the Markdown pages, or say which differ.

    python scripts/page_numbers.py           # refresh README.md and figures/README.md
    python scripts/page_numbers.py --check   # change nothing, list what is wrong

A number in the text names its record in a comment behind it, by values that only this record has:

    The self-explainer scores 51.5 ± 2.5<!--= 1, sae, self, full, judge-->.

In a table the comments stand in the heads of the columns and the first cells of the rows; a cell
belongs to the record that has both. Where one value alone is not clear: `target=gemma3-270m`. Other
parts of a record: `paper:`, `n:`, `n_train:` before the values. Another profile than small: `mini/`
before all. Values are shown times 100.
"""

import argparse
import json
import re
import sys
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "figures/README.md")
NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?(?: ± \d+(?:\.\d+)?)?"
BOUND = re.compile(rf"({NUMBER})(%?\**)<!--=(.*?)-->")
KEY = re.compile(r"<!--=(.*?)-->")
FIELDS = ("table", "task", "data", "target", "explainer", "condition", "metric")
NO_RESULT = (  # what has digits and is no result
    r"(?s)```.*?```",
    r"(?m)^    .*$",
    r"`[^`]*`",
    r"(?s)<!--.*?-->",
    r"\[[^]]*\]\(notebooks/[^)]*\)",
    r"\]\([^)]*\)",
    r"https?://\S+",
    r"(?:Tables?|Figures?|[Ss]ections?|[Ee]q\.|equation|Python|arXiv|[Nn]otebooks?|[Ll]ayers?"
    r"|[Ss]eeds?|[Vv]ersions?)"
    r" [\d.:]+(?:(?:,| and| to) [\d.]+)*",
    r"\b[\w.@-]*[A-Za-z][\w.@-]*",
    r"\b\d+ (?:minutes|hours|cores|core|GPUs?|GB|MB)\b",
    r"× 100\b",
)


@cache
def records(profile: str) -> list[dict]:
    return json.loads((REPO / "figures" / profile / "results.json").read_text("utf-8"))


def render(text: str, key: str) -> str:
    """The number of the record of `key`, with the sign, digits and error that `text` shows."""
    profile, _, key = key.strip().rpartition("/")
    part, _, key = key.rpartition(":")
    values = {value.strip() for value in key.split(",")}
    matching = [record for record in records(profile or "small") if values <= _values(record)]
    if len(matching) != 1:
        raise LookupError(f"{len(matching)} records of {profile or 'small'} have {key}")
    [record] = matching
    if part in ("n", "n_train"):
        return f"{record[part]:,}"
    value, (shown, _, error) = record[part or "value"], text.partition(" ± ")
    if value is None:
        raise LookupError(f"there is no {part} of {key}")
    if record["metric"] == "distinct":  # a count
        return f"{value:,.0f}"
    sign = "+" if shown.startswith("+") else ""
    number = f"{100 * value:{sign}.{_digits(shown)}f}"
    return number + (f" ± {100 * record['stderr']:.{_digits(error)}f}" if error else "")


def _values(record: dict) -> set[str]:
    named = record | {"seeds": len(record["seeds"])}
    alone = {str(record[field]) for field in FIELDS}
    return alone | {f"{field}={named[field]}" for field in (*FIELDS, "n_train", "seeds")}


def _digits(number: str) -> int:
    return len(number.partition(".")[2])


def read(page: str) -> tuple[str, list[str]]:
    """The page with every bound number as its record has it, and what is wrong: keys that name no
    one record, numbers without a key."""
    lines, rest, wrong, heads = [], [], [], []

    def filled(text: str, key: str) -> str:
        try:
            return render(text, key)
        except LookupError as error:
            wrong.append(str(error))
            return text

    for line in page.splitlines():
        cells = re.split(r"(?<!\\)\|", line.strip()[1:-1]) if line.startswith("|") else []
        keys = [" ".join(KEY.findall(cell)) for cell in cells]
        if not cells:
            heads = []
            rest.append(BOUND.sub("", line))
            line = BOUND.sub(lambda m: f"{filled(m[1], m[3])}{m[2]}<!--={m[3]}-->", line)
        elif not heads:
            heads = keys
            rest.append(line)
        else:
            pairs = zip(cells, heads, strict=True)
            rest.append(" ".join(cell for cell, head in pairs if not (head and keys[0])))
            if keys[0]:
                for i, head in enumerate(heads):
                    key = f"{keys[0]},{head}"
                    if head:
                        cells[i] = re.sub(NUMBER, lambda m, k=key: filled(m[0], k), cells[i])
                line = f"|{'|'.join(cells)}|"
        lines.append(line)
    left = "\n".join(rest)
    for pattern in NO_RESULT:
        left = re.sub(pattern, lambda m: "\n" * m[0].count("\n"), left)
    for line, remainder in zip(lines, left.split("\n"), strict=True):
        if re.search(r"\d", remainder):
            wrong.append(f"{remainder.strip()!r} belongs to no record, in: {line}")
    return "\n".join(lines) + "\n", wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, list what is wrong")
    asked = parser.parse_args()
    faults = []
    for name in PAGES:
        page = (REPO / name).read_text("utf-8")
        right, wrong = read(page)
        if not asked.check:
            (REPO / name).write_text(right, "utf-8")
            page = right
        pairs = zip(page.splitlines(), right.splitlines(), strict=True)
        wrong += [f"is {old!r}, should be {new!r}" for old, new in pairs if old != new]
        faults += [f"{name}: {fault}" for fault in wrong]
    sys.exit("\n".join(faults) or 0)
