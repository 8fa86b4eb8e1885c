"""A daemon of its own process on a fake driver, with tokens, for the tests of its HTTP side."""

import http.client
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from lepton_rl.errors import NodeError
from lepton_rl.node.client import NodeClient
from lepton_rl.node.http.rules import TOKENS
from lepton_rl.node.http.tokens import TokenBook
from lepton_rl.node.paths import SOCKET
from tests.fake_nvml import FakeNvml
from tests.fake_nvml.fixtures import fake_library

__all__ = ["fake_library"]
PATIENCE_S = 900.0  # the first daemon may have to compile the kernels


@dataclass
class Answer:
    """What came back: status, JSON or text, and headers by lower-case name."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class RunningNode:
    """A daemon and how to call it.

    Attributes:
        tokens: by role.
        process: of the daemon.
    """

    folder: Path
    url: str
    fake: FakeNvml
    process: "subprocess.Popen[bytes]"
    tokens: dict[str, str] = field(default_factory=dict)
    trusted: ssl.SSLContext | None = None

    def ask(self, method: str, path: str, role: str | None = "operate", json_body: Any = None, **more: Any) -> Answer:
        """Send one request; `more` may hold `body` as bytes, and `headers`."""
        headers = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        body = more.get("body")
        if json_body is not None:
            body, headers["Content-Type"] = json.dumps(json_body).encode(), "application/json"
        place = urlsplit(self.url)
        assert place.hostname is not None
        connection: http.client.HTTPConnection
        if self.trusted is None:
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        else:
            connection = http.client.HTTPSConnection(place.hostname, place.port, timeout=60, context=self.trusted)
        with closing(connection):
            connection.request(method, path, body, headers | more.get("headers", {}))
            answer = connection.getresponse()
            text = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return Answer(answer.status, json.loads(text) if is_json else text.decode(), found)

    def submit(self, *argv: str, role: str = "submit", **asked: Any) -> int:
        """Submit a job over HTTP and return its number."""
        answer = self.ask("POST", "/api/v1/jobs", role, {"argv": list(argv), "cwd": "/", **asked})
        assert answer.status == 201, answer
        return int(answer.body["job"])

    def over_socket(self, verb: str, **arguments: Any) -> Any:
        """Call the same node on its socket."""
        with NodeClient(self.folder / SOCKET) as client:
            return client.call(verb, **arguments)

    def wait_for(self, job: int, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of these states."""
        deadline = time.monotonic() + 60.0
        while True:
            found: dict[str, Any] = self.over_socket("job", job=job)
            if found["state"] in states:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


def start_node(folder: Path, library: Path, gpus: int = 4, options: Sequence[str] = (), **config: Any) -> RunningNode:
    """Start a daemon that listens for HTTP, and make a token for each role."""
    folder.mkdir(parents=True)
    fake = FakeNvml(folder / "nvml", gpus=gpus)
    http_config = {"listen": "127.0.0.1:0", "requests_per_second": 1000.0, **config.pop("http", {})}
    settings = {"policy": {"name": "saf", "blocking": "easy"}, "http": http_config, **config}
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    book = TokenBook(folder / TOKENS)
    tokens = {role: book.add(f"{role}-token", role, time.time()) for role in ("read", "submit", "operate")}
    words = [sys.executable, "-m", "lepton_rl.cli", "node", "start", "--foreground", "--state", str(folder)]
    environment = fake.environment(library) | {"PYTHONWARNINGS": "error::ResourceWarning"}
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--config", str(folder / "node.yaml"), *options], env=environment, stdout=log, stderr=log
        )
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(NodeError), NodeClient(folder / SOCKET) as client:
            url = str(client.call("ping")["http"])
            return RunningNode(folder, url, fake, process, tokens)
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail((folder / "daemon.log").read_text())
        time.sleep(0.05)


def stop_node(node: RunningNode) -> str:
    """End a daemon and its jobs; return its log."""
    if node.process.poll() is None:
        for job in node.over_socket("queue"):
            with suppress(NodeError):
                node.over_socket("cancel", job=job["job"], kill=True)
        deadline = time.monotonic() + 30.0
        while node.over_socket("queue") and time.monotonic() < deadline:
            time.sleep(0.05)
        node.over_socket("stop")
        node.process.wait(60.0)
    node.fake.close()
    return (node.folder / "daemon.log").read_text()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, fake_library: Path) -> Iterator[RunningNode]:
    """A node with four simulated GPUs; no test may leave it changed."""
    running = start_node(tmp_path_factory.mktemp("http") / "node", fake_library, http={"dcgm_names": True})
    yield running
    log = stop_node(running)
    assert running.process.returncode == 0, log
    assert "Traceback" not in log, log
    assert "Warning" not in log, log
