"""The API of a real daemon: roles, the audit log, metrics, TLS, and what is refused."""

import contextlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.node.http.roles import ROLES
from lepton_rl.node.http.rules import TOKENS
from lepton_rl.node.http.tokens import TokenBook
from tests.node.conftest import until
from tests.node.http.conftest import RunningNode, start_node, stop_node

pytest.importorskip("fastapi")
CALLS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "ping": ("GET", "/api/v1/ping", None),
    "status": ("GET", "/api/v1/status", None),
    "queue": ("GET", "/api/v1/queue?all=true", None),
    "explain": ("GET", "/api/v1/jobs/{job}/explain", None),
    "decisions": ("GET", "/api/v1/decisions?last=5", None),
    "usage": ("GET", "/api/v1/usage?by=project", None),
    "telemetry": ("GET", "/api/v1/telemetry", None),
    "metrics": ("GET", "/metrics", None),
    "submit": ("POST", "/api/v1/jobs", {"argv": ["/bin/true"], "cwd": "/"}),
    "job": ("GET", "/api/v1/jobs/{job}", None),
    "log": ("GET", "/api/v1/jobs/{job}/log?tail=5", None),
    "wait": ("GET", "/api/v1/jobs/{job}/wait?timeout_s=0.1", None),
    "cancel": ("POST", "/api/v1/jobs/{job}/cancel", None),
    "drain": ("POST", "/api/v1/gpus/3/drain", {"reason": "a test"}),
    "resume": ("POST", "/api/v1/gpus/3/resume", None),
    "verify": ("POST", "/api/v1/verify", None),
    "reserve": ("POST", "/api/v1/reservations", {"gpus": 1, "begin_time": 9e9, "duration_s": 60.0}),
    "unreserve": ("DELETE", "/api/v1/reservations/{reservation}", None),
    "audit": ("GET", "/api/v1/audit", None),
    "backup": ("POST", "/api/v1/backup", None),
    "feedback": ("POST", "/api/v1/feedback", {"apply": False}),
}
"""How each verb is called; all but `stop`, which is called at the end of another test."""


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_the_table_says_and_nothing_else(node: RunningNode, role: str) -> None:
    assert set(CALLS) | {"stop"} == ROLES["operate"]
    owner = role if role != "read" else "submit"
    reservation = node.over_socket("reserve", gpus=1, begin_time=8e9, duration_s=60.0)["reservation"]
    for verb, (method, path, body) in CALLS.items():
        job = node.submit("/bin/sleep", "60", role=owner)
        answer = node.ask(method, path.format(job=job, reservation=reservation), role, body)
        if verb in ROLES[role]:
            assert answer.status in (200, 201), (verb, answer)
        else:
            assert answer.status == 403, (verb, answer)
            assert f"the role {role} of this token may not {verb}" in answer.body["error"]
        node.over_socket("cancel", job=job, kill=True) if verb != "cancel" or role == "read" else None
        node.wait_for(job, "cancelled")


def test_a_job_comes_in_runs_and_ends_and_the_log_says_who(node: RunningNode) -> None:
    job = node.submit("/bin/sh", "-c", "exit 3", name="three", requested_s=60.0)
    found = node.wait_for(job, "failed")
    assert (found["exit_code"], found["user"], found["name"]) == (3, "submit-token@http", "three")
    assert node.ask("GET", f"/api/v1/jobs/{job}", "submit").body == found
    entry = node.over_socket("audit", last=1)[0]
    assert (entry["user"], entry["verb"], entry["target"], entry["outcome"]) == (
        "submit-token@http", "submit", f"job {job}", "done",
    )  # fmt: skip


def test_a_token_reaches_its_own_jobs_alone_and_a_refusal_is_in_the_log(node: RunningNode) -> None:
    job = node.submit("/bin/sleep", "60", role="operate")
    for method, path in (("GET", f"/api/v1/jobs/{job}"), ("POST", f"/api/v1/jobs/{job}/cancel")):
        answer = node.ask(method, path, "submit")
        assert (answer.status, answer.body["error"]) == (403, f"job {job} is another user's")
    entry = node.over_socket("audit", last=1)[0]
    assert (entry["user"], entry["target"]) == ("submit-token@http", f"job {job}")
    assert entry["outcome"] == f"refused: job {job} is another user's"
    assert node.ask("POST", f"/api/v1/jobs/{job}/cancel", "read").status == 403
    entry = node.over_socket("audit", last=1)[0]
    assert entry["user"] == "read-token@http"
    assert entry["outcome"].startswith("refused: the role read")
    assert node.ask("POST", f"/api/v1/jobs/{job}/cancel?kill=true").status == 200
    node.wait_for(job, "cancelled")


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "sentence"),
    [
        ("GET", "/api/v1/nothing", {}, 404, "no such path"),
        ("PUT", "/api/v1/queue", {}, 405, "PUT is not what this path takes"),
        ("GET", "/api/v1/jobs/9999999", {}, 404, "there is no job 9999999"),
        ("GET", "/api/v1/jobs/x", {}, 422, "must be a whole number"),
        ("GET", "/api/v1/jobs/-1", {}, 400, "greater than or equal to 1"),
        ("POST", "/api/v1/gpus/17/drain", {"json_body": {"reason": "x"}}, 409, "there is no GPU '17'"),
        ("POST", "/api/v1/jobs", {"json_body": {"cwd": "/"}}, 422, "argv: is missing"),
        ("POST", "/api/v1/jobs", {"json_body": {"argv": ["a"], "cwd": "x"}}, 400, "must be an absolute path"),
        ("POST", "/api/v1/jobs", {"json_body": {"argv": ["a"], "cwd": "/", "gpus": 9}}, 400, "9"),
        ("POST", "/api/v1/jobs", {"json_body": {"argv": ["a"], "cwd": "/", "gpu": 1}}, 422, "no argument 'gpu'"),
        ("POST", "/api/v1/jobs", {"body": b'{"argv": ["a"], "cwd": "/"}'}, 422, "Content-Type: application/json"),
        ("POST", "/api/v1/jobs", {"body": b"x" * (1 << 21)}, 413, "at most 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    node: RunningNode, method: str, path: str, more: dict[str, Any], status: int, sentence: str
) -> None:
    answer = node.ask(method, path, **more)
    assert answer.status == status, answer
    assert sentence in answer.body["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_revoked_token_opens_nothing_more(node: RunningNode) -> None:
    book = TokenBook(node.folder / TOKENS)
    node.tokens["guest"] = book.add("guest", "read", time.time())
    assert node.ask("GET", "/api/v1/me", "guest").body["verbs"] == sorted(ROLES["read"])
    book.revoke("guest")
    revoked, none = node.ask("GET", "/api/v1/me", "guest"), node.ask("GET", "/api/v1/me", None)
    assert (revoked.status, none.status) == (401, 401)
    assert revoked.body["error"].startswith("this token is not known, or not any more: send")
    assert none.body["error"].startswith("this needs a token: send")


def test_verify_measures_what_gpus_compute(tmp_path: Path, fake_library: Path, node: RunningNode) -> None:
    answer = node.ask("POST", "/api/v1/verify", json_body={"throughput": True})
    assert (answer.status, answer.body["error"][:49]) == (400, "the node's configuration asks for no throughput: ")
    answer = node.ask("POST", "/api/v1/verify", json_body={"troughput": True})
    assert (answer.status, "no argument 'troughput'" in answer.body["error"]) == (422, True)
    assert "lepton_rl_gpu_measured_flop_per_second{" not in node.ask("GET", "/metrics", "read").body
    acceptance = {"throughput": {"least_tflops": 10.0, "command": ["sh", "-c", "sleep 0.1; echo 12.5"]}}
    measured = start_node(tmp_path / "node", fake_library, gpus=1, acceptance=acceptance)
    try:
        until(lambda: measured.over_socket("status")["gpus"][0]["state"] == "available", "the one of the start")
        begin = time.time()
        answer = measured.ask("POST", "/api/v1/verify", json_body={"throughput": True})
        assert answer.status == 200
        assert [(gpu["state"], gpu["measuring"]) for gpu in answer.body] == [("unverified", True)]
        until(lambda: not measured.over_socket("status")["gpus"][0]["measuring"], "the measurement")
        found = measured.ask("GET", "/api/v1/status", "read").body["gpus"][0]["throughput"]
        assert (found["tflops"], found["simulated"]) == (12.5, True)
        assert begin < found["measured_time"] < time.time()
        text = measured.ask("GET", "/metrics", "read").body
        labels = re.escape(f'{{gpu="0",uuid="{measured.fake.uuid(0)}"}}')
        figures = re.findall(rf"^lepton_rl_gpu_measured_(\w+){labels} (.+)$", text, re.MULTILINE)
        assert {name: float(value) for name, value in figures} == {
            "flop_per_second": 12.5e12, "timestamp_seconds": found["measured_time"],
        }  # fmt: skip
    finally:
        stop_node(measured)


def test_metrics_are_whole_and_say_what_the_node_says(node: RunningNode) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    node.wait_for(node.submit("/bin/true"), "done")
    node.fake.set(2, power_mw=123_000)
    node.fake.inject_xid(2, 31)
    deadline = time.monotonic() + 60.0
    while True:
        text = node.ask("GET", "/metrics", "read").body
        found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        uuid = node.fake.uuid(2)
        dcgm = {
            sample.name.removeprefix("DCGM_FI_DEV_"): sample.value
            for sample in found
            if sample.labels.get("UUID") == uuid
        }
        if (dcgm["POWER_USAGE"], dcgm["XID_ERRORS"]) == (123.0, 31.0):
            break
        assert time.monotonic() < deadline, dcgm
        time.sleep(0.1)
    samples = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in found}
    status, counts = node.over_socket("status"), node.over_socket("status")["jobs"]
    assert samples[("lepton_rl_jobs_finished_total", ("state", "done"))] == counts["done"] > 0
    assert samples[("lepton_rl_job_errors_total",)] == counts["failed"] + counts["lost"]
    assert 0 < samples[("lepton_rl_decision_seconds_count",)] <= status["decisions"]
    assert samples[("lepton_rl_response_seconds_count", ("verb", "submit"))] > 0
    assert samples[("lepton_rl_queue_length",)] == 0
    assert samples[("lepton_rl_simulated_devices",)] == 1
    assert samples[("lepton_rl_fallback_total", ("kind", "timeout"))] == 0
    assert samples[("lepton_rl_jobs_started_total",)] >= counts["done"]
    assert samples[("lepton_rl_gpu_state", ("gpu", "2"), ("state", "available"), ("uuid", uuid))] == 1
    assert dcgm["GPU_TEMP"] == 31
    assert dcgm["FB_USED"] + dcgm["FB_FREE"] == 81920 - 600
    assert set(dcgm) == {
        "GPU_UTIL", "FB_USED", "FB_FREE", "POWER_USAGE", "TOTAL_ENERGY_CONSUMPTION", "GPU_TEMP", "SM_CLOCK",
        "XID_ERRORS",
    }  # fmt: skip
    node.fake.set(2, power_mw=62_000)


def test_the_openapi_page_knows_every_verb(node: RunningNode) -> None:
    document = node.ask("GET", "/api/v1/openapi.json", None).body
    known = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    for method, path, _ in CALLS.values():
        if path != "/metrics":
            path = path.partition("?")[0].replace("gpus/3", "gpus/{gpu}")
            assert (method, path) in known
    assert ("POST", "/api/v1/stop") in known


def test_tls_by_certificate_files_an_alert_and_the_files_of_jobs(tmp_path: Path, fake_library: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", str(key)]
    subprocess.run([*made, "-out", str(pem), *names], check=True, capture_output=True)
    mapping = tmp_path / "mapping"
    node = start_node(
        tmp_path / "node", fake_library, gpus=2, http={"certificate": str(pem), "key": str(key), "metrics_open": True},
        alerts={"idle_power_w": 50.0, "idle_power_s": 0.0, "failed_jobs": 2, "of_jobs": 2},
        hpc_job_mapping_dir=str(mapping),
    )  # fmt: skip
    try:
        assert node.url.startswith("https://")
        node.trusted = ssl.create_default_context(cafile=str(pem))
        assert node.ask("GET", "/api/v1/ping").body["http"] == node.url
        subprocess.run([*made, "-out", str(pem), *names], check=True, capture_output=True)
        node.process.send_signal(signal.SIGHUP)
        renewed = ssl.create_default_context(cafile=str(pem))
        deadline = time.monotonic() + 60.0
        while True:
            node.trusted = renewed
            with contextlib.suppress(ssl.SSLCertVerificationError):
                assert node.ask("GET", "/api/v1/ping").status == 200
                break
            assert time.monotonic() < deadline, "the certificate was not read anew"
            time.sleep(0.05)
        job = node.submit("/bin/sleep", "60", gpus=2)
        deadline = time.monotonic() + 60.0
        while (mapping / "1").read_text() != f"{job}\n" or node.ask("GET", "/api/v1/status").body["alerts"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        node.over_socket("cancel", job=job, kill=True)
        for _ in range(2):
            node.wait_for(node.submit("/bin/false"), "failed")
        while len(alerts := node.ask("GET", "/api/v1/status").body["alerts"]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert {alert["text"] for alert in alerts} == {
            "GPU 0 draws 62 W and no job holds it",
            "GPU 1 draws 62 W and no job holds it",
            "2 of the last 2 jobs have failed",
        }
        said = subprocess.run(
            [sys.executable, "-m", "lepton_rl.cli", "node", "status", "--state", str(node.folder)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "alert: 2 of the last 2 jobs have failed" in said.stdout.splitlines()
        metrics = node.ask("GET", "/metrics", None).body
        assert 'lepton_rl_alert{rule="failure_burst",subject="node"} 1.0' in metrics
        assert "DCGM" not in metrics
        assert node.ask("POST", "/api/v1/stop", "submit").status == 403
        assert node.ask("POST", "/api/v1/stop").status == 200
        assert node.process.wait(60.0) == 0
        assert (mapping / "1").read_text() == ""
    finally:
        log = stop_node(node)
    assert log.count("alert: 2 of the last 2 jobs have failed") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("http: {listen: '0.0.0.0:0'}", "can be reached from other machines"),
        ("http: {listen: 'here'}", "is no address and port"),
        ("http: {listen: '127.0.0.1:0', certificate: node.yaml}", "needs both"),
        ("http: {listen: '127.0.0.1:0', certificate: node.yaml, key: node.yaml}", "cannot be used"),
        ("http: {lisen: '127.0.0.1:0'}", "did you mean 'listen'"),
    ],
)
def test_where_it_cannot_listen_it_does_not_start(
    tmp_path: Path, config: str, sentence: str, fake_library: Path, node: RunningNode
) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(config)
    words = ["-m", "lepton_rl.cli", "node", "start", "--foreground", "--state", str(tmp_path / "s"), "--config"]
    environment = node.fake.environment(fake_library)
    done = subprocess.run([sys.executable, *words, str(file)], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last


def test_it_starts_in_the_background_and_says_where_its_page_is(
    tmp_path: Path, fake_library: Path, node: RunningNode
) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "lepton_rl.cli", "node", *words, "--state", str(tmp_path / "s")]
        environment = node.fake.environment(fake_library)
        with (tmp_path / "out").open("w+") as out:  # a pipe would stay open in the daemon
            subprocess.run(command, env=environment, stdout=out, stderr=subprocess.STDOUT, check=True)
            out.seek(0)
            return out.read()

    said = run("start", "--http", "[::1]:0")
    try:
        assert re.search(r"^page: http://\[::1\]:\d+/$", said, re.MULTILINE), said
        token = run("token", "add", "me", "--role", "read").splitlines()[-1]
        url = re.findall(r"page: (\S+)/", said)[0]
        far = replace(node, url=url, tokens={"read": token})
        assert far.ask("GET", "/api/v1/ping", "read").body["http"] == url
    finally:
        run("stop")
