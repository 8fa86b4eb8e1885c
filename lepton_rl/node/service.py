"""What a node does for those who call it: each verb, who may use it, and its entry in the audit log."""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lepton_rl import __version__
from lepton_rl.core.units import JOULES_PER_KWH
from lepton_rl.errors import IllegalAction, JournalError, LeptonError, NodeError, NotYours, nearest
from lepton_rl.node import booking
from lepton_rl.node import messages as m
from lepton_rl.node.accounts import user_name
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.explain import Scoring, explain, own_scores
from lepton_rl.node.guard import Guard, Verdict
from lepton_rl.node.jobs import FINAL, JobRecord, JobState, RunRecord, StopHow
from lepton_rl.node.ledger import AuditEntry, Decision
from lepton_rl.node.log_page import read_page, tail_position
from lepton_rl.node.promotion import Promotion

_log = logging.getLogger(__name__)
DECISIONS_KEPT_S = 30 * 86_400.0
_TARGETS = ("job", "gpu", "reservation", "token")
COMMAND_WORDS, WORD_LENGTH = 20, 200
"""Of a command, in listings; `job` has all of it."""
_ASKED = (
    "cwd", "gpu_memory_mib", "cpus", "ram_mib", "compute_intensity", "time_sensitivity", "restartable",
    "checkpoint_signal", "checkpoint_grace_s", "stop_grace_s", "umask",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the user that the kernel or a token names, whether as an operator, or as one who looks at all jobs."""

    uid: int
    user: str
    operator: bool = False
    looks: bool = False

    def may_touch(self, record: JobRecord) -> bool:
        """Whether a job is the caller's own, or the caller an operator."""
        return self.operator or (record.request.uid, record.request.user) == (self.uid, self.user)


@dataclass(slots=True)
class _Submission:
    caller: Caller
    message: m.Submit
    answer: "asyncio.Future[dict[str, Any]]"


class Service:
    """The verbs of one node.

    Args:
        cluster: the node's jobs and GPUs.
        guard: who decides.
        about: what `ping` and `status` say of policy, mode and version.
        price_usd_per_kwh: for the cost in `usage`; None where it is not known.
        promotion: the result feedback.
    """

    def __init__(
        self,
        cluster: NodeCluster,
        guard: Guard,
        about: dict[str, Any] | None = None,
        price_usd_per_kwh: float | None = None,
        promotion: Promotion | None = None,
    ) -> None:
        self._cluster, self._guard = cluster, guard
        self._journal = cluster.journal
        self._about = {"version": __version__, **(about or {})}
        self._price = price_usd_per_kwh
        self.promotion = promotion or Promotion(cluster, guard)
        self._pending: list[_Submission] = []
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._decisions: list[Decision] = []
        self.refused = 0
        self.cluster, self.guard, self.about = cluster, guard, self._about
        self.private = False  # jobs are of several users: who only looks sees no command of another's
        self.check_user: Callable[[int], object] = lambda uid: None
        self.alerts: Callable[[], list[dict[str, Any]]] = list
        self.scoring: Scoring = own_scores
        self.change_tokens: Callable[[m.TokenAdd | m.TokenRevoke], dict[str, Any]] | None = None
        self.on_answer: Callable[[str, float], None] = lambda verb, seconds: None
        self._verbs: dict[type[m.Message], Callable[[Caller, Any], Any]] = {
            m.Ping: self._ping, m.Status: self._status, m.Queue: self._queue, m.Job: self._job,
            m.Log: self._log, m.Cancel: self._cancel, m.Explain: self._explain, m.Drain: self._drain,
            m.Resume: self._resume,
            m.Verify: self._verify, m.Reserve: self._reserve, m.Unreserve: self._unreserve, m.UsageOf: self._usage,
            m.Decisions: self._list_decisions, m.Audit: self._audit_log, m.Backup: self._backup, m.Stop: self._stop,
            m.Feedback: self._feedback, m.TokenAdd: self._token, m.TokenRevoke: self._token,
            m.Reservations: self._reservations,
        }  # fmt: skip

    async def call(self, caller: Caller, verb: object, arguments: dict[str, Any]) -> Any:
        """Do what was asked and return the result, plain data.

        Raises:
            LeptonError: it is refused, in a sentence; the refusal of a change is in the audit log.
        """
        message = m.parse(verb, arguments)
        began = time.perf_counter()
        try:
            return await self._answer(caller, str(verb), message, arguments)
        finally:
            if not isinstance(message, m.Wait):
                self.on_answer(str(verb), time.perf_counter() - began)

    async def _answer(self, caller: Caller, verb: str, message: m.Message, arguments: dict[str, Any]) -> Any:
        if isinstance(message, m.Submit):
            return await self._submit(caller, message)
        if isinstance(message, m.Wait):
            return await self._wait(caller, message)
        if not message.changes:
            return self._allowed(caller, message)
        try:
            result = self._allowed(caller, message)
        except LeptonError as error:
            self.refused += 1
            self._note(caller, verb, arguments, f"refused: {error}")
            raise
        self._note(caller, verb, arguments, "done")
        return result

    def refuse(self, caller: Caller, verb: str, arguments: dict[str, Any], why: str) -> None:
        """Write down that a change was refused before it came here."""
        self.refused += 1
        self._note(caller, verb, arguments, f"refused: {why}")

    def record(self, verdict: Verdict) -> None:
        """Keep a decision for the journal; those that do nothing and cast no doubt are only counted."""
        if not verdict.actions and not verdict.fallback_reason:
            return
        detail: dict[str, Any] = {"actions": [str(action) for action in verdict.actions[:50]], "by": verdict.by}
        if verdict.started:
            detail["started"] = dict(verdict.started)
        if len(verdict.actions) > len(detail["actions"]):
            detail["count"] = len(verdict.actions)
        if verdict.refused:
            detail["refused"] = list(verdict.refused)
        self._decisions.append(
            Decision(
                time=self._cluster.clock.wall(), policy=self._guard.policy_name, decision_s=verdict.seconds,
                fallback_reason=verdict.fallback_reason or None, detail=detail,
            )
        )  # fmt: skip

    def flush_decisions(self) -> None:
        """Write the decisions that were kept."""
        kept, self._decisions = self._decisions, []
        if kept:
            with self._journal.transaction():
                for decision in kept:
                    self._journal.ledger.decide(decision)

    def forget_old_decisions(self) -> None:
        """Remove decisions that nobody will ask for any more."""
        self._journal.ledger.forget_decisions(self._cluster.clock.wall() - DECISIONS_KEPT_S)

    def tell_waiters(self) -> None:
        """Answer those who wait for jobs that have ended."""
        for job in list(self._waiters):
            if self._journal.job(job).state in FINAL:
                for waiter in self._waiters.pop(job):
                    if not waiter.done():
                        waiter.set_result(None)

    def waits_for(self, job: int) -> bool:
        """Return whether somebody waits for the end of a job."""
        return any(not waiter.done() for waiter in self._waiters.get(job, ()))

    # Submitting: many at once in one commit ---------------------------------------------------------------------

    def _submit(self, caller: Caller, message: m.Submit) -> Awaitable[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        if not self._pending:
            loop.call_soon(self._commit_submissions)
        self._pending.append(_Submission(caller, message, answer))
        return answer

    def _commit_submissions(self) -> None:
        """Write down all that was submitted since the last commit; only then is anyone told."""
        pending, self._pending = self._pending, []
        accepted: list[tuple[_Submission, int]] = []
        refused: list[tuple[_Submission, LeptonError]] = []
        now = self._cluster.clock.wall()
        try:
            with self._journal.transaction():
                for submission in pending:
                    try:
                        accepted.append((submission, self._accept(submission, now)))
                    except JournalError:
                        raise
                    except LeptonError as error:
                        refused.append((submission, error))
        except Exception as error:  # nothing of the batch was written, and all who wait for it must hear so
            if not isinstance(error, LeptonError):
                _log.exception("jobs could not be taken in")
            refused = [(submission, _ours(error)) for submission in pending]
            accepted = []
        self.refused += len(refused)
        for _, job in accepted:
            self._cluster.submitted(job)
        for submission, job in accepted:
            if not submission.answer.done():  # else the client has left
                submission.answer.set_result({"job": job})
        for submission, problem in refused:
            if not submission.answer.done():
                submission.answer.set_exception(problem)

    def _accept(self, submission: _Submission, now: float) -> int:
        caller, message = submission.caller, submission.message
        try:
            self.check_user(caller.uid)
            request = message.request(caller.uid, caller.user)
            if self._cluster.rules.limit_requested and request.time_limit_s is None:
                request = replace(request, time_limit_s=request.requested_s)
            self._cluster.check(request)
        except LeptonError as error:
            self._enter(caller, "submit", message.name, f"refused: {error}", {}, now)
            raise
        job = self._journal.submit(request, now)
        self._enter(caller, "submit", f"job {job}", "done", {}, now)
        return job

    async def _wait(self, caller: Caller, message: m.Wait) -> dict[str, Any]:
        if self._own(caller, message.job).state not in FINAL:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiters.setdefault(message.job, [])
            waiting.append(waiter)
            try:
                await waiter
            finally:
                waiting.remove(waiter)
        return self._describe(caller, self._journal.job(message.job))

    # The other verbs ----------------------------------------------------------------------------------------------

    def _allowed(self, caller: Caller, message: m.Message) -> Any:
        if message.operators_only and not caller.operator:
            raise NodeError(
                f"only an operator of this node may {type(message).__name__.lower()}; you are {caller.user}"
            )
        return self._verbs[type(message)](caller, message)

    def _ping(self, caller: Caller, message: m.Ping) -> dict[str, Any]:
        return {**self._about, "policy": self._guard.policy_name, "time": self._cluster.clock.wall()}

    def _status(self, caller: Caller, message: m.Status) -> dict[str, Any]:
        latest = self._cluster.telemetry.latest()
        holders: dict[str, list[int]] = {}
        for run in self._journal.holding():
            for uuid in run.gpu_uuids:
                holders.setdefault(uuid, []).append(run.job)
        gpus = []
        for number, uuid in enumerate(self._cluster.hardware.uuids):
            status, reading = self._cluster.gpu_of(uuid), latest.device(uuid).filtered
            kind = self._cluster.hardware.cluster.group_of(number).gpu.name
            gpus.append(
                {
                    "gpu": number, "uuid": uuid, "type": kind, "state": status.state, "reason": status.reason,
                    "since": status.since, "jobs": holders.get(uuid, []), "utilisation": reading.utilisation,
                    "memory_used_bytes": reading.memory_used_bytes, "memory_total_bytes": reading.memory_total_bytes,
                    "power_mw": reading.power_mw, "power_limit_mw": reading.power_limit_mw,
                    "temperature_c": reading.temperature_c,
                }
            )  # fmt: skip
        trial = getattr(self._guard.policy, "told", None)
        fallbacks = {name: count for name, count in self._guard.counts.items() if name.startswith("fallback")}
        return {
            **self._ping(caller, m.Ping()),
            "jobs": {str(state): count for state, count in self._journal.counts().items()},
            "gpus": gpus,
            "reservations": booking.listed(self._cluster),
            "alerts": self.alerts(),
            "time_limit": "requested" if self._cluster.rules.limit_requested else "none",
            "decisions": self._guard.counts["decisions"],
            "fallbacks": fallbacks,
            "feedback": self.promotion.in_force or None,
            "trial": None if trial is None else trial(),
            "decision_p50_s": _median(sorted(self._guard.seconds)),
            "telemetry_age_s": self._cluster.clock.monotonic() - latest.monotonic_s,
        }

    def _queue(self, caller: Caller, message: m.Queue) -> list[dict[str, Any]]:
        if message.all or message.since is not None:
            records = self._journal.jobs(since=message.since)
        else:
            records = self._journal.jobs([state for state in JobState if state not in FINAL])
        return [self._describe(caller, record) for record in records]

    def _job(self, caller: Caller, message: m.Job) -> dict[str, Any]:
        record = self._own(caller, message.job)
        runs = [self._describe_run(run) for run in self._journal.runs(record.id)]
        return {
            **self._describe(caller, record),
            **{name: getattr(record.request, name) for name in _ASKED},
            "argv": list(record.request.argv),
            "env": dict(record.request.env),
            "runs": runs,
        }

    def _log(self, caller: Caller, message: m.Log) -> dict[str, Any]:
        record = self._own(caller, message.job)
        if record.run == 0:  # it has written nothing yet
            return {"begin": 0, "after": 0, "end": True, "data": ""}
        folder, stream = self._cluster.runs.folder(record.id, message.run or record.run), message.stream
        try:
            first = message.position if message.tail is None else tail_position(folder, stream, message.tail)
            page = read_page(folder, stream, first)
        except OSError as error:
            raise NodeError(f"job {record.id}: its {stream} cannot be read: {error.strerror}") from None
        data = base64.b64encode(page.data).decode()
        return {"begin": page.begin, "after": page.after, "end": page.end, "data": data}

    def _cancel(self, caller: Caller, message: m.Cancel) -> dict[str, Any]:
        record = self._own(caller, message.job)
        how = StopHow.KILL if message.kill else StopHow.STOP
        state = self._cluster.cancel(record.id, f"cancelled by {caller.user}", how)
        self.tell_waiters()
        return {"job": record.id, "state": state}

    def _explain(self, caller: Caller, message: m.Explain) -> dict[str, Any]:
        record = self._journal.job(message.job) if self._looks(caller) else self._own(caller, message.job)
        return explain(record, self._cluster, self._guard, self.scoring)

    def _drain(self, caller: Caller, message: m.Drain) -> dict[str, Any]:
        uuid = self._gpu(message.gpu)
        self._cluster.drain(uuid, message.reason)
        return {"gpu": uuid, "state": self._cluster.gpu_of(uuid).state}

    def _resume(self, caller: Caller, message: m.Resume) -> dict[str, Any]:
        uuid = self._gpu(message.gpu)
        self._cluster.resume(uuid)
        status = self._cluster.gpu_of(uuid)
        return {"gpu": uuid, "state": status.state, "reason": status.reason}

    def _verify(self, caller: Caller, message: m.Verify) -> list[dict[str, Any]]:
        self._cluster.verify(throughput=message.throughput)
        return [asdict(self._cluster.gpu_of(uuid)) for uuid in self._cluster.hardware.uuids]

    def _reserve(self, caller: Caller, message: m.Reserve) -> dict[str, Any]:
        return booking.reserve(self._cluster, caller.uid, caller.user, message)

    def _unreserve(self, caller: Caller, message: m.Unreserve) -> dict[str, Any]:
        return booking.unreserve(self._cluster, message.reservation)

    def _reservations(self, caller: Caller, message: m.Reservations) -> list[dict[str, Any]]:
        return booking.listed(self._cluster)

    def _usage(self, caller: Caller, message: m.UsageOf) -> list[dict[str, Any]]:
        rows = []
        for usage in self._journal.usage(message.by, message.since, self._cluster.clock.wall()):
            kwh = usage.energy_mj / 1e3 / JOULES_PER_KWH
            cost = None if self._price is None else kwh * self._price
            gpu_hours = usage.gpu_s / 3600.0
            name = user_name(int(usage.name)) if message.by == "user" and usage.name.isdecimal() else usage.name
            rows.append({"name": name, "jobs": usage.jobs, "gpu_hours": gpu_hours, "kwh": kwh, "cost_usd": cost})
        return rows

    def _list_decisions(self, caller: Caller, message: m.Decisions) -> list[dict[str, Any]]:
        self.flush_decisions()
        return [asdict(decision) for decision in self._journal.ledger.decisions(last=message.last)]

    def _audit_log(self, caller: Caller, message: m.Audit) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self._journal.ledger.audit_log(last=message.last)]

    def _backup(self, caller: Caller, message: m.Backup) -> dict[str, Any]:
        path = Path(message.path)
        if not path.is_absolute():
            raise NodeError(f"{message.path!r}: name the copy by an absolute path")
        if path.exists() and not message.overwrite:
            raise NodeError(f"{path}: there is such a file; name another one, or replace it with --overwrite")
        self._journal.backup(path)
        return {"path": str(path)}

    def _feedback(self, caller: Caller, message: m.Feedback) -> dict[str, Any]:
        return self.promotion.look(message.apply)

    def _token(self, caller: Caller, message: m.TokenAdd | m.TokenRevoke) -> dict[str, Any]:
        if self.change_tokens is None:
            raise NodeError("this node has no tokens")
        return self.change_tokens(message)

    def _stop(self, caller: Caller, message: m.Stop) -> dict[str, Any]:
        self._cluster.close()
        return {}

    # What they share ----------------------------------------------------------------------------------------------

    def _looks(self, caller: Caller) -> bool:
        return caller.looks and not self.private

    def _own(self, caller: Caller, job: int) -> JobRecord:
        record = self._journal.job(job)
        if not caller.may_touch(record):
            raise NotYours(f"job {job} is another user's")
        return record

    def _gpu(self, name: str) -> str:
        """UUID of a GPU given by its number or UUID."""
        uuids = self._cluster.hardware.uuids
        if name.isdecimal() and int(name) < len(uuids):
            return uuids[int(name)]
        if name in uuids:
            return name
        raise IllegalAction(f"there is no GPU {name!r}{nearest(name, uuids)}; this node has GPUs 0 to {len(uuids) - 1}")

    def _describe(self, caller: Caller, record: JobRecord) -> dict[str, Any]:
        """What a caller may know of a job: of another user's nothing that its command line tells, or may tell."""
        request = record.request
        mine = caller.may_touch(record) or self._looks(caller)
        return {
            "job": record.id, "name": request.name or (Path(request.argv[0]).name if mine else ""),
            "command": [word[:WORD_LENGTH] for word in request.argv[:COMMAND_WORDS]] if mine else None,
            "state": record.state, "user": request.user, "project": request.project, "queue": request.queue,
            "gpus": request.gpu_milli / 1000, "requested_s": request.requested_s, "time_limit_s": request.time_limit_s,
            "begin_time": request.begin_time,
            "priority": request.priority, "submit_time": record.submit_time, "start_time": record.start_time,
            "end_time": record.end_time, "exit_code": record.exit_code, "signal": record.signal,
            "reason": record.reason if mine else None, "run": record.run,
            "logs": str(self._cluster.runs.folder(record.id, record.run)) if mine and record.run else None,
        }  # fmt: skip

    def _describe_run(self, run: RunRecord) -> dict[str, Any]:
        wanted = (
            "run", "gpu_uuids", "decided_time", "started_time", "ended_time", "run_s", "outcome", "exit_code", "signal",
            "energy_mj", "peak_gpu_memory_mib", "cpu_s", "max_rss_kib", "log_bytes_dropped",
        )  # fmt: skip
        return {name: getattr(run, name) for name in wanted}

    def _note(self, caller: Caller, verb: str, arguments: dict[str, Any], outcome: str) -> None:
        target = next((f"{name} {arguments[name]}" for name in _TARGETS if name in arguments), "")
        self._enter(caller, verb, target, outcome, arguments, self._cluster.clock.wall())

    def _enter(self, caller: Caller, verb: str, target: str, outcome: str, detail: dict[str, Any], now: float) -> None:
        entry = AuditEntry(
            time=now, uid=caller.uid, user=caller.user, verb=verb, target=target, outcome=outcome, detail=detail
        )
        self._journal.ledger.audit(entry)


def _ours(error: Exception) -> LeptonError:
    return error if isinstance(error, LeptonError) else NodeError("the node could not do that; see its log")


def _median(ordered: Sequence[float]) -> float | None:
    return ordered[len(ordered) // 2] if ordered else None
