"""A table for people: Markdown, HTML, CSV and LaTeX."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

CODE = re.compile(r"`([^`]*)`")  # in Markdown
NUMBER = re.compile(r"[-+\d.,e/– ±]+")


@dataclass(frozen=True)
class Score:
    """A cell: value, standard error and p on the 0..1 scale; the first two are shown × 100."""

    value: float
    stderr: float | None = None
    bold: bool = False
    signed: bool = False
    p: float | None = None

    def __str__(self) -> str:
        text = f"{100 * self.value:{'+' if self.signed else ''}.1f}"
        text += "" if self.stderr is None else f" ± {100 * self.stderr:.1f}"
        return text if self.p is None else f"{text} (p = {self.p:.2g})"


@dataclass(frozen=True)
class Table:
    """Cells are text, counts or `Score`; "–" is no number. `artifacts`: what made each of our rows,
    which stand first; the paper's rows below have none."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | int | Score, ...], ...]
    notes: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()

    def all_notes(self) -> list[str]:
        """The notes, and one for each artifact: which rows, named by their first two cells, it
        made."""
        rows: dict[str, dict[str, None]] = {}
        for row, artifact in zip(self.rows, self.artifacts, strict=False):
            rows.setdefault(artifact, {})[", ".join(map(str, row[:2]))] = None
        return [*self.notes, *(f"`{each}`: {'; '.join(names)}" for each, names in rows.items())]

    def lines(self, text: Callable[[str], str], bold: str) -> list[list[str]]:
        """The header and the rows as text in which special characters are escaped, and bold cells
        marked."""

        def marked(cell: str | int | Score) -> str:
            mark = bold if isinstance(cell, Score) and cell.bold else "{}"
            return mark.format(text(str(cell)))

        return [[marked(cell) for cell in line] for line in (self.header, *self.rows)]

    def markdown(self) -> str:
        """GitHub Markdown, the notes as a list below."""
        signs = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "\\n"})
        head, *body = self.lines(lambda cell: cell.translate(signs), "**{}**")
        lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
        notes = [f"- {note}" for note in self.all_notes()]
        return "\n".join([self.caption, "", *lines, "", *notes]).rstrip() + "\n"

    def _repr_html_(self) -> str:
        """HTML: a wide table scrolls, numbers stand flush right, the notes are folded."""
        head, *body = self.lines(escape, "<b>{}</b>")
        columns = [list(map(str, column)) for column in zip(*self.rows, strict=True)]
        tags = ['<td class="number">' if all(map(NUMBER.fullmatch, c)) else "<td>" for c in columns]
        html = "<tr><th>" + "</th><th>".join(head) + "</th></tr>"
        for line in body:
            cells = [f"{tag}{cell}</td>" for tag, cell in zip(tags, line, strict=True)]
            html += f"<tr>{''.join(cells)}</tr>"
        notes = [CODE.sub(r"<code>\1</code>", escape(note)) for note in self.all_notes()]
        notes = "".join(f"<li>{note}</li>" for note in notes)
        notes = f"<details><summary>Notes</summary><ul>{notes}</ul></details>" if notes else ""
        wide = f'<div class="wide"><table>{html}</table></div>'
        return f"<figure><figcaption>{escape(self.caption)}</figcaption>{wide}{notes}</figure>"

    def csv(self) -> str:
        """Numbers × 100; a column of scores becomes three: score, standard error, whether bold."""
        columns = {}
        for name, cells in zip(self.header, zip(*self.rows, strict=True), strict=True):
            columns[name] = cells
            if any(isinstance(cell, Score) for cell in cells):
                scores = [cell if isinstance(cell, Score) else None for cell in cells]
                columns[name] = [s and f"{100 * s.value:.4f}" for s in scores]
                errors = [s and s.stderr for s in scores]
                columns[f"{name} (s.e.)"] = [e if e is None else f"{100 * e:.4f}" for e in errors]
                columns[f"{name} (bold)"] = [s and s.bold for s in scores]
        return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")

    def latex(self) -> str:
        """A booktabs table, to be included where `\\usepackage{booktabs}` is."""
        head, *body = self.lines(tex, r"\textbf{{{}}}")
        look = {"caption": tex(self.caption), "column_format": "l" * len(head)}
        made = pd.DataFrame(body, columns=head).to_latex(index=False, **look)
        notes = [rf"\par\footnotesize {tex(note)}" for note in self.all_notes()]
        made = made.replace("\\begin{table}", "\\begin{table}\n\\centering\\small")
        return made.replace("\\end{table}", "\n".join([*notes, "\\end{table}"]))


SIGNS = {"±": r"$\pm$", "×": r"$\times$", "≥": r"$\geq$", "Δ": r"$\Delta$", "→": r"$\to$"}
SIGNS |= {"–": "--", "“": "``", "”": "''", "’": "'", "…": r"\ldots{}", "\n": r"\textbackslash{}n"}
SIGNS |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SIGNS |= {character: rf"\{character}" for character in "&%$#_{}"}


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped; Markdown's backquotes become `\\texttt`."""
    text = CODE.sub("\0\\1\1", text).translate(str.maketrans(SIGNS))
    return text.replace("\0", r"\texttt{").replace("\1", "}")


def save_table(table: Table, folder: Path, name: str) -> list[Path]:
    """Write `name`.md, .csv and .tex."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": table.markdown(), "csv": table.csv(), "tex": table.latex()}
    for kind, text in texts.items():
        (folder / f"{name}.{kind}").write_text(text, encoding="utf-8")
    return [folder / f"{name}.{kind}" for kind in texts]
