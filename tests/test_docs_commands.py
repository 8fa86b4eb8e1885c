"""The examples in docs/ run: blocks of Python or console lines behind a `<!-- run -->` mark, page by page.

In a console block the lines that begin with `$ ` are commands; others show an excerpt of the output.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^<!-- run -->\n```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SECONDS = 300  # the kernels may have to be compiled first


def scripts(page: Path) -> list[tuple[str, str]]:
    """Return the page's marked blocks in order, as (language, script)."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text if language == "python" else commands(text)) for language, text in found]


def commands(console: str) -> str:
    lines = [line.removeprefix("$ ") for line in console.splitlines() if line.startswith("$ ")]
    assert lines, f"no line begins with '$ ' in: {console}"
    return "\n".join(["set -e", *lines])


@pytest.mark.parametrize("page", [page for page in PAGES if scripts(page)], ids=lambda page: page.stem)
def test_marked_blocks_run(page: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error::DeprecationWarning:lepton_rl"}
    for language, script in scripts(page):
        if language == "python" and "torch" in script + page.stem:
            pytest.importorskip("stable_baselines3")
        command = [sys.executable, "-c", script] if language == "python" else ["bash", "-c", script]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{page.name}:\n{script}\n{done.stdout}\n{done.stderr}"


def test_every_mark_has_a_block() -> None:
    for page in PAGES:
        marks = page.read_text(encoding="utf-8").count("<!-- run -->")
        assert marks == len(scripts(page)), page.name


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in headings(target), f"{page.name}: {link}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
