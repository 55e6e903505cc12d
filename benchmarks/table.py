"""The table of benchmarks/README.md from the result files: `python -m benchmarks.table`."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import RESULTS
from introspect_utils.report.table import Table

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- written by python -m benchmarks.table -->\n", "<!-- end -->\n"
HEADER = ("comparison", "n", "peer", "ours", "peer's", "ratio", "to reach", "floor reached")


def cost(value: float, record: dict) -> str:
    """What one unit costs: its memory, or how many there are a second."""
    if record["measure"] == "peak_memory":
        return f"{value:,.0f} MB"
    return f"{1 / value:.3g} a second"


def rows(record: dict) -> list[tuple[str, ...]]:
    """A line for each peer of a comparison."""
    found = []
    share = (
        f"{record['share_of_floor']:.0%}"
        if record["share_of_floor"] and record["measure"] == "seconds"
        else "–"
    )
    for peer in record["peers"]:
        in_dtype = "" if record.get("dtype", "float32") == "float32" else f", {record['dtype']}"
        line = (
            f"{record['name']}: {record['unit']}{in_dtype}",
            record["n"],
            peer["peer"],
            cost(record["ours"], record),
        )
        if "ratio" not in peer:
            found.append((*line, "not installed", "–", f"{peer['target']}", share))
            continue
        spread = f"{peer['ratio']:.2f} ({peer['lowest']:.2f} to {peer['highest']:.2f})"
        mark = "" if round(peer["ratio"], 2) >= peer["target"] else ", **not reached**"
        found.append((*line, cost(peer["cost"], record), spread, f"{peer['target']}{mark}", share))
    return found


def measured(record: dict) -> str:
    """Where and when a result file was made."""
    beside = (
        f", beside other runs (load {record['load_of_others']})"
        if record["load_of_others"] >= 0.5
        else ""
    )
    cores = f"{record['cpu']}, {record['threads']} of {record['cores']} cores{beside}"
    return f"{cores}; {record['date']}, commit {record['commit']}"


def versions(record: dict) -> str:
    return ", ".join(f"{package} {version}" for package, version in record["versions"].items())


def by_names(records: list[dict], say: Callable[[dict], str]) -> list[str]:
    """What is to be said of the records, once for all of which it is the same."""
    said: dict[str, list[str]] = {}
    for record in records:
        said.setdefault(say(record), []).append(record["name"])
    return [f"{', '.join(names)}: {text}" for text, names in said.items()]


def table(records: list[dict]) -> str:
    """The Markdown of all result files: ratios, import times, growth, and where they were
    measured."""
    lines = [row for record in records if "peers" in record for row in rows(record)]
    notes, named = [], {record["name"]: record for record in records}
    if "import_time" in named:
        times = named["import_time"]["seconds"].items()
        said = ", ".join(
            f"`{module}` {statistics.median(of_module):.2f} s" for module, of_module in times
        )
        notes.append(f"import: {said}; the first is to be under {named['import_time']['target']} s")
    if "growth" in named:
        sweeps = named["growth"]["sweeps"].items()
        said = "; ".join(
            f"{what}: time n^{of['slope']:.2f}, memory n^{of['slope_mb']:.2f}"
            for what, of in sweeps
        )
        notes.append(f"growth ([figure](results/growth.png)): {said}")
    notes += by_names(records, measured) + by_names(records, versions)
    return Table(
        "Ratio: peer's cost over ours, the median of interleaved runs (lowest to highest).",
        HEADER,
        lines,
        notes,
    ).markdown()


def main() -> None:
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + table(records) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
