"""A real JupyterLab on this machine's loopback, driven in a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from course_lib.classroom.files import ROOT

SCREENSHOTS = ROOT / "artifacts"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium"),
]

CONTRAST_RATIO = """element => {
    const parse = colour => colour.match(/[\\d.]+/g).map(Number)
    const luminance = colour => {
        const [r, g, b] = colour.slice(0, 3).map(v => v / 255).map(
            v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    let behind = element, ground
    do {
        ground = parse(getComputedStyle(behind).backgroundColor)
        behind = behind.parentElement
    } while (ground.length > 3 && ground[3] === 0 && behind)
    const pair = [parse(getComputedStyle(element).color), ground].map(luminance).sort()
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)
}"""


def write_page_config(config_folder: Path) -> None:
    """What `make lab` switches off in JupyterLab, where a server with that folder reads it."""
    text = (ROOT / "Makefile").read_text("utf-8")
    place = r"\$\(VENV\)/etc/jupyter/(labconfig/page_config\.json)"
    ((config, name),) = re.findall(rf"echo '(.*)' \\\n\t+> {place}", text)
    (config_folder / name).parent.mkdir(parents=True)
    (config_folder / name).write_text(config, "utf-8")


@contextmanager
def lab_server(folder: Path, home: Path, theme: str = "JupyterLab Light") -> Iterator[str]:
    """JupyterLab serving `folder`; yields its address. All that it writes goes below `home`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = home / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = '{"fetchNews": "false", "checkForUpdates": false}'
    (settings / "notification.jupyterlab-settings").write_text(quiet)
    (settings / "themes.jupyterlab-settings").write_text(f'{{"theme": "{theme}"}}')
    write_page_config(home / "config")
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "run"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "XDG_DATA_HOME": str(home / "share"),
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=learner"]
    command += [f"--ServerApp.root_dir={folder}", "--allow-root"]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(server, f"http://127.0.0.1:{port}/api/status?token=learner", home)
            yield f"http://127.0.0.1:{port}/lab/tree/{{notebook}}?token=learner&reset"
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for(server: subprocess.Popen, address: str, home: Path) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=2).read()
            return
        except OSError:
            if server.poll() is not None:
                raise RuntimeError((home / "server.log").read_text()) from None
            time.sleep(0.1)
    raise TimeoutError("JupyterLab did not answer within a minute")


class Lab:
    """One notebook, open in the browser, and what went wrong on the way."""

    def __init__(self, page: Page, address: str):
        self.page, self.address = page, address
        self.console_errors: list[str] = []
        self.outside_requests: list[str] = []
        page.set_default_timeout(120_000)
        page.on("console", self._on_console)
        page.on("request", self._on_request)

    def _on_console(self, message) -> None:
        if message.type == "error":
            self.console_errors.append(message.text)

    def _on_request(self, request) -> None:
        if request.url.startswith("http") and "//127.0.0.1:" not in request.url:
            self.outside_requests.append(request.url)

    def open(self, notebook: str) -> None:
        """Open a notebook and wait until its kernel is idle."""
        self.page.goto(self.address.format(notebook=notebook))
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        # The toolbar says idle before there is a kernel; the status bar does not.
        self.page.wait_for_selector(".jp-StatusBar-TextItem:has-text('| Idle')")

    def run_all(self, seconds: float) -> None:
        """Run > Run All Cells, and wait until no cell is waiting or running."""
        self.page.click(".lm-MenuBar-itemLabel:text-is('Run')")
        self.page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
        self._wait_until_idle(seconds)

    def _wait_until_idle(self, seconds: float) -> None:
        """Wait until the kernel is idle and no cell on the screen, the last one included, waits."""
        waiting = self.page.locator(".jp-InputPrompt", has_text="[*]")
        self.page.wait_for_timeout(500)
        end = time.monotonic() + seconds
        while waiting.count() and time.monotonic() < end:
            self.page.wait_for_timeout(500)
        self.page.wait_for_selector(".jp-StatusBar-TextItem:has-text('| Idle')")
        self.page.wait_for_timeout(300)

    def save(self) -> None:
        """Write the notebook to its file."""
        self.page.keyboard.press("Control+s")
        self.page.wait_for_timeout(2000)

    def screens(self) -> Iterator[int]:
        """Scroll from the top to the end, a screen at a time, and count them."""
        panel = self.page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer")
        top, number = 0, 0
        while True:
            panel.evaluate("(panel, top) => { panel.scrollTop = top }", top)
            self.page.wait_for_timeout(300)
            yield number
            height, whole = panel.evaluate("panel => [panel.clientHeight, panel.scrollHeight]")
            top, number = top + height - 50, number + 1
            if top + 50 >= whole:
                return

    def cells(self, text: str):
        """The code cells whose source contains `text`; of a folded cell its first line is there."""
        source = self.page.locator(".cm-content, .jp-PlaceholderText", has_text=text)
        return self.page.locator(".jp-CodeCell", has=source)

    def cell(self, text: str):
        """The first code cell whose source contains `text`."""
        return self.cells(text).first

    def cells_with(self, selector: str) -> list:
        """The code cells on or near the screen that hold such an element."""
        return self.page.locator(".jp-CodeCell", has=self.page.locator(selector)).all()

    def place(self, cell) -> str:
        """Which cell of the notebook this is, counted from 0."""
        return cell.get_attribute("data-windowed-list-index")

    def press(self, key: str) -> None:
        """Press a key and wait until the kernel has answered."""
        self.page.keyboard.press(key)
        self._wait_until_idle(60)

    def replace(self, cell, source: str) -> None:
        """Type a new source into a cell and run it."""
        editor = cell.locator(".cm-content")
        editor.scroll_into_view_if_needed()
        editor.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")
        self._wait_until_idle(60)

    def run(self, cell) -> str:
        """Run a cell as it stands, unfolded first, and return the text of its output."""
        if (folded := cell.locator(".jp-InputPlaceholder .jp-PlaceholderText")).count():
            folded.click()
        editor = cell.locator(".cm-content")
        editor.scroll_into_view_if_needed()
        editor.click()
        self.page.keyboard.press("Control+Enter")
        self._wait_until_idle(60)
        return self.output(cell)

    def restart_kernel(self) -> None:
        """Kernel > Restart Kernel…, confirmed."""
        self.page.click(".lm-MenuBar-itemLabel:text-is('Kernel')")
        self.page.click(".lm-Menu-itemLabel:text-is('Restart Kernel…')")
        self.page.click(".jp-Dialog-button.jp-mod-accept")
        self.page.wait_for_timeout(1000)
        self._wait_until_idle(60)

    def contrast(self, selector: str) -> float:
        """WCAG's contrast ratio of the first such element's text on what lies behind it."""
        return self.page.locator(selector).first.evaluate(CONTRAST_RATIO)

    def output(self, cell) -> str:
        """What a cell printed."""
        return "\n".join(cell.locator(".jp-OutputArea-output").all_inner_texts())


@contextmanager
def local_page(file: Path) -> Iterator[Page]:
    """A page that lies in a file: it fits a phone, asks for nothing and says nothing."""
    asked, errors = [], []
    with browser_page(width=360) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(file.as_uri())
        for width in (360, 800):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") == width
        yield page
    assert (asked, errors) == ([file.as_uri()], [])


@contextmanager
def browser_page(width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A page of a fresh headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        yield page
        browser.close()
