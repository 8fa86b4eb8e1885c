"""A page in a real headless browser: what its pictures and its console say, and what it looks like."""

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

NAMES = ("chromium", "chromium-browser", "google-chrome")
NEEDED = "LEPTON_RL_NEED_BROWSER"
"""Where this is set, a test that finds no browser fails."""
_PROBE = """<script>
const seen = [];
addEventListener("error", event => seen.push(String(event.message || event.target.src)), true);
addEventListener("load", () => {
  const pictures = [...document.images].map(image => [image.alt, image.complete ? image.naturalWidth : 0]);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.innerHTML = "<pre id=probe></pre>";
  document.getElementById("probe").textContent = JSON.stringify({pictures, errors: seen, overflow: wide});
});
</script>"""


@dataclass(frozen=True, eq=False)
class Looked:
    """What a browser made of a page.

    Attributes:
        pictures: each picture's text and its width in pixels, 0 where it did not load.
        errors: of scripts and of the console.
        overflow: pixels by which the page is wider than the window.
        screen: (height, width, 3) the page as it looks, 0 to 1.
    """

    pictures: list[tuple[str, int]]
    errors: list[str]
    overflow: int
    screen: NDArray[np.float64]


def browser() -> str:
    """Return a Chromium; the test that asks is skipped, or fails where one is needed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no browser: none of {', '.join(NAMES)} is installed (apt-get install chromium)"
        if os.environ.get(NEEDED):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def look(page: Path, folder: Path, height: int = 4000) -> Looked:
    """Open a page without a network, and return what there is to see; `folder` takes the browser's files."""
    from matplotlib.image import imread

    probed = folder / "probed.html"
    text = page.read_text(encoding="utf-8")
    assert "<head>" in text
    probed.write_text(text.replace("<head>", "<head>" + _PROBE, 1), encoding="utf-8")
    dump, said = _run(probed, folder, "--dump-dom")
    found = re.search(r'<pre id="probe">(.*?)</pre>', dump, re.DOTALL)
    assert found is not None, f"the page did not load: {said}"
    seen = json.loads(html.unescape(found[1]))
    shot = folder / "page.png"
    _, said = _run(page, folder, f"--screenshot={shot}", f"--window-size=1120,{height}", "--hide-scrollbars")
    console = [line for line in said.splitlines() if ":CONSOLE" in line]
    pictures = [(str(alt), int(width)) for alt, width in seen["pictures"]]
    return Looked(pictures, [*seen["errors"], *console], int(seen["overflow"]), imread(shot)[:, :, :3].astype(float))


def _run(page: Path, folder: Path, *options: str) -> tuple[str, str]:
    done = subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--proxy-server=127.0.0.1:9", f"--user-data-dir={folder / 'profile'}", *options, page.resolve().as_uri(),
        ],
        capture_output=True, encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr
