"""What a client may ask of a node: one model for each verb, checked before anything is done.

On the wire a request is one line of JSON, `{"id": 7, "verb": "submit", ...}`, and so is its answer: `{"id": 7, "ok":
true, "result": ...}` or `{"id": 7, "ok": false, "error": "a sentence"}`. Answers come in the order in which they are
ready, so that a client may send many requests at once.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_rl.errors import NodeError, in_words, nearest
from lepton_rl.node.jobs import MOST_UMASK, JobRequest, check_request

MOST_BYTES = 1 << 20
"""Of one request."""
_LONGEST_NAME = 60  # longer ones are not compared, nor told in full
Text = Annotated[str, Field(max_length=4096)]
JobId = Annotated[int, Field(ge=1, le=2**53)]
Seconds = Annotated[float, Field(gt=0, le=1e10, allow_inf_nan=False)]


class Message(BaseModel):
    """A request of one verb."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    changes: ClassVar[bool] = False  # goes to the audit log
    operators_only: ClassVar[bool] = False


class Ping(Message):
    """Whether the node lives, and what it is."""


class Status(Message):
    """GPUs, counts of jobs, policy and decisions."""


class Queue(Message):
    """Jobs that have not ended, or those that ended since a time."""

    since: float | None = None
    all: bool = False


class Submit(Message):
    """A new job."""

    changes = True
    argv: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    cwd: Text
    env: dict[str, str] = Field(default_factory=dict)
    project: Text = ""
    queue: Text = "default"
    name: Text = ""
    gpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    gpu_memory_mib: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    cpus: Annotated[float, Field(gt=0, le=1e6)] | None = None
    ram_mib: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    begin_time: Annotated[float, Field(ge=0, le=1e11)] = 0.0
    requested_s: Seconds | None = None
    time_limit_s: Seconds | None = None
    priority: Annotated[float, Field(ge=-1e9, le=1e9)] = 0.0
    compute_intensity: Annotated[float, Field(ge=0, le=1e9)] | None = None
    time_sensitivity: Annotated[float, Field(ge=0, le=1e9)] | None = None
    restartable: bool = False
    checkpoint_signal: Annotated[int, Field(ge=1, le=64)] = 10
    checkpoint_grace_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    stop_grace_s: Annotated[float, Field(ge=0, le=86_400)] = 10.0
    umask: Annotated[int, Field(ge=0, le=MOST_UMASK)] | None = None

    def request(self, uid: int, user: str) -> JobRequest:
        """Return the job as the journal holds it, of this user.

        Raises:
            JobError: no node could run it.
        """
        values: dict[str, Any] = self.model_dump(exclude={"gpus", "argv"})
        request = JobRequest(argv=tuple(self.argv), uid=uid, user=user, gpu_milli=round(self.gpus * 1000), **values)
        check_request(request)
        return request


class Job(Message):
    """One job with its runs."""

    job: JobId


class Log(Message):
    """A piece of what a run has written, from a position on (bytes since its beginning), or its last lines."""

    job: JobId
    run: JobId | None = None  # the newest
    stream: Literal["stdout", "stderr"] = "stdout"
    position: Annotated[int, Field(ge=0, le=2**53)] = 0
    tail: Annotated[int, Field(ge=0, le=100_000)] | None = None


class Cancel(Message):
    """End a job."""

    changes = True
    job: JobId
    kill: bool = False


class Wait(Message):
    """Answered when the job has ended."""

    job: JobId


class Explain(Message):
    """Why a job waits."""

    job: JobId


class Drain(Message):
    """Let a GPU take no new work."""

    changes = True
    operators_only = True
    gpu: Text
    reason: Text = "drained by an operator"


class Resume(Message):
    """Undo a drain; forget the errors of a repaired GPU."""

    changes = True
    operators_only = True
    gpu: Text


class Verify(Message):
    """Accept GPUs anew; with `throughput` they are measured for that, which takes a while."""

    changes = True
    operators_only = True
    throughput: bool = False


class Reserve(Message):
    """Keep GPUs free for a user between two times."""

    changes = True
    operators_only = True
    gpus: Annotated[int, Field(ge=1, le=1024)]
    begin_time: Annotated[float, Field(ge=0, le=1e11)]
    duration_s: Seconds
    user: Text = ""
    reason: Text = ""


class Unreserve(Message):
    """Give up a reservation."""

    changes = True
    operators_only = True
    reservation: JobId


class Reservations(Message):
    """Reservations in force and ahead."""


class UsageOf(Message):
    """What users, projects or queues have used."""

    by: Literal["user", "project", "queue"] = "user"
    since: float = 0.0


class Decisions(Message):
    """The newest decisions."""

    last: Annotated[int, Field(ge=1, le=10_000)] = 50


class Audit(Message):
    """The newest entries of the audit log."""

    operators_only = True
    last: Annotated[int, Field(ge=1, le=10_000)] = 50


class Backup(Message):
    """Copy the journal while jobs go on."""

    changes = True
    operators_only = True
    path: Text
    overwrite: bool = False


class Feedback(Message):
    """What results ask for, and with `apply` do it."""

    changes = True
    operators_only = True
    apply: bool = False


class TokenAdd(Message):
    """Make a token for HTTP; `token` is its name."""

    changes = True
    operators_only = True
    token: Text
    role: Text
    user: Text = ""
    expires: Annotated[float, Field(ge=0, le=1e11)] | None = None


class TokenRevoke(Message):
    """Take a token back, by its name."""

    changes = True
    operators_only = True
    token: Text


class Stop(Message):
    """End the daemon; jobs go on and the next one finds them."""

    changes = True
    operators_only = True


VERBS: dict[str, type[Message]] = {
    "ping": Ping, "status": Status, "queue": Queue, "submit": Submit, "job": Job, "log": Log, "cancel": Cancel,
    "wait": Wait, "explain": Explain, "drain": Drain, "resume": Resume, "verify": Verify, "reserve": Reserve,
    "unreserve": Unreserve, "usage": UsageOf, "decisions": Decisions, "audit": Audit, "backup": Backup,
    "feedback": Feedback, "token_add": TokenAdd, "token_revoke": TokenRevoke, "stop": Stop,
    "reservations": Reservations,
}  # fmt: skip


def parse(verb: object, arguments: dict[str, Any]) -> Message:
    """Return a request, checked.

    Raises:
        NodeError: there is no such verb, or an argument is missing, unknown or wrong.
    """
    if verb is None:
        raise NodeError('a request names a verb, as {"id": 1, "verb": "status"}')
    if not isinstance(verb, str) or verb not in VERBS:
        close = nearest(verb, VERBS) if isinstance(verb, str) and len(verb) < _LONGEST_NAME else ""
        raise NodeError(f"there is no verb {str(verb)[:60]!r}{close}; known: {', '.join(VERBS)}")
    try:
        return VERBS[verb].model_validate(arguments)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))[:_LONGEST_NAME]
        if problem["type"] == "extra_forbidden":
            known = VERBS[verb].model_fields
            raise NodeError(f"{verb}: there is no argument {place!r}{nearest(place, known)}") from None
        raise NodeError(f"{verb}: {place}: {in_words(problem)}") from None
