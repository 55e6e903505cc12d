"""A table for people: Markdown, CSV and LaTeX."""

import csv
import io
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

TEX = {character: rf"\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "≥": r"$\geq$",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "’": "'",
}


@dataclass(frozen=True)
class Score:
    """A cell: value and standard error on the 0..1 scale, shown scaled to 100."""

    value: float
    stderr: float | None = None
    bold: bool = False
    signed: bool = False

    def __str__(self) -> str:
        text = f"{100 * self.value:{'+' if self.signed else ''}.1f}"
        return text if self.stderr is None else f"{text} ± {100 * self.stderr:.1f}"


@dataclass(frozen=True)
class Table:
    """A table for people. A cell is text, a count or a `Score`; "–" is no number. LaTeX parts
    groups of equal first cells.

    `artifacts`: the checkpoint or run that made each of our rows, which stand first; the paper's
    rows below have none.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | int | Score, ...], ...]
    notes: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()

    def made_by(self) -> list[str]:
        """A note for each artifact: which rows, named by their first two cells, it made."""
        rows: dict[str, dict[str, None]] = {}
        for row, artifact in zip(self.rows, self.artifacts, strict=False):
            rows.setdefault(artifact, {})[", ".join(map(str, row[:2]))] = None
        return [f"`{artifact}`: {'; '.join(names)}" for artifact, names in rows.items()]

    def markdown(self) -> str:
        """GitHub Markdown, the notes as a list below."""

        def cell(value):
            text = str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", "\\n")
            return f"**{text}**" if isinstance(value, Score) and value.bold else text

        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        body = ["| " + " | ".join(map(cell, line)) + " |" for line in lines]
        return (
            "\n".join(
                [
                    self.caption,
                    "",
                    *body,
                    "",
                    *(f"- {note}" for note in (*self.notes, *self.made_by())),
                ]
            ).rstrip()
            + "\n"
        )

    def csv(self) -> str:
        """Plain numbers scaled to 100; a column of scores becomes three: the score, its standard
        error, whether it is bold."""
        scored = [
            any(isinstance(row[i], Score) for row in self.rows) for i in range(len(self.header))
        ]

        def cells(row, triple):
            return [
                part
                for value, three in zip(row, scored, strict=True)
                for part in (triple(value) if three else [value])
            ]

        def numbers(value):
            if not isinstance(value, Score):
                return ["", "", ""]
            return [
                f"{100 * value.value:.4f}",
                "" if value.stderr is None else f"{100 * value.stderr:.4f}",
                value.bold,
            ]

        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(cells(self.header, lambda name: [name, f"{name} (s.e.)", f"{name} (bold)"]))
        writer.writerows(cells(row, numbers) for row in self.rows)
        return out.getvalue()

    def latex(self) -> str:
        """A booktabs table, to be included where `\\usepackage{booktabs}` is."""

        def cell(value):
            return (
                rf"\textbf{{{tex(value)}}}"
                if isinstance(value, Score) and value.bold
                else tex(value)
            )

        def line(row):
            return " & ".join(map(cell, row)) + r" \\"

        body = [line(self.rows[0])] if self.rows else []
        for above, row in pairwise(self.rows):
            body += [r"\midrule"] * (above[0] != row[0]) + [line(row)]
        texts = [
            any(isinstance(row[i], str) and row[i] != "–" for row in self.rows)
            for i in range(len(self.header))
        ]
        columns = "".join("l" if text else "r" for text in texts)
        top = [r"\begin{table}", r"\centering\small", rf"\caption{{{tex(self.caption)}}}"]
        head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(self.header), r"\midrule"]
        notes = [rf"\par\footnotesize {tex(note)}" for note in (*self.notes, *self.made_by())]
        return "\n".join(
            [*top, *head, *body, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""]
        )


def tex(value: object) -> str:
    """Text with LaTeX's special characters escaped; Markdown's backquotes become `\\texttt`."""
    escaped = "".join(
        TEX.get(character, character) for character in str(value).replace("\n", "\\n")
    )
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", escaped)


def save_table(table: Table, folder: Path, name: str) -> list[Path]:
    """Write `name`.md, .csv and .tex."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": table.markdown(), "csv": table.csv(), "tex": table.latex()}
    for kind, text in texts.items():
        (folder / f"{name}.{kind}").write_text(text, encoding="utf-8")
    return [folder / f"{name}.{kind}" for kind in texts]
