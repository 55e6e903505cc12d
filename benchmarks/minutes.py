"""Where the minutes of a profile go: its executed notebooks, and the cells that take most. `python
-m benchmarks.minutes mini`.

The seconds are the clock's, of runs that shared the machine with one another; with two at a time
their sum is about twice what `./run_all.sh` took.
"""

import argparse
from pathlib import Path

import nbformat

from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.paths import artifacts_dir

SHOWN = 15  # cells


def cell_seconds(path: Path) -> list[tuple[float, str]]:
    """(seconds, first line that does something) of each code cell that papermill executed."""
    cells = [
        cell
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and cell.source
    ]
    return [
        (cell.metadata.get("papermill", {}).get("duration") or 0.0, _says(cell.source))
        for cell in cells
    ]


def _says(source: str) -> str:
    lines = [line for line in source.splitlines() if line.strip()]
    return (
        "imports and settings" if lines[0].startswith(("import", "from")) else " ".join(lines)[:90]
    )


def minutes(folder: Path) -> str:
    """The table as Markdown. Raises `UserError` where no notebook was executed."""
    runs = {path.stem: cell_seconds(path) for path in sorted(folder.glob("*.ipynb"))}
    if not runs:
        raise UserError(f"there is no executed notebook in {folder}: ./run_all.sh makes them")
    total = sum(seconds for cells in runs.values() for seconds, _ in cells)
    of_runs = sorted(
        ((sum(s for s, _ in cells), name) for name, cells in runs.items()), reverse=True
    )
    of_cells = sorted(
        ((s, f"{name}: `{said}`") for name, cells in runs.items() for s, said in cells),
        reverse=True,
    )
    starting = sum(
        s for cells in runs.values() for s, said in cells if said == "imports and settings"
    )
    lines = [
        f"{len(runs)} runs, {total / 60:.1f} minutes together, {starting / 60:.1f} of them "
        "imports.",
        "",
    ]
    for title, rows in (("run", of_runs), ("cell", of_cells[:SHOWN])):
        lines += [f"| minutes | share | {title} |", "| --- | --- | --- |"]
        lines += [
            f"| {seconds / 60:.1f} | {seconds / total:.0%} | {name} |" for seconds, name in rows
        ] + [""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the minutes of a profile's runs go.")
    parser.add_argument("profile", nargs="?", default="mini")
    print(minutes(artifacts_dir(parser.parse_args().profile) / "notebooks"))


if __name__ == "__main__":
    command(main)
