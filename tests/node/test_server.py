"""The socket: who may do what, and that nothing a client sends, or leaves unsent, harms the node."""

import asyncio
import json
import os
import pwd
import socket
import stat
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from lepton_rl.agents.registry import make_policy
from lepton_rl.core.actions import Start
from lepton_rl.errors import ConnectionLost, IllegalAction, JobError, LeptonError, NodeError
from lepton_rl.node.caller import Caller
from lepton_rl.node.client import NodeClient
from lepton_rl.node.guard import Guard
from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from lepton_rl.node.messages import MOST_BYTES, VERBS, parse
from lepton_rl.node.paths import JOURNAL
from lepton_rl.node.server import SocketServer
from lepton_rl.node.service import Service
from tests.fake_nvml import FakeNvml
from tests.node.live import PATIENT, LiveNode

T = TypeVar("T")
OPERATOR, ADA, BOB = Caller(0, "root", operator=True), Caller(1001, "ada"), Caller(1002, "bob")
SUBMIT: dict[str, Any] = {"argv": ["true"], "cwd": "/", "env": {"PATH": os.environ["PATH"]}}
ANYWHERE = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Served:
    """A node with a socket; client and server take turns in one loop."""

    def __init__(self, node: LiveNode, path: Path, group: int | None = None) -> None:
        policy = make_policy({"name": "fcfs", "blocking": "easy"})
        self.node, self.path = node, path
        self.guard = Guard(policy, policy, ("fcfs", "fcfs"))
        self.service = Service(node.cluster, self.guard, {"pid": os.getpid()}, price_usd_per_kwh=0.5)
        node.cluster.on_change = self.service.tell_waiters
        self.server = SocketServer(path, self.service, group=group)
        self.run(self.server.start())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Let the loop turn until this is done."""
        return self.node.cluster.loop.run_until_complete(asyncio.wait_for(coroutine, 60.0))

    def call(self, caller: Caller, verb: object, **arguments: Any) -> Any:
        """Ask the service as somebody."""
        return self.run(self.service.call(caller, verb, arguments))

    def submit(self, caller: Caller, **more: Any) -> int:
        """Submit a job as somebody."""
        return int(self.call(caller, "submit", **{**SUBMIT, **more})["job"])

    def say(self, data: bytes, *, half_close: bool = True) -> bytes:
        """Send bytes over a connection of their own; return all that comes back."""

        async def talk() -> bytes:
            reader, writer = await asyncio.open_unix_connection(self.path, limit=1 << 24)
            try:
                writer.write(data)
                if half_close:
                    writer.write_eof()
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

        return self.run(talk())

    def ask(self, *requests: Any) -> list[dict[str, Any]]:
        """Send requests over one connection; return the answers by id."""
        lines = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
        answers = [json.loads(line) for line in self.say(lines).splitlines()]
        return sorted(answers, key=lambda answer: str(answer["id"]))

    def with_client(self, use: Any) -> Any:
        """Use the synchronous client in a thread of its own."""

        def call() -> Any:
            with NodeClient(self.path) as client:
                return use(client)

        async def wait() -> Any:
            return await asyncio.get_running_loop().run_in_executor(None, call)

        return self.run(wait())

    def is_well(self) -> None:
        """Check that the node still answers, to the point."""
        (answer,) = self.ask({"id": 1, "verb": "ping"})
        assert answer["ok"], answer
        assert answer["result"]["policy"] == "fcfs"


@pytest.fixture
def served(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[Served]:
    """A node that listens, where no policy decides by itself."""
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        served = Served(node.ready(), tmp_path / "socket")
        yield served
        served.run(served.server.close())


# Who may do what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["job", "cancel", "wait", "explain"])
def test_a_stranger_neither_reads_nor_ends_the_job_of_another(verb: str, served: Served) -> None:
    job = served.submit(ADA)
    with pytest.raises(NodeError, match=f"^job {job} is another user's$"):
        served.call(BOB, verb, job=job)
    assert served.node.job(job).state is JobState.WAITING


@pytest.mark.parametrize("caller", [ADA, OPERATOR])
def test_owner_and_operator_read_and_end_a_job(caller: Caller, served: Served) -> None:
    job = served.submit(ADA, argv=["sleep", "7"], env={"A": "b"}, gpu_memory_mib=512, cpus=1.0, restartable=True)
    found = served.call(caller, "job", job=job)
    assert (found["argv"], found["env"], found["cwd"]) == (["sleep", "7"], {"A": "b"}, "/")
    assert (found["gpu_memory_mib"], found["cpus"], found["ram_mib"]) == (512, 1.0, None)
    assert (found["restartable"], found["checkpoint_signal"], found["checkpoint_grace_s"]) == (True, 10, 60.0)
    assert served.call(caller, "explain", job=job)["state"] == "waiting"
    assert served.call(caller, "cancel", job=job) == {"job": job, "state": "cancelled"}
    assert served.call(caller, "wait", job=job)["reason"] == f"cancelled by {caller.user}"


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("drain", {"gpu": "0"}),
        ("resume", {"gpu": "0"}),
        ("verify", {}),
        ("reserve", {"gpus": 1, "begin_time": 0.0, "duration_s": 1e10}),
        ("unreserve", {"reservation": 1}),
        ("audit", {}),
        ("backup", {"path": "/tmp/never"}),
        ("stop", {}),
    ],
)
def test_only_an_operator_may(verb: str, arguments: dict[str, Any], served: Served) -> None:
    with pytest.raises(NodeError, match=f"^only an operator of this node may {verb}; you are ada$"):
        served.call(ADA, verb, **arguments)
    assert served.node.state(0).value == "available"
    assert not Path("/tmp/never").exists()


def test_every_verb_that_changes_something_is_in_the_audit_log_refused_or_done(served: Served) -> None:
    job = served.submit(ADA)
    with pytest.raises(NodeError):
        served.call(BOB, "cancel", job=job)
    served.call(ADA, "cancel", job=job)
    with pytest.raises(JobError):
        served.submit(BOB, gpus=64.0)
    served.call(OPERATOR, "drain", gpu="2", reason="dust")
    entries = [(e["user"], e["verb"], e["target"], e["outcome"][:7]) for e in served.call(OPERATOR, "audit")]
    assert entries == [
        ("ada", "submit", f"job {job}", "done"),
        ("bob", "cancel", f"job {job}", "refused"),
        ("ada", "cancel", f"job {job}", "done"),
        ("bob", "submit", "", "refused"),
        ("root", "drain", "gpu 2", "done"),
    ]


def test_what_the_verbs_of_an_operator_do(served: Served, tmp_path: Path) -> None:
    uuid = served.node.cluster.hardware.uuids[1]
    assert served.call(OPERATOR, "drain", gpu=uuid)["state"] == "drained"
    assert served.call(OPERATOR, "resume", gpu="1")["state"] == "available"
    now = time.time()
    made = served.call(OPERATOR, "reserve", gpus=3, begin_time=now + 100, duration_s=50.0)
    assert made["gpus"] == list(served.node.cluster.hardware.uuids[1:])
    assert (made["numbers"], made["user"], made["end_time"]) == ([1, 2, 3], "root", now + 150)
    assert served.call(BOB, "reservations") == served.call(BOB, "status")["reservations"] == [made]
    with pytest.raises(NodeError, match="there is no user 'nosuchuser' on this machine"):
        served.call(OPERATOR, "reserve", gpus=1, begin_time=now + 300, duration_s=50.0, user="nosuchuser")
    served.submit(ADA)  # no account here, but jobs of hers come
    other = served.call(OPERATOR, "reserve", gpus=1, begin_time=now + 300, duration_s=50.0, user="ada")
    served.call(OPERATOR, "unreserve", reservation=other["reservation"])
    with pytest.raises(NodeError, match="only 1 GPU is not reserved by others then; 2 were asked for"):
        served.call(OPERATOR, "reserve", gpus=2, begin_time=now + 120, duration_s=50.0)
    assert served.call(OPERATOR, "unreserve", reservation=made["reservation"]) == {"reservation": made["reservation"]}
    assert served.call(BOB, "reservations") == []
    with pytest.raises(NodeError, match="there is no reservation 1 to give up; `lepton-rl node reservations` lists"):
        served.call(OPERATOR, "unreserve", reservation=1)
    with pytest.raises(IllegalAction, match="there is no GPU '9'; this node has GPUs 0 to 3"):
        served.call(OPERATOR, "drain", gpu="9")
    with pytest.raises(NodeError, match="by an absolute path"):
        served.call(OPERATOR, "backup", path="here")
    served.call(OPERATOR, "backup", path=str(tmp_path / "copy"))
    assert (tmp_path / "copy").stat().st_size > 0
    with pytest.raises(NodeError, match="copy: there is such a file; name another one, or replace it with --over"):
        served.call(OPERATOR, "backup", path=str(tmp_path / "copy"))
    served.call(OPERATOR, "backup", path=str(tmp_path / "copy"), overwrite=True)
    assert [gpu["state"] for gpu in served.call(OPERATOR, "verify")] == ["available"] * 4


def test_usage_counts_gpu_hours_energy_and_cost(served: Served) -> None:
    job = served.submit(ADA, argv=["sleep", "1000"], gpus=2.0, project="vision")
    served.node.cluster.apply(Start(job))
    served.node.wait_for(job, JobState.RUNNING)
    before = served.node.fake.energy_mj(0)
    served.node.until(lambda: served.node.fake.energy_mj(0) > before + 30_000, "half a second at 62 W")
    served.call(ADA, "cancel", job=job)
    served.node.wait_for(job, JobState.CANCELLED)
    (row,) = served.call(ADA, "usage", by="project")
    assert (row["name"], row["jobs"]) == ("vision", 1)
    assert row["gpu_hours"] > 0
    assert row["kwh"] > 0
    assert row["cost_usd"] == pytest.approx(0.5 * row["kwh"])


def test_status_and_queue_tell_what_there_is(served: Served) -> None:
    first, second = served.submit(ADA), served.submit(BOB, argv=["sh", "-c", PATIENT])
    served.node.cluster.apply(Start(second, (1,)))
    served.node.running(second)
    found = served.call(ADA, "status")
    assert (found["jobs"]["waiting"], found["jobs"]["running"]) == (1, 1)
    assert [gpu["jobs"] for gpu in found["gpus"]] == [[], [second], [], []]
    assert [(job["job"], job["user"], job["state"]) for job in served.call(ADA, "queue")] == [
        (first, "ada", "waiting"),
        (second, "bob", "running"),
    ]
    served.call(ADA, "cancel", job=first)
    assert [job["job"] for job in served.call(ADA, "queue")] == [second]
    assert len(served.call(ADA, "queue", all=True)) == 2
    assert served.call(ADA, "queue", since=time.time() + 60.0) == []
    assert served.call(ADA, "decisions") == []


# The socket itself --------------------------------------------------------------------------------------------------


def test_the_caller_is_who_the_kernel_says_whatever_the_request_says(served: Served) -> None:
    (answer,) = served.ask({"id": 1, "verb": "submit", **SUBMIT})
    assert served.node.job(answer["result"]["job"]).request.uid == os.geteuid()
    assert served.node.job(answer["result"]["job"]).request.user == pwd.getpwuid(os.geteuid()).pw_name
    (answer,) = served.ask({"id": 1, "verb": "submit", **SUBMIT, "uid": 1001})
    assert answer["error"] == "submit: there is no argument 'uid'"


def speak_as_nobody(path: Path, go: int, tell: int) -> None:
    """In a child: become user 65534, and ask for another's job and to stop the daemon."""
    found = b"it could not even connect"
    try:
        os.read(go, 1)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b'{"id": 1, "verb": "job", "job": 1}\n{"id": 2, "verb": "stop"}\n')
            client.shutdown(socket.SHUT_WR)
            found = b""
            while block := client.recv(65536):
                found += block
    finally:
        os.write(tell, found)
        os._exit(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_of_the_group_is_a_stranger(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    (go, goer), (heard, tell) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "socket"
        Path(folder).chmod(0o755)
        child = os.fork()  # before there are threads
        if child == 0:
            speak_as_nobody(path, go, tell)
        with LiveNode(tmp_path, four_gpus, fake_library) as node:
            served = Served(node, path, group=65534)
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            served.submit(OPERATOR)
            os.write(goer, b"g")

            async def ended() -> None:
                await asyncio.get_running_loop().run_in_executor(None, os.waitpid, child, 0)

            served.run(ended())
            answers = os.read(heard, 65536).decode()
            served.is_well()
            served.run(served.server.close())
    for end in (go, goer, heard, tell):
        os.close(end)
    assert "job 1 is another user's" in answers
    assert "only an operator of this node may stop" in answers


def test_only_the_owner_can_open_the_socket_of_a_personal_node(served: Served) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


def test_a_socket_that_was_removed_is_made_again(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.run(served.server.keep())
    assert not caplog.records
    connected = served.node.cluster.loop.run_until_complete(asyncio.open_unix_connection(served.path))
    served.path.unlink()
    with pytest.raises(NodeError, match="no node answers here"):
        NodeClient(served.path)
    served.run(served.server.keep())
    served.is_well()
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600
    assert "was gone; listening there again" in caplog.text
    reader, writer = connected
    writer.write(b'{"id": 1, "verb": "ping"}\n')
    assert json.loads(served.run(reader.readline()))["ok"]
    writer.close()


def test_what_lies_in_the_place_of_its_socket_is_told_once_and_taken_when_it_may_be(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.path.unlink()
    served.path.write_text("mine")
    for _ in range(3):
        served.run(served.server.keep())
    assert caplog.text.count("nobody can call this node") == 1
    assert served.path.read_text() == "mine"
    served.path.unlink()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(served.path))
    served.run(served.server.keep())
    served.is_well()
    assert "was another file; listening there again" in caplog.text


def test_another_daemons_socket_is_not_removed_at_the_end(served: Served, tmp_path: Path) -> None:
    server = SocketServer(tmp_path / "second", served.service)
    served.run(server.start())
    (tmp_path / "second").unlink()
    other = SocketServer(tmp_path / "second", served.service)
    served.run(other.start())
    served.run(server.close())
    assert (tmp_path / "second").exists()
    served.run(other.close())


def test_a_socket_in_use_is_left_alone_and_a_stale_one_is_taken(served: Served, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="another daemon listens here"):
        served.run(SocketServer(served.path, served.service).start())
    served.is_well()
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    server = SocketServer(stale, served.service)
    served.run(server.start())
    served.run(server.close())
    assert not stale.exists()
    stale.write_text("mine")
    with pytest.raises(NodeError, match="there is a file that is no socket"):
        served.run(server.start())
    assert stale.read_text() == "mine"
    with pytest.raises(NodeError, match="at most 107 bytes"):
        served.run(SocketServer(tmp_path / ("x" * 110), served.service).start())


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", "a request must be one line of JSON"),
        (b"[1, 2]\n", 'a request must be an object, as {"id": 1, "verb": "status"}'),
        (b'{"id": [1], "verb": "ping"}\n', "the id of a request must be a number or text"),
        (b'{"id": 1, "verb": "statsu"}\n', "there is no verb 'statsu'; did you mean 'status'?; known: ping, status"),
        (b'{"id": 1}\n', 'a request names a verb, as {"id": 1, "verb": "status"}'),
        (
            b'{"id": 1, "verb": "submit", "argv": ["a"], "cwd": "/", "umask": 512}\n',
            "submit: umask: must be less than or equal to 511, not 512",
        ),
        (
            b'{"id": 1, "verb": "submit", "argv": ["a"], "cwd": "/", "gpus": 1.5}\n',
            "1.5 GPUs: ask for a whole number, or for a share below 1",
        ),
        (
            b'{"id": 1, "verb": "submit", "argv": ["a"], "cwd": "/", "cpus": 100000}\n',
            "no GPU of this node can ever run a job that asks for 1 GPU, 100,000 CPU cores; it has 1 x 4 A100",
        ),
        (b'{"id": 1, "verb": "job", "jbo": 3}\n', "job: job: is missing"),
        (b'{"id": 1, "verb": "job", "job": "3"}\n', "job: job: must be a whole number, not '3'"),
        (b'{"id": 1, "verb": "queue", "al": true}\n', "queue: there is no argument 'al'; did you mean 'all'?"),
        (b'{"id": 1, "verb": "ping"}', "a request must end with a newline"),
        (b"[" * 100_000 + b"\n", "a request must be one line of JSON"),
        (b'{"id": 1, "verb": "submit", "argv": [], "cwd": "/"}\n', "submit: argv: must have at least 1 entry, not 0"),
        (
            b'{"id": 1, "verb": "submit", "argv": ["a"], "cwd": "/", "gpus": NaN}\n',
            "submit: gpus: must be a finite number, not nan",
        ),
    ],
)
def test_a_wrong_request_is_answered_by_a_sentence(line: bytes, error: str, served: Served) -> None:
    (answer,) = (json.loads(found) for found in served.say(line).splitlines())
    assert not answer["ok"]
    assert answer["error"].startswith(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(data=st.binary(max_size=400))
@ANYWHERE
def test_random_bytes_do_no_harm(data: bytes, served: Served) -> None:
    served.say(data)
    served.is_well()


@given(requests=st.lists(JSON, max_size=4))
@ANYWHERE
def test_json_of_any_shape_gets_an_answer_for_each_line(requests: list[Any], served: Served) -> None:
    lines = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
    assert len(served.say(lines).splitlines()) == len(requests)
    served.is_well()


@st.composite
def near_requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests of a known verb with arguments that it knows, of any value."""
    verb = draw(st.sampled_from([verb for verb in VERBS if verb not in ("stop", "wait", "backup")]))
    names = st.sampled_from([*VERBS[verb].model_fields, "more"])
    values = JSON | st.sampled_from([1, 2, "0", "3", 1e300, -1, 2**70, "\ud800", ["true"], "/"])
    request = {**draw(st.dictionaries(names, values, max_size=6)), "id": 1, "verb": verb}
    if verb == "submit" and draw(st.booleans()):
        request = {**SUBMIT, **request}
    return request


@given(request=near_requests())
@ANYWHERE
def test_requests_that_are_nearly_right_are_done_or_refused_in_a_sentence(
    request: dict[str, Any], served: Served
) -> None:
    jobs = len(served.node.journal.jobs())
    (answer,) = served.ask(request)
    assert answer["ok"] or "an error of ours" not in answer["error"], answer
    accepted = answer["ok"] and request["verb"] == "submit"
    assert len(served.node.journal.jobs()) == jobs + accepted
    served.is_well()


def test_a_line_that_is_too_long_is_refused_and_others_are_answered(served: Served) -> None:
    job = served.submit(ADA)
    served.say(b'{"verb": "' + b"x" * (2 * MOST_BYTES) + b'"}\n', half_close=False)
    served.is_well()
    assert served.node.job(job).state is JobState.WAITING


def test_a_line_of_nearly_the_most_bytes_is_taken(served: Served) -> None:
    (answer,) = served.ask({"id": 1, "verb": "submit", **SUBMIT, "env": {"BIG": "x" * (MOST_BYTES - 5000)}})
    assert answer["ok"], answer


def test_clients_that_hang_up_before_the_answer_leave_whole_jobs_and_a_node_that_answers(served: Served) -> None:
    async def hang_up(data: bytes) -> None:
        _, writer = await asyncio.open_unix_connection(served.path)
        writer.write(data)
        await writer.drain()
        writer.transport.abort()

    line = json.dumps({"id": 1, "verb": "submit", **SUBMIT}).encode() + b"\n"
    wrong = json.dumps({"id": 1, "verb": "submit", **SUBMIT, "gpus": 64}).encode() + b"\n"

    async def many() -> None:
        await asyncio.gather(*(hang_up(data) for data in (line, wrong, line[:20], b"", line + wrong + line) * 20))

    served.run(many())
    served.is_well()
    found = served.node.journal.jobs()
    assert all(job.state is JobState.WAITING for job in found)
    (answer,) = served.ask({"id": 1, "verb": "submit", **SUBMIT})
    assert answer["result"]["job"] == len(found) + 1


def test_one_refused_job_does_not_take_those_of_the_same_moment_with_it(served: Served) -> None:
    lines = [{"id": n, "verb": "submit", **SUBMIT, "gpus": 64 if n == 3 else 1} for n in range(6)]
    answers = served.ask(*lines)
    assert [answer["ok"] for answer in answers] == [True, True, True, False, True, True]
    assert "can ever run a job that asks for 64 GPUs" in answers[3]["error"]
    assert len(served.node.journal.jobs()) == 5


def test_many_jobs_over_one_connection_are_all_there_in_their_order(served: Served) -> None:
    count = 3000
    asked = [("submit", {**SUBMIT, "name": str(number)}) for number in range(count)]
    numbers = [answer["job"] for answer in served.with_client(lambda client: list(client.call_each(asked)))]
    assert numbers == list(range(1, count + 1))
    assert [job.request.name for job in served.node.journal.jobs()] == [str(number) for number in range(count)]


def test_many_clients_at_once_get_each_their_own_answers(served: Served) -> None:
    async def client(number: int) -> list[int]:
        reader, writer = await asyncio.open_unix_connection(served.path)
        for request in range(5):
            writer.write(json.dumps({"id": number * 10 + request, "verb": "submit", **SUBMIT}).encode() + b"\n")
        answers = [json.loads(await reader.readline()) for _ in range(5)]
        writer.close()
        assert [answer["id"] for answer in answers] == [number * 10 + request for request in range(5)]
        return [answer["result"]["job"] for answer in answers]

    async def many() -> list[list[int]]:
        return await asyncio.gather(*(client(number) for number in range(60)))

    jobs = [job for found in served.run(many()) for job in found]
    assert sorted(jobs) == list(range(1, 301))


def test_a_client_that_reads_no_answers_holds_nobody_else_up(served: Served) -> None:
    async def ask_without_reading() -> asyncio.StreamWriter:
        _, writer = await asyncio.open_unix_connection(served.path, limit=1)
        writer.write(b'{"id": 1, "verb": "status"}\n' * 3000)
        return writer

    writer = served.run(ask_without_reading())
    for _ in range(3):
        served.is_well()
    writer.transport.abort()
    served.is_well()


def test_waiting_for_a_job_ends_with_it(served: Served) -> None:
    job = served.submit(OPERATOR, argv=["sh", "-c", "exit 4"])

    async def wait() -> Any:
        found = asyncio.create_task(served.service.call(OPERATOR, "wait", {"job": job}))
        await asyncio.sleep(0)
        assert not found.done()
        served.node.cluster.apply(Start(job))
        return await found

    ended = served.run(wait())
    assert (ended["state"], ended["exit_code"]) == ("failed", 4)
    assert served.call(OPERATOR, "wait", job=job)["state"] == "failed"


def test_the_client_says_what_is_wrong(served: Served, tmp_path: Path) -> None:
    for name in ("held", "empty"):
        (tmp_path / name).mkdir()
    with pytest.raises(NodeError, match="no node answers here; start one with `lepton-rl node start`"):
        NodeClient(tmp_path / "empty" / "socket")
    with (
        Journal(tmp_path / "held" / JOURNAL),
        pytest.raises(NodeError, match=rf"process {os.getpid()}, holds the journal: .* `kill {os.getpid()}`"),
    ):
        NodeClient(tmp_path / "held" / "socket")
    with pytest.raises(LeptonError, match="there is no job 5"):
        served.with_client(lambda client: client.call("job", job=5))

    def twice(client: NodeClient) -> str:
        with pytest.raises(NodeError):
            client.call("job", job=5)
        return str(client.call("ping")["policy"])

    assert served.with_client(twice) == "fcfs"


def test_a_node_that_goes_away_is_told_to_the_client(served: Served) -> None:
    job = served.submit(OPERATOR)

    def wait() -> None:
        with NodeClient(served.path) as client, pytest.raises(ConnectionLost, match="the node has hung up"):
            client.call("wait", job=job)

    async def go_away() -> None:
        waiting = asyncio.get_running_loop().run_in_executor(None, wait)
        while not served.service.waits_for(job):
            await asyncio.sleep(0.005)
        await served.server.close()
        await waiting

    served.run(go_away())


@given(verb=st.sampled_from([*VERBS, "", "x" * 100_000]), arguments=st.dictionaries(st.text(max_size=9), JSON))
@settings(max_examples=200)
def test_a_request_is_a_message_or_a_sentence(verb: str, arguments: dict[str, Any]) -> None:
    refusal = ""
    try:
        assert type(parse(verb, arguments)) is VERBS[verb]
    except NodeError as error:
        refusal = str(error)
    assert len(refusal) < 600
    assert "\n" not in refusal
