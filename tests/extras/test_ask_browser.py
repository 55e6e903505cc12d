"""Notebook 13 in JupyterLab in Chromium: its cells run, and a click on a token changes the answer.

The picture in docs/notebooks.md is what `drive` photographs of a run of mini: drive(folder, root, "mini",
"smollm2-135m-instruct").
"""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
import websocket
from test_ablation_notebooks import execute

from introspect_utils.runs import record
from introspect_utils.runs.beside import ASK
from introspect_utils.runs.due import upstream
from introspect_utils.runs.plan import plan
from introspect_utils.settings import paths
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SETTINGS = {  # of JupyterLab: no cell is left undrawn, no pop-up about news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
ANSWER = "[...document.querySelectorAll('.widget-html-content')].at(-1)?.innerText ?? ''"
TOKENS = "[...document.querySelectorAll('button.jupyter-button:not(.widget-toggle-button)')]"
BOX = "JSON.stringify(document.querySelector('.widget-vbox').getBoundingClientRect())"
KERNEL = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
PATIENCE = 600  # seconds, for a busy machine


@contextmanager
def started(line, **settings):
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def waited(found):
    """The first true value of `found()`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if value := found():
                return value
        except (URLError, OSError, KeyError):
            pass
        time.sleep(0.3)
    raise AssertionError("nothing came of waiting")


class Page:
    """A page of a Chromium, driven over the DevTools protocol."""

    def __init__(self, address):
        self.socket, self.number = (
            websocket.create_connection(address, suppress_origin=True, timeout=PATIENCE),
            0,
        )

    def send(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (reply := json.loads(self.socket.recv())).get("id") != self.number:
            pass
        return reply["result"]

    def value(self, code):
        return self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )["result"].get("value")


def drive(folder, root, profile, target):
    """(answer before a click, after it) in a browser; `folder` is given what the two programs
    write, and widget.png."""
    notebook = nbformat.read(REPO / "notebooks" / f"{ASK}.ipynb", as_version=4)
    notebook.cells[1].source = f"profile, target = {profile!r}, {target!r}"
    nbformat.write(notebook, folder / "ask.ipynb")
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {
        name: str(folder / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    own |= {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    own |= {"INTROSPECT_ROOT": str(root), "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    lab = [
        sys.executable,
        "-P",
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        "--ip=127.0.0.1",
    ]
    lab += [f"--port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    browser = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        "--window-size=1150,1400",
    ]
    browser += [f"--user-data-dir={folder / 'user'}", "about:blank"]
    with started(lab, env=os.environ | own), started(browser):
        waited(lambda: urlopen(f"http://127.0.0.1:{port}/api?token={token}"))
        tools = waited(lambda: (folder / "user" / "DevToolsActivePort").read_text().split()[0])
        pages = waited(lambda: json.load(urlopen(f"http://127.0.0.1:{tools}/json/list")))
        page = Page(next(each for each in pages if each["type"] == "page")["webSocketDebuggerUrl"])
        page.send(
            "Emulation.setFocusEmulationEnabled", enabled=True
        )  # else JupyterLab has no current notebook to run
        page.send("Page.navigate", url=f"http://127.0.0.1:{port}/lab/tree/ask.ipynb?token={token}")
        waited(
            lambda: page.value(
                "!!document.querySelector('.jp-Notebook-cell') && !!window.jupyterapp"
            )
        )
        waited(
            lambda: page.value(f"{KERNEL} === 'idle'")
        )  # asked to run before, JupyterLab would ask for a kernel
        page.value("window.jupyterapp.commands.execute('notebook:run-all-cells'); 0")
        before = waited(lambda: page.value(f"({ANSWER}).includes(' encodes: ') && ({ANSWER})"))
        page.value(f"{TOKENS}[1].click()")
        changed = f"({ANSWER}) !== {json.dumps(before)} && ({ANSWER}).includes(' encodes: ')"
        after = waited(lambda: page.value(f"{changed} && ({ANSWER})"))
        waited(lambda: page.value(f"{KERNEL} === 'idle'"))
        page.value("document.querySelector('.widget-vbox').scrollIntoView()")
        time.sleep(1)  # the scrolling
        box = json.loads(page.value(BOX))
        clip = {side: box[side] for side in ("x", "y", "width", "height")} | {"scale": 1}
        picture = page.send("Page.captureScreenshot", format="png", clip=clip)["data"]
        (folder / "widget.png").write_bytes(base64.b64decode(picture))
    return before, after


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)"
)
def test_a_click_in_a_browser_changes_the_answer(tmp_path, monkeypatch, one_thread):
    for module in (paths, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    planned = plan(load_profile("smoke"))
    [asked] = [run for run in planned if run.notebook == ASK]
    needed = [
        run for run in upstream(asked, planned) if "patching" not in run.id
    ]  # to be shown how it is without
    for run in needed:
        execute(run)
    (tmp_path / "browser").mkdir()
    before, after = drive(tmp_path / "browser", tmp_path, "smoke", "tiny-llama")
    assert "At layer 2" in before and "At layer 2" in after
    assert "06_train_activation_patching" in after and "nearest training feature" in after
    assert (tmp_path / "browser" / "widget.png").stat().st_size > 5_000
    assert asked.outputs[0].is_file()
