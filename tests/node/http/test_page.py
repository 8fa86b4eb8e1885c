"""The page of a node, driven in a real browser as a person would."""

import os
import time
from pathlib import Path

import pytest

from tests.driven_browser import DrivenBrowser
from tests.node.http.conftest import RunningNode, start_node, stop_node

pytest.importorskip("fastapi")
ENTER = "document.getElementById('token').value = {0!r}; document.querySelector('#enter button').click()"
SHOTS = os.environ.get("LEPTON_RL_SCREENSHOTS")
"""Where this is set, pictures of the page are kept there."""


def shoot(page: DrivenBrowser, name: str, folder: Path) -> None:
    kept = Path(SHOTS) if SHOTS else folder
    page.screenshot(kept / f"{name}.png")
    assert (kept / f"{name}.png").stat().st_size > 5000


def test_a_person_looks_at_a_node(node: RunningNode, tmp_path: Path) -> None:
    node.fake.set(1, power_mw=287_000, temperature_c=64, sm_clock_mhz=1410)
    long = node.submit("/bin/sleep", "300", gpus=3, requested_s=300.0, name="<b>train</b>")
    node.wait_for(long, "running")
    with DrivenBrowser(tmp_path) as page:
        page.window(1280, 900)
        page.open(f"{node.url}/")
        page.wait_for("!document.getElementById('enter').hidden")
        assert page.run("document.getElementById('main').hidden")
        page.run(ENTER.format("lepton_wrong"))
        page.wait_for("document.getElementById('trouble').textContent.includes('opens nothing')")
        page.errors.clear()  # the 401 that was asked for
        page.run(ENTER.format(node.tokens["read"]))
        page.wait_for("document.querySelectorAll('.gpu').length === 4")
        assert page.run("document.getElementById('who').textContent") == "read-token (read)"
        assert not page.run("document.getElementById('simulated').hidden")
        assert "Simulated" in page.run("document.getElementById('simulated').textContent")
        assert node.tokens["read"] not in page.run("document.documentElement.outerHTML")
        page.wait_for("document.querySelector('[data-gpu=\"0\"] .badge').textContent === 'allocated'")
        page.wait_for("document.querySelector('[data-gpu=\"1\"] .watt b').textContent === '287 W'")
        page.wait_for("[...document.querySelectorAll('.chart path')].every(path => path.getAttribute('d').length > 20)")
        # its name is text on the page, not markup
        assert page.run("document.querySelector('#running td.name').textContent") == "<b>train</b>"

        late = node.submit("/bin/sleep", "60", gpus=2, requested_s=60.0, name="late")
        row = f"document.querySelector('#queue [data-job=\"{late}\"]')"
        page.wait_for(f"{row} !== null")
        page.run(f"{row}.click()")
        page.wait_for("!document.getElementById('explained').hidden")
        explained = page.run("document.getElementById('explained').innerText")
        assert f"Job {late} is waiting" in explained
        assert "needs 2 GPUs" in explained
        assert f"job {long} has ended, in about" in explained
        page.wait_for("document.querySelectorAll('#decisions li').length > 0")

        words = {
            "Start(job=3, gpus=(0, 1))": "start 3 on GPU 0, 1",
            "Migrate(job=7, gpus=(2,))": "move 7 to GPU 2",
            "Preempt(job=52)": "preempt 52",
            "SetPowerLimit(gpu=1, watts=250.0)": "limit GPU 1 to 250 W",
            "SetPowerLimit(gpu=1, watts=None)": "give GPU 1 its power limit back",
        }
        for action, said in words.items():
            assert page.run(f"said({action!r})") == said
        assert page.run("first(['a', 'b', 'c'], 2, '; ')") == "a; b; and 1 more"
        assert page.run("first(['a', 'b', 'c'], 2, '; ', 40)") == "a; b; and 38 more"
        assert page.run("first(['a', 'b'], 2, '; ')") == "a; b"

        page.window(1200, 900)
        assert page.run("[...document.querySelectorAll('.chart')].every(each => each.scrollWidth <= each.clientWidth)")
        if SHOTS:
            time.sleep(20.0)  # for charts with something in them
        for name, width, dark in (("wide", 1280, False), ("dark", 1280, True), ("phone", 390, False)):
            page.window(width, 900, dark=dark)
            assert page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
            shoot(page, name, tmp_path)
        dark_paper = "getComputedStyle(document.body).backgroundColor"
        light = page.run(dark_paper)
        page.window(1280, 900, dark=True)
        assert page.run(dark_paper) != light

        node.over_socket("cancel", job=long, kill=True)
        page.wait_for(f"document.querySelector('#running [data-job=\"{late}\"]') !== null")
        page.wait_for(f"document.getElementById('explained-title').textContent === 'Job {late} is running'")
        page.run("document.getElementById('leave').click()")
        page.wait_for("document.getElementById('main').hidden && sessionStorage.length === 0")
        assert page.errors == []
        assert {url for url in page.requested if not url.startswith((node.url, "about:", "data:"))} == set()
        assert not any(node.tokens["read"] in url for url in page.requested)
    node.over_socket("cancel", job=late, kill=True)
    node.wait_for(late, "cancelled")
    node.fake.set(1, power_mw=62_000, temperature_c=31, sm_clock_mhz=210)


FAILING = """
class Failing:
    '''Fails at every decision but those on made-up nodes, before the start.'''

    def decide(self, snapshot):
        if snapshot.time == 1.0:
            return []
        raise ValueError("a <i>bad</i> day")
"""


def test_fallbacks_and_alerts_are_marked(tmp_path: Path, fake_library: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    node = start_node(
        tmp_path / "node", fake_library, gpus=2, options=("--policy", f"{tmp_path / 'failing.py'}:Failing"),
        alerts={"failed_jobs": 1, "fallbacks": 1},
    )  # fmt: skip
    try:
        node.wait_for(node.submit("/bin/false"), "failed")
        node.fake.lose(1)
        with DrivenBrowser(tmp_path) as page:
            page.window(1280, 900)
            page.open(f"{node.url}/")
            page.run(ENTER.format(node.tokens["read"]))
            page.wait_for("document.querySelectorAll('#decisions li.fallback').length > 0")
            decision = page.run("document.querySelector('#decisions li.fallback').innerText")
            assert "fcfs" in decision
            assert "fallback" in decision
            assert "failed: ValueError: a <i>bad</i> day" in decision
            page.wait_for("document.querySelectorAll('#alerts li').length === 2")
            alerts = page.run("document.getElementById('alerts').innerText")
            assert "1 of the last 1 jobs have failed" in alerts
            assert "the fallback made" in alerts
            page.wait_for("document.querySelector('[data-gpu=\"1\"] .badge').textContent === 'lost'")
            assert "fallen off the bus" in page.run("document.querySelector('[data-gpu=\"1\"]').innerText")
            shoot(page, "trouble", tmp_path)
            node.over_socket("stop")
            node.process.wait(60.0)
            page.wait_for("document.getElementById('trouble').textContent.includes('does not answer')")
    finally:
        stop_node(node)
