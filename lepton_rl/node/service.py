"""What a node does for those who call it: each verb, who may use it, and its entry in the audit log."""

import asyncio
import base64
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lepton_rl import __version__
from lepton_rl.core.units import JOULES_PER_KWH
from lepton_rl.errors import IllegalAction, LeptonError, NodeError, NotYours, nearest
from lepton_rl.node import booking
from lepton_rl.node import messages as m
from lepton_rl.node.accounts import user_name
from lepton_rl.node.audit import Audit
from lepton_rl.node.caller import Caller
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.decision_log import DecisionLog
from lepton_rl.node.descriptions import describe_gpus, describe_job, describe_request, describe_run
from lepton_rl.node.explain import Scoring, explain, own_scores
from lepton_rl.node.guard import Guard
from lepton_rl.node.jobs import FINAL, JobRecord, JobState, StopHow
from lepton_rl.node.log_page import read_page, tail_position
from lepton_rl.node.promotion import Promotion
from lepton_rl.node.submissions import Submissions


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
        self.cluster, self.guard = cluster, guard
        self._journal = cluster.journal
        self.about = {"version": __version__, **(about or {})}
        self._price = price_usd_per_kwh
        self.promotion = promotion or Promotion(cluster, guard)
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self.audit = Audit(self._journal.ledger, cluster.clock)
        self.decisions = DecisionLog(self._journal, cluster.clock)
        self.submissions = Submissions(cluster, self.audit)
        self.private = False  # jobs are of several users: who only looks sees no command of another's
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
            return await self.submissions.submit(caller, message)
        if isinstance(message, m.Wait):
            return await self._wait(caller, message)
        if not message.changes:
            return self._allowed(caller, message)
        try:
            result = self._allowed(caller, message)
        except LeptonError as error:
            self.audit.refuse(caller, verb, arguments, error)
            raise
        self.audit.done(caller, verb, arguments)
        return result

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
        return {**self.about, "policy": self.guard.policy_name, "time": self.cluster.clock.wall()}

    def _status(self, caller: Caller, message: m.Status) -> dict[str, Any]:
        trial = getattr(self.guard.policy, "told", None)
        fallbacks = {name: count for name, count in self.guard.counts.items() if name.startswith("fallback")}
        return {
            **self._ping(caller, m.Ping()),
            "jobs": {str(state): count for state, count in self._journal.counts().items()},
            "gpus": self._gpus(),
            "reservations": booking.listed(self.cluster),
            "alerts": self.alerts(),
            "time_limit": "requested" if self.cluster.rules.limit_requested else "none",
            "decisions": self.guard.counts["decisions"],
            "fallbacks": fallbacks,
            "feedback": self.promotion.in_force or None,
            "trial": None if trial is None else trial(),
            "decision_p50_s": _median(sorted(self.guard.seconds)),
            "telemetry_age_s": self.cluster.clock.monotonic() - self.cluster.telemetry.latest().monotonic_s,
        }

    def _queue(self, caller: Caller, message: m.Queue) -> list[dict[str, Any]]:
        if message.all or message.since is not None:
            records = self._journal.jobs(since=message.since)
        else:
            records = self._journal.jobs([state for state in JobState if state not in FINAL])
        return [self._describe(caller, record) for record in records]

    def _job(self, caller: Caller, message: m.Job) -> dict[str, Any]:
        record = self._own(caller, message.job)
        runs = [describe_run(run) for run in self._journal.runs(record.id)]
        return {**self._describe(caller, record), **describe_request(record), "runs": runs}

    def _log(self, caller: Caller, message: m.Log) -> dict[str, Any]:
        record = self._own(caller, message.job)
        if record.run == 0:  # it has written nothing yet
            return {"begin": 0, "after": 0, "end": True, "data": ""}
        folder, stream = self.cluster.runs.folder(record.id, message.run or record.run), message.stream
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
        state = self.cluster.cancel(record.id, f"cancelled by {caller.user}", how)
        self.tell_waiters()
        return {"job": record.id, "state": state}

    def _explain(self, caller: Caller, message: m.Explain) -> dict[str, Any]:
        record = self._journal.job(message.job) if self._looks(caller) else self._own(caller, message.job)
        return explain(record, self.cluster, self.guard, self.scoring)

    def _drain(self, caller: Caller, message: m.Drain) -> dict[str, Any]:
        uuid = self._gpu(message.gpu)
        self.cluster.drain(uuid, message.reason)
        return {"gpu": uuid, "state": self.cluster.gpu_of(uuid).state}

    def _resume(self, caller: Caller, message: m.Resume) -> dict[str, Any]:
        uuid = self._gpu(message.gpu)
        self.cluster.resume(uuid)
        status = self.cluster.gpu_of(uuid)
        return {"gpu": uuid, "state": status.state, "reason": status.reason}

    def _verify(self, caller: Caller, message: m.Verify) -> list[dict[str, Any]]:
        self.cluster.verify(throughput=message.throughput)
        return self._gpus()

    def _reserve(self, caller: Caller, message: m.Reserve) -> dict[str, Any]:
        return booking.reserve(self.cluster, caller.uid, caller.user, message)

    def _unreserve(self, caller: Caller, message: m.Unreserve) -> dict[str, Any]:
        return booking.unreserve(self.cluster, message.reservation)

    def _reservations(self, caller: Caller, message: m.Reservations) -> list[dict[str, Any]]:
        return booking.listed(self.cluster)

    def _usage(self, caller: Caller, message: m.UsageOf) -> list[dict[str, Any]]:
        rows = []
        for usage in self._journal.usage(message.by, message.since, self.cluster.clock.wall()):
            kwh = usage.energy_mj / 1e3 / JOULES_PER_KWH
            cost = None if self._price is None else kwh * self._price
            gpu_hours = usage.gpu_s / 3600.0
            name = user_name(int(usage.name)) if message.by == "user" and usage.name.isdecimal() else usage.name
            rows.append({"name": name, "jobs": usage.jobs, "gpu_hours": gpu_hours, "kwh": kwh, "cost_usd": cost})
        return rows

    def _list_decisions(self, caller: Caller, message: m.Decisions) -> list[dict[str, Any]]:
        self.decisions.flush()
        return [asdict(decision) for decision in self._journal.ledger.decisions(last=message.last)]

    def _audit_log(self, caller: Caller, message: m.Audit) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self._journal.ledger.audit_log(last=message.last)]

    def _backup(self, caller: Caller, message: m.Backup) -> dict[str, Any]:
        path = Path(message.path)
        if not path.is_absolute():
            raise NodeError(f"{message.path!r}: name the copy by an absolute path")
        if path.exists() and not message.overwrite:
            raise NodeError(f"{path}: there is such a file; name another one, or replace it with --overwrite")
        if path.parent.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise NodeError(
                f"{path.parent}: the daemon writes the copy, and its user {user_name(os.geteuid())} may not write "
                "there; name a folder of its own"
            )
        self._journal.backup(path)
        return {"path": str(path)}

    def _feedback(self, caller: Caller, message: m.Feedback) -> dict[str, Any]:
        return self.promotion.look(message.apply)

    def _token(self, caller: Caller, message: m.TokenAdd | m.TokenRevoke) -> dict[str, Any]:
        if self.change_tokens is None:
            raise NodeError("this node has no tokens")
        return self.change_tokens(message)

    def _stop(self, caller: Caller, message: m.Stop) -> dict[str, Any]:
        self.cluster.close()
        return {}

    # What they share ----------------------------------------------------------------------------------------------

    def _looks(self, caller: Caller) -> bool:
        return caller.looks and not self.private

    def _own(self, caller: Caller, job: int) -> JobRecord:
        record = self._journal.job(job)
        if not caller.may_touch(record):
            raise NotYours(f"job {job} is another user's")
        return record

    def _describe(self, caller: Caller, record: JobRecord) -> dict[str, Any]:
        logs = self.cluster.runs.folder(record.id, record.run)
        return describe_job(record, logs, whole=caller.may_touch(record) or self._looks(caller))

    def _gpus(self) -> list[dict[str, Any]]:
        return describe_gpus(self.cluster, simulated=bool(self.about.get("simulated_devices")))

    def _gpu(self, name: str) -> str:
        """UUID of a GPU given by its number or UUID."""
        uuids = self.cluster.hardware.uuids
        if name.isdecimal() and int(name) < len(uuids):
            return uuids[int(name)]
        if name in uuids:
            return name
        raise IllegalAction(f"there is no GPU {name!r}{nearest(name, uuids)}; this node has GPUs 0 to {len(uuids) - 1}")


def _median(ordered: Sequence[float]) -> float | None:
    return ordered[len(ordered) // 2] if ordered else None
