"""The report: what is in it, that nothing in it acts or is fetched, and how it looks in a real
browser."""

import json
import re
import shutil
import subprocess

import describing
import nbformat
import pytest
from reading import Page
from test_results import ablation_runs, all_runs

from introspect_utils.report import feature_tables, html_report, results, style
from introspect_utils.report import tables as report
from introspect_utils.report.claims import CLAIMS
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile

HOSTILE = '<script>document.title = 1</script><img src=x onerror=alert(1)> & "`x`"'
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --virtual-time-budget=20000"
PROBE = """<script>
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const light = colour => numbers(colour).slice(0, 3).map(c => linear(c / 255))
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const behind = e => !e ? "rgb(255, 255, 255)" : numbers(getComputedStyle(e).backgroundColor)[3] === 0 ? behind(e.parentElement)
  : getComputedStyle(e).backgroundColor;
addEventListener("load", () => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), contrast = {};
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.tagName === "SCRIPT") continue;
    const pair = [light(getComputedStyle(e).color), light(behind(e))];
    contrast[e.tagName + "." + e.className] = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
  }
  const images = [...document.images].map(image => image.naturalWidth);
  const root = document.documentElement;
  parent.postMessage({ contrast, images, width: root.clientWidth, scrolls: root.scrollWidth }, "*");
});
</script>"""
FRAME = """<!DOCTYPE html><iframe src="page.html" width="{width}" height="900" style="border: 0"></iframe><pre></pre>
<script>addEventListener("message", e => document.querySelector("pre").textContent = JSON.stringify(e.data))</script>"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(root, runs, the arguments of `report`) of all three tasks; a model has written HTML."""
    root = tmp_path_factory.mktemp("report")
    features = describing.feature_runs()
    for _, said in features:
        said["generation"] = HOSTILE
    runs = [*features, *all_runs(), *ablation_runs()]
    records = results.records(runs)
    tables = {
        "table1": feature_tables.table1(records),
        "table2": report.table2(records),
        "table7": report.table7(records),
    }
    profile = load_profile("smoke")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(paths, "ROOT", root)
        style.save_figure(
            report.figure_patching(records), paths.figures_dir("smoke"), "figure_patching"
        )
        yield root, runs, (profile, runs, records, tables, ["figure_patching"])


@pytest.fixture(scope="module")
def text(made):
    return html_report.write_report(*made[2]).read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_is_whole_and_its_own_links_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(page.ids)
    assert {
        "summary",
        "claims",
        "tables",
        "figures",
        "predictions",
        "runs",
        "settings",
        "table1",
        "table7",
    } <= set(page.ids)
    assert page.all("html") == [{"lang": "en"}] and any(
        meta.get("name") == "viewport" for meta in page.all("meta")
    )
    assert (paths.REPO / "params" / "smoke.yaml").read_text() in page.text


def test_nothing_is_fetched_and_nothing_runs(page, text):
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(
        image["src"].startswith("data:") and image["alt"] for image in page.all("img")
    ) and page.all("img")
    assert not re.search(r"url\(|@import", text)
    [policy] = [
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_what_a_model_wrote_is_text(page, text):
    assert page.text.count(HOSTILE) == html_report.N_PREDICTIONS
    assert "<script" not in text and "onerror=alert(1)&gt;" in text


def test_every_claim_has_its_verdict_in_words(made, page):
    records = made[2][2]
    for number, claim in enumerate(CLAIMS, 1):
        assert (
            f"claim-{number}" in page.ids
            and claim.sentence in page.text
            and claim.rule in page.text
        )
    verdicts = [
        span["class"].removeprefix("verdict ").replace("-", " ", 1)
        for span in page.all("span")
        if "class" in span
    ]
    verdicts = [
        verdict for verdict in verdicts if verdict in ("supported", "not supported", "not tested")
    ]
    assert verdicts[-10:] == [claim.check(records)[0] for claim in CLAIMS]


def test_every_row_of_ours_leads_to_its_run(made, page):
    tables = made[2][3]
    ours = sum(len(table.artifacts) for table in tables.values())
    links = [a for a in page.all("a") if a["href"].startswith("#run-")]
    assert ours and len(links) >= ours
    by_number = {
        f"#run-{i}": run["checkpoint"] or f"runs/{run['id']}"
        for i, (run, _) in enumerate(made[1], 1)
    }
    assert all(by_number[a["href"]] == a["title"] for a in links)


def test_the_same_runs_give_the_same_bytes(made, text):
    assert html_report.report(*made[2]) == text


def test_the_first_predictions_are_those_of_the_largest_self_explainer(made):
    table = html_report.first_predictions(made[1])
    assert len(table.rows) == 20 and set(table.artifacts) == {
        f"artifacts/mini/{describing.TARGET}-self-1000-0"
    }
    assert [row[0] for row in table.rows[:3]] == ["sae/0/0", "sae/1/1", "sae/2/2"] and table.rows[
        0
    ][3] == HOSTILE
    assert html_report.first_predictions(all_runs()) is None


def test_executed_notebooks_are_linked_where_there_are_any(made, text):
    root, runs, arguments = made
    profile, run = arguments[0], runs[0][0]
    assert html_report.export_notebooks(profile, runs) == [] and "html/" not in "".join(
        Page(text).files
    )
    executed = root / "artifacts" / "smoke" / "notebooks" / f"{run['id']}.ipynb"
    executed.parent.mkdir(parents=True)
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Executed")]), executed
    )
    [exported] = html_report.export_notebooks(profile, runs)
    try:
        linked = Page(html_report.report(*arguments)).files
    finally:
        exported.unlink()
    assert f"../../artifacts/smoke/html/{run['id']}.html" in linked
    assert (
        paths.figures_dir("smoke") / linked[-1]
    ).resolve().parent == root / "figures" / "smoke" / "runs" / runs[-1][0]["id"]


def test_runs_of_before_versions_were_recorded_are_shown(made):
    profile, runs, *rest = made[2]
    old = [
        ({key: run[key] for key in run.keys() - {"finished", "versions"}}, said)
        for run, said in runs
    ]
    text = Page(html_report.report(profile, old, *rest)).text
    assert "0123456789ab" in text and "Versions" not in text and "2026-11-21" not in text


# --- in Chromium
# ------------------------------------------------------------------------------------------------------


def browse(folder, html, width):
    """(what PROBE measured in a window of `width`, what the console said)."""
    folder.mkdir()
    allowed = html.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    (folder / "page.html").write_text(allowed.replace("</body>", f"{PROBE}</body>"))
    (folder / "frame.html").write_text(FRAME.format(width=width))
    line = [
        CHROMIUM,
        *FLAGS.split(),
        f"--user-data-dir={folder / 'user'}",
        "--dump-dom",
        (folder / "frame.html").as_uri(),
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=True)
    found = re.search(r"<pre>(.+)</pre>", done.stdout)
    return json.loads(found[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)"
)


@chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_in_chromium_it_is_whole_readable_and_quiet(text, tmp_path, width):
    measured, console = browse(tmp_path / "browser", text, width)
    assert console == []
    assert measured["images"] and all(measured["images"])
    assert measured["width"] == width and measured["scrolls"] <= width
    assert len(measured["contrast"]) > 10 and min(measured["contrast"].values()) >= 4.5, measured[
        "contrast"
    ]


@chromium
def test_the_browser_sees_what_is_wrong(tmp_path):
    wrong = "<p style='width: 500px; color: #999'>faint</p><img src='data:image/png;base64,eA=='><script>nothing()</script>"
    measured, console = browse(
        tmp_path / "browser", f"<!DOCTYPE html><html><body>{wrong}</body></html>", 390
    )
    assert (
        measured["images"] == [0]
        and measured["scrolls"] > 390
        and measured["contrast"]["P."] == pytest.approx(2.85, abs=0.01)
    )
    assert len(console) == 1 and "nothing is not defined" in console[0]
