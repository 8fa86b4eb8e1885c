"""A headless browser that a test drives: by Chromium's own protocol, over a pair of pipes and no network port."""

import base64
import json
import os
import selectors
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.browser import browser

PATIENCE_S = 60.0
_ON_3_AND_4 = 'reads="$1" writes="$2"; shift 2; exec "$@" 3<&"$reads" 4>&"$writes"'


class DrivenBrowser:
    """One page of a browser of its own.

    Args:
        folder: takes the browser's files.

    Attributes:
        errors: what scripts and the console complained of so far, and what the page's policy has blocked.
    """

    def __init__(self, folder: Path) -> None:
        self.errors: list[str] = []
        self.requested: list[str] = []
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        command = [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
            "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", _ON_3_AND_4, "bash", str(reads), str(writes), *command],
            pass_fds=(reads, writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        self._number, self._unread, self._session = 0, b"", ""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._from, selectors.EVENT_READ)
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self._send(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._selector.close()
        os.close(self._to)
        os.close(self._from)

    def open(self, url: str) -> None:
        """Go to a page."""
        self._send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def window(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window in pixels, and what the page is told of the user's taste."""
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        found = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < deadline, f"waited for {condition}; errors: {self.errors}"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shot = self._send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._unread:
            assert self._selector.select(max(0.0, deadline - time.monotonic())), "the browser does not answer"
            block = os.read(self._from, 1 << 16)
            assert block, "the browser has gone"
            self._unread += block
        line, _, self._unread = self._unread.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.errors.append(str(told["args"]))
        elif method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
