"""Notebook 12 and the pages that notebooks become: what is in them, that nothing in them acts or is
fetched, and how the report looks in a real browser."""

import copy
import json
import re
import shutil
import subprocess

import describing
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.figure import Figure
from reading import Page
from test_results import ablation_runs, all_runs, data_run, trained

from introspect_utils.report.claims import CLAIMS
from introspect_utils.report.page import Report
from introspect_utils.runs import record as run_files
from introspect_utils.runs.export import export_page
from introspect_utils.runs.plan import plan
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile

HOSTILE = '<script>document.title = 1</script><img src=x onerror=alert(1)> & "`x`"'
POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


def made_up(run):
    """A made-up run in the place of one that is planned; what the model says is HTML."""
    asked = run.parameters
    if "features" in run.id or "simulator" in run.id:
        made = describing.planned_run(run)
        if "generation" in made[1]:
            made[1]["generation"] = HOSTILE
        return made
    if "ablation" in run.id:
        data, full, untrained = ablation_runs(asked["target"])
        made = {"full": full, "untrained": untrained}.get(asked.get("condition"), data)
        explainer = asked.get("explainer")
        said = made[1].replace({"explainer": {asked["target"]: explainer}})
        return made[0] | {"explainer": explainer}, said
    if "condition" not in asked:  # joint and ask runs have no statistics: they are not data
        made, said = data_run()
        return (made if run.id.startswith("data-") else made | {"statistics": {}}), said
    explainer = asked["target"] if asked["explainer"] == "self" else asked["explainer"]
    names = {"target": asked["target"], "explainer": explainer}
    return trained(asked["condition"], asked["seed"], asked["n_train"], **names)


def drawn_as_svg(savefig):
    """`Figure.savefig` that draws what the report shows, and no PNG or PDF."""

    def save(figure, path, **options):
        if path.suffix == ".svg":
            savefig(figure, path, **options)
        else:
            path.write_bytes(b"not drawn")

    return save


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """(root, notebook 12 of the smoke profile executed in this process on made-up runs, the report
    in it)."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(paths, "ROOT", root)
        patched.setattr(Figure, "savefig", drawn_as_svg(Figure.savefig))
        *runs, tables = plan(load_profile("smoke"))
        for run in runs:
            made, said = made_up(run)
            folder = run.outputs[0].parent
            fields = {"id": folder.name, "target": run.parameters["target"]}
            run_files.write_run(folder, made | fields, said)
        (root / "figures/smoke/tables").mkdir(parents=True)
        (root / "figures/smoke/tables/table4.md").write_text("of earlier results")
        notebook = nbformat.read(paths.REPO / "notebooks" / f"{tables.notebook}.ipynb", 4)
        shell = InteractiveShell.instance()
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            source = (
                "profile = 'smoke'"
                if "parameters" in cell.metadata.get("tags", [])
                else cell.source
            )
            with capture_output() as captured:
                result = shell.run_cell(source)
            result.raise_error()
            shown = [output.data for output in captured.outputs]
            if result.result is not None:
                shown.append(shell.display_formatter.format(result.result)[0])
            cell.outputs = [nbformat.v4.new_output("display_data", data=data) for data in shown]
    yield root, notebook, shell.user_ns["report"]
    InteractiveShell.clear_instance()


@pytest.fixture
def report(executed, monkeypatch):
    """The report that notebook 12 shows."""
    monkeypatch.setattr(paths, "ROOT", executed[0])
    return copy.copy(executed[2])


@pytest.fixture(scope="module")
def html(executed):
    """report.html."""
    root, notebook, _ = executed
    nbformat.write(notebook, root / "executed.ipynb")
    export_page(root / "executed.ipynb", root / "figures/smoke/report.html", code=False)
    return (root / "figures/smoke/report.html").read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_notebook_12_writes_what_its_run_promises(executed, html, monkeypatch):
    root = executed[0]
    monkeypatch.setattr(paths, "ROOT", root)
    assert all(path.stat().st_size for path in plan(load_profile("smoke"))[-1].outputs)
    folder = root / "figures" / "smoke"
    assert (folder / "tables" / "table2_vector.md").exists() and (folder / "hero.png").exists()
    assert not (folder / "tables" / "table4.md").exists()  # there is one target
    assert (paths.REPO / "params" / "smoke.yaml").read_text() in (
        folder / "settings.yaml"
    ).read_text()


def test_the_first_screen_is_the_answer_and_the_rest_is_folded(page):
    first = page.text[: page.text.index("Ten predictions")]
    assert f"{len(CLAIMS)} claims" in first and "runs of the profile smoke are finished" in first
    assert "tiny-llama explained by" in first
    folded = [name for name, _ in page.elements].index("details")
    summaries = page.elements[folded:]
    assert sum(name == "img" for name, _ in page.elements[:folded]) == 1  # the hero
    assert len([name for name, _ in summaries if name == "summary"]) >= 7
    assert "`" not in first and ".ipynb" not in first


def test_its_own_files_are_there(page, executed):
    folder = executed[0] / "figures" / "smoke"
    assert len(page.files) > 30 and all((folder / name).is_file() for name in page.files)
    assert len(page.ids) == len(set(page.ids))


def test_title_and_preview(page):
    named = {
        meta.get("name") or meta.get("property"): meta.get("content") for meta in page.all("meta")
    }
    assert named["og:title"] == "Explaining their own computations: what was found"
    assert named["description"].startswith("A language model is trained to describe")
    assert named["og:image"] == "hero.png" and "width=device-width" in named["viewport"]


def test_nothing_is_fetched_and_nothing_runs(page, html):
    assert not {"script", "link", "iframe"} & {name for name, _ in page.elements}
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    images = page.all("img")
    assert images and all(image["src"].startswith("data:") and image["alt"] for image in images)
    assert not re.search(r"url\(|@import", html)
    [policy] = [
        meta["content"] for meta in page.all("meta") if meta.get("http-equiv", "").startswith("C")
    ]
    assert policy == POLICY


def test_what_a_model_wrote_is_text(page, html):
    assert page.text.count(HOSTILE) >= 10
    assert "<script" not in html and "onerror=alert(1)&gt;" in html


def test_every_claim_has_its_verdict_in_a_table(page, report):
    assert all(claim.sentence in page.text and claim.rule in page.text for claim in CLAIMS)
    rows = report.claims_table().rows
    verdicts = [verdict for claim in CLAIMS for verdict in claim.check(report.records)]
    names = {"ablation": "hints"}
    assert [row[1:3] for row in rows] == [(names.get(v.task, v.task), v.outcome) for v in verdicts]
    assert rows[0][3] == f"{verdicts[0].holding} of {len(verdicts[0].comparisons)}"


def test_findings_have_the_numbers_of_the_records(report):
    [own] = [
        r
        for r in report.records
        if (r["table"], r["explainer"], r["condition"], r["metric"], r["target"])
        == ("3", "self", "full", "exact_match", "tiny-llama")
    ]
    said = report.findings().data
    assert f"predicts {100 * own['value']:.1f} ± {100 * own['stderr']:.1f} exactly" in said
    assert "{" not in said
    report.records = [r for r in report.records if not r["table"].startswith("3")]
    assert "Hints" not in report.findings().data and "Features" in report.findings().data


def test_ten_predictions_are_drawn_at_random_the_same_each_time(report):
    first, second = (report.predictions().data for _ in range(2))
    assert first == second and Page(first).text.count(HOSTILE) == 10


def test_without_features_the_first_task_is_shown():
    report = object.__new__(Report)
    report.runs, report.examples = all_runs(), {}
    shown = Page(report.predictions().data)
    assert "right" in shown.text and "wrong: M’s answer is" in shown.text


# --- the pages of notebooks


def exported(folder, *cells, code=True):
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    nbformat.write(notebook, folder / "executed.ipynb")
    export_page(folder / "executed.ipynb", folder / "page.html", code=code)
    return (folder / "page.html").read_text()


def test_every_formula_of_the_notebooks_is_a_picture(tmp_path):
    notebooks = [nbformat.read(path, 4) for path in (paths.REPO / "notebooks").glob("*.ipynb")]
    cells = [cell for notebook in notebooks for cell in notebook.cells]
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    page = Page(exported(tmp_path, *map(nbformat.v4.new_markdown_cell, texts)))
    assert "$" not in page.text and "\\" not in page.text
    assert len(page.all("img")) > 20
    assert all(image["src"].startswith("data:") for image in page.all("img"))


def test_a_formula_is_text_where_it_cannot_be_drawn(tmp_path):
    text = exported(tmp_path, nbformat.v4.new_markdown_cell("# A\n\n$x_1$ and $\\nosuch{x}$"))
    assert Page(text).all("img")[0]["alt"] == "x_1" and "<code>\\nosuch{x}</code>" in text


def test_streams_are_put_together_and_widgets_left_out(tmp_path):
    cell = nbformat.v4.new_code_cell("print(1)")
    bars = [f"\r{n}%|###   |" for n in range(100)] + ["\r100%|######|\n"]
    cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text=bar) for bar in bars]
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "VBox()"}
    script = {"application/javascript": "alert(1)", "text/plain": "js"}
    cell.outputs += [nbformat.v4.new_output("display_data", data=data) for data in (widget, script)]
    text = exported(tmp_path, nbformat.v4.new_markdown_cell("# A"), cell)
    assert "<script" not in text and "alert" not in text
    assert "100%|######|" in text and "50%|" not in text
    assert text == exported(tmp_path, *nbformat.read(tmp_path / "executed.ipynb", 4).cells)


# --- in Chromium


def browse(folder, html, *widths):
    """(width, scroll width, natural widths of the images) as windows of these widths have them."""
    probe = """<script>addEventListener("load", () => { const root = document.documentElement;
    document.querySelectorAll("details").forEach(each => each.open = true);
    document.title = JSON.stringify([root.clientWidth, root.scrollWidth,
      [...document.images].map(image => image.naturalWidth && image.clientWidth)]); });</script>"""
    allowed = html.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    (folder / "page.html").write_text(allowed.replace("</body>", f"{probe}</body>"))
    frame = '<iframe src="page.html" width="{}" height="900" style="border:0"></iframe>'
    frames = "".join(map(frame.format, widths))
    frames += """<pre></pre><script>addEventListener("load", () => setTimeout(() =>
      document.querySelector("pre").textContent = `[${[...document.querySelectorAll("iframe")]
      .map(each => each.contentDocument.title)}]`, 500))</script>"""
    (folder / "frame.html").write_text(frames)
    flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files"
    flags += f" --dump-dom --virtual-time-budget=20000 --user-data-dir={folder / 'user'}"
    line = [CHROMIUM, *flags.split(), (folder / "frame.html").as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=True)
    return json.loads(re.search(r"<pre>(.+)</pre>", done.stdout)[1])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt-get install chromium)")
def test_in_chromium_nothing_is_wider_than_the_window(html, tmp_path):
    widths = 390, 1280
    for width, (window, scrolls, images) in zip(
        widths, browse(tmp_path, html, *widths), strict=True
    ):
        assert window == width and scrolls <= width
        # on a phone a wide figure keeps 38rem, to be read, and is scrolled within its own box
        assert images and all(0 < image <= max(width, 608) for image in images), images
