"""An executed notebook as one HTML page that asks no other host for anything: formulas are
pictures, images are inside, and the page's own policy lets no script run."""

import base64
import io
import re
from pathlib import Path

from introspect_utils.settings.paths import replaced

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
TEX = (  # what matplotlib's mathtext writes otherwise
    (r"\\(mathcal|mathbb) (\w)", r"\\\1{\2}"),
    (r"\\[bB]igg?[lr]?(?![a-z])", ""),
    (r"\\[lr]Vert", r"\\Vert "),
    (r"\\tag\{(\d+)\}", r"\\qquad (\1)"),
    (r"\s+", " "),
)


def export_page(executed: Path, page: Path, code: bool = True) -> None:
    """Write an executed notebook as `page`; where its `code` is left out, sections whose heading is
    tagged "fold" are folded. Title and description are its first heading and what follows it."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "raw"]
    first = notebook.cells[0].source.strip().split("\n")
    picture = "hero.png" if (page.parent / "hero.png").exists() else ""
    about = {"title": re.sub(r"^#* *(\d+ · )?", "", first[0]), "picture": picture}
    about["description"] = " ".join(" ".join(first[1:]).split())[:300] or about["title"]
    opened = False
    if not code:
        notebook.cells[0].source = "\n".join([f"# {about['title']}", *first[1:]])
    for cell in notebook.cells if not code else []:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading, _, rest = cell.source.partition("\n")
            end, opened = "</details>\n\n" * opened, "fold" in cell.metadata.get("tags", [])
            start = f"<details><summary><h2>{heading[3:]}</h2></summary>\n\n"
            cell.source = end + (start + rest if opened else cell.source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{number}"  # papermill's own are other ones each time
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(_picture, cell.source)
    if opened:
        notebook.cells.append(nbformat.v4.new_markdown_cell("</details>", id="end"))
    exporter = HTMLExporter(
        template_name="page",
        extra_template_basedirs=[str(Path(__file__).parent)],
        preprocessors=["nbconvert.preprocessors.CoalesceStreamsPreprocessor"],
        exclude_input=not code,
        exclude_anchor_links=True,
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    with replaced(page) as part:
        body, _ = exporter.from_notebook_node(notebook, {"page": about})
        part.write_text(body, encoding="utf-8")


def _picture(formula: re.Match) -> str:
    """A formula as a picture with the TeX as its text; as code where mathtext cannot write it."""
    import matplotlib
    from matplotlib.mathtext import math_to_image

    tex = formula[1] or formula[2]
    for pattern, other in TEX:
        tex = re.sub(pattern, other, tex)
    out, look = io.BytesIO(), {"mathtext.fontset": "cm", "svg.hashsalt": "x", "font.size": 12}
    try:
        with matplotlib.rc_context(look):
            depth = math_to_image(f"${tex.strip()}$", out, dpi=72, format="svg")
    except ValueError:
        return f"`{tex.strip()}`"
    svg = re.sub(rb"<metadata>.*?</metadata>", b"", out.getvalue(), flags=re.DOTALL)  # has a date
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    alt = tex.strip().replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    image = f'<img class="math" style="vertical-align:-{depth:.1f}pt" src="{source}" alt="{alt}">'
    return f"\n\n{image}\n\n" if formula[1] else image
