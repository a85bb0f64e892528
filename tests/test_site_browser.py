"""Every page of the documentation site in Chromium, from a server on loopback: no violation that axe-core finds."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from chromium import PROGRAM, Chromium

CHECKOUT = Path(__file__).resolve().parents[1]
AXE = CHECKOUT / "node_modules" / "axe-core" / "axe.min.js"
if PROGRAM is None or not AXE.exists() or find_spec("material") is None:
    pytest.skip("needs Chromium, axe-core (see CONTRIBUTING.md) and the extra docs", allow_module_level=True)

SIZES = {"wide": (1280, 900), "phone": (390, 844)}
RUN = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(
    one => [one.id, one.nodes.length, one.nodes[0].target.join(' '), one.nodes[0].failureSummary]))"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Folder and address of the site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_page_has_a_violation_that_axe_finds(served, size, dark):
    folder, address = served
    found = {}
    with Chromium() as page:
        for path in sorted(folder.rglob("*.html")):
            name = path.relative_to(folder).as_posix()
            page.open(f"{address}/{name}", *SIZES[size], dark=dark)
            assert page.run("document.querySelector('meta[name=generator]') !== null")  # not an error page of Chromium
            page.run(AXE.read_text(encoding="utf-8") + "; true")
            if violations := page.run(RUN):
                found[name] = violations
        assert not page.problems
    assert not found
