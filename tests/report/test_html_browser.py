"""report/html.py in a real browser: the page loads nothing, says nothing on the console, and fits narrow and wide windows, light and dark.

Run with: pytest -m browser
"""

import dataclasses
import json
import shutil
import subprocess
from html import unescape

import made_results
import numpy as np
import pytest
from made_results import result
from test_html import CASES, EVIL, evidence

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.opencv import opencv
from onnx2trt.compare.evidence import Evidence
from onnx2trt.report import html
from onnx2trt.report.result import Result

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

PROBE = """<script>window.addEventListener("load", () => {
  const found = {
    width: document.documentElement.clientWidth,
    scroll: document.documentElement.scrollWidth,
    images: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    back: getComputedStyle(document.body).backgroundColor,
    outside: [...document.querySelectorAll("main *")].filter(element => !element.closest(".scroll, svg, details:not([open])"))
      .filter(element => element.getBoundingClientRect().right > innerWidth + 1).map(element => element.outerHTML.slice(0, 120)),
    frames: [...document.querySelectorAll("svg.plot")].filter(plot => plot.getBoundingClientRect().height < 100).length,
  };
  parent.postMessage(JSON.stringify(found), "*");
});</script>"""
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><title>frame</title>
<script>addEventListener("message", event => {{ document.title = "PROBE" + event.data + "EBORP"; }});</script>
<iframe src="page.html" style="width: {width}px; height: 3000px; border: 0"></iframe>"""


def chromium(folder, *flags: str) -> subprocess.CompletedProcess:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=120)


def full() -> bytes:
    """A page with everything on it, and long names of strangers."""
    long = EVIL + "/a_very_long_name_without_a_space" * 8
    found = result(status="validated", warnings=[long])
    found["model"] = {**found["model"], "path": long}
    found["accuracy"][0] |= {"output": long, "inputs": long, "worst": long}
    found["precision"]["fallback"] = [{"name": long, "precision": "fp16", "reason": long}]
    found["variants"] = [{"precision": "int8", "drop_percent": 0.5, "error": long}]
    latency = {"mean_ms": 1.2, "p50_ms": 1.1, "p90_ms": 1.3, "p99_ms": 1.9, "runs": 99, "shape": {}, "covers": "all", "fp16_p50_ms": None}
    kept = evidence(*(dataclasses.replace(one, name=f"{kind} {long}") for kind, one in CASES.items()), plots=True)
    kept.latency_ms = np.random.default_rng(0).gamma(2, 0.5, 99).tolist()
    kept.scales = {long + str(index): 0.1 + index for index in range(80)}
    return html.render({**found, "latency": latency}, kept, ["--onnx", long])


def failed() -> bytes:
    tried = "90% INT8: drop 3.00 +- 0.50 %; " * 9
    error = ConversionError(f"INT8 does not reach --max-accuracy-drop 1 %: {tried}", code=ExitCode.VALIDATION)
    return html.render(made_results.failed(Result().to_dict(), error), Evidence(True), ["--onnx", "net.onnx"])


def look(folder, page: bytes, width: int, dark: bool) -> dict:
    """What the page is like at this width; it stands in a frame, since windows are not as narrow as a phone."""
    (folder / "page.html").write_bytes(page.replace(b"</body>", PROBE.encode() + b"</body>"))
    (folder / "frame.html").write_text(FRAME.format(width=width))
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = chromium(folder, *scheme, "--virtual-time-budget=9000", "--dump-dom", (folder / "frame.html").as_uri())
    return json.loads(unescape(done.stdout.partition("PROBE")[2].partition("EBORP")[0]))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("make", [full, failed])
def test_nothing_sticks_out(tmp_path, make, width, dark):
    found = look(tmp_path, make(), width, dark)
    assert found["width"] == width, "another window than asked for"
    assert found["scroll"] <= found["width"] and not found["outside"]
    assert found["images"] == 0 and found["frames"] == 0
    assert found["dark"] is dark
    light = sum(map(int, found["back"].removeprefix("rgb(").rstrip(")").split(","))) > 600
    assert light is not dark


def test_no_request_leaves_the_page_and_the_console_is_silent(tmp_path):
    (tmp_path / "page.html").write_bytes(full())
    log = tmp_path / "net.json"
    done = chromium(tmp_path, "--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom", (tmp_path / "page.html").as_uri())
    assert "onnx2trt" in done.stdout and "CONSOLE" not in done.stderr
    text = log.read_text()
    events = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")["events"]
    asked = {event["params"]["url"] for event in events if "url" in event.get("params", {})}
    outside = {url for url in asked if url.startswith(("http", "ws", "ftp"))}
    assert not {url for url in outside if "google" not in url}, "Google's are the browser's own"


def test_print_is_light_even_where_the_screen_is_dark(tmp_path):
    """Printed on paper, a page that looks right is mostly white."""
    (tmp_path / "page.html").write_bytes(full())
    done = chromium(
        tmp_path, "--blink-settings=preferredColorScheme=0", f"--print-to-pdf={tmp_path}/page.pdf", (tmp_path / "page.html").as_uri()
    )
    assert (tmp_path / "page.pdf").stat().st_size > 20_000, done.stderr
    if shutil.which("pdftoppm") is None:
        pytest.skip("no pdftoppm to look at the pages")
    subprocess.run(["pdftoppm", "-r", "30", "-png", "-f", "1", "-l", "1", "page.pdf", "sheet"], cwd=tmp_path, check=True)
    sheet = opencv().imread(str(next(tmp_path.glob("sheet*.png"))))
    assert np.median(sheet) > 240
