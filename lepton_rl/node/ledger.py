"""What a node writes down besides jobs: states of GPUs, reservations, decisions, and the audit log."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lepton_rl.node.database import Database


@dataclass(frozen=True, slots=True)
class GpuRecord:
    """The state of one GPU, why, and since when (Unix seconds)."""

    uuid: str
    state: str
    reason: str | None
    since: float


@dataclass(frozen=True, slots=True)
class MeasuredThroughput:
    """What a GPU has computed, TFLOP/s, and when that was known (Unix seconds)."""

    tflops: float
    measured_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """GPUs kept for a user between two times, Unix seconds; `id` is given by the ledger."""

    uid: int
    user: str
    project: str
    gpu_uuids: tuple[str, ...]
    begin_time: float
    end_time: float
    reason: str | None = None
    id: int = 0
    cancelled_time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a policy decided, how long it took, and why the fallback decided instead, if it did."""

    time: float
    policy: str
    decision_s: float
    fallback_reason: str | None = None
    job: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One call that changed something: who, what, on what, and how it ended. Entries are never changed or removed."""

    time: float
    uid: int
    user: str
    verb: str
    target: str
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


class Ledger:
    """The journal's other tables; changes join the transaction that is open, if one is."""

    def __init__(self, database: Database) -> None:
        """Read and write the journal's own connection."""
        self._database = database

    def set_gpu(self, uuid: str, state: str, reason: str | None, now: float) -> None:
        """Write down the state of a GPU; `since` stays where the state is the same."""
        self._database.execute(
            "INSERT INTO gpus (uuid, state, reason, since) VALUES (?, ?, ?, ?) ON CONFLICT (uuid) DO UPDATE SET "
            "since = CASE WHEN state = excluded.state THEN since ELSE excluded.since END, "
            "state = excluded.state, reason = excluded.reason",
            (uuid, state, reason, now),
        )

    def gpus(self) -> dict[str, GpuRecord]:
        """Return the GPUs by UUID."""
        rows = self._database.rows("SELECT uuid, state, reason, since FROM gpus ORDER BY uuid")
        return {row["uuid"]: GpuRecord(*row) for row in rows}

    def set_throughput(self, uuid: str, measured: MeasuredThroughput) -> None:
        """Write down what a GPU computes, in the place of what was measured before."""
        self._database.execute(
            "INSERT OR REPLACE INTO throughputs (uuid, tflops, measured_time) VALUES (?, ?, ?)",
            (uuid, measured.tflops, measured.measured_time),
        )

    def throughputs(self) -> dict[str, MeasuredThroughput]:
        """Return what was measured last of each GPU that ever was, by UUID."""
        rows = self._database.rows("SELECT uuid, tflops, measured_time FROM throughputs")
        return {row["uuid"]: MeasuredThroughput(row["tflops"], row["measured_time"]) for row in rows}

    def reserve(self, reservation: Reservation) -> int:
        """Write down a reservation and return its id."""
        identity = self._database.execute(
            "INSERT INTO reservations (uid, user, project, gpu_uuids, begin_time, end_time, reason) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(reservation.uid, reservation.user, reservation.project, json.dumps(list(reservation.gpu_uuids))),
                *(reservation.begin_time, reservation.end_time, reservation.reason),
            ),
        ).lastrowid
        assert identity is not None
        return identity

    def cancel_reservation(self, reservation: int, now: float) -> bool:
        """End a reservation; return whether there was one to end."""
        statement = "UPDATE reservations SET cancelled_time = ? WHERE id = ? AND cancelled_time IS NULL"
        return self._database.execute(statement, (now, reservation)).rowcount == 1

    def reservations(self, now: float) -> list[Reservation]:
        """Return the reservations that are in force at `now` or begin later."""
        rows = self._database.rows(
            "SELECT * FROM reservations WHERE cancelled_time IS NULL AND end_time > ? ORDER BY begin_time, id", (now,)
        )
        return [Reservation(**{**dict(row), "gpu_uuids": tuple(json.loads(row["gpu_uuids"]))}) for row in rows]

    def decide(self, decision: Decision) -> None:
        """Write down a decision."""
        self._database.execute(
            "INSERT INTO decisions (time, policy, decision_s, fallback_reason, job, detail) VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(decision.time, decision.policy, decision.decision_s, decision.fallback_reason, decision.job),
                json.dumps(decision.detail),
            ),
        )

    def decisions(self, since: float = 0.0, *, job: int | None = None, last: int = 1000) -> list[Decision]:
        """Return the newest decisions since a time, in order; of one job where it is given."""
        rows = self._database.rows(
            "SELECT * FROM decisions WHERE time >= ? AND (? IS NULL OR job = ?) ORDER BY id DESC LIMIT ?",
            (since, job, job, last),
        )
        return [Decision(**{**dict(row), "detail": json.loads(row["detail"])}) for row in reversed(rows)]

    def forget_decisions(self, before: float) -> int:
        """Remove the decisions before a time and return how many: they alone would grow without bound."""
        return self._database.execute("DELETE FROM decisions WHERE time < ?", (before,)).rowcount

    def keep_feedback(self, setting: str, change: Mapping[str, Any] | None) -> None:
        """Write down what the result feedback has changed under this setting of policies; None forgets it."""
        if change is None:
            self._database.execute("DELETE FROM feedback")
            return
        self._database.execute(
            "INSERT OR REPLACE INTO feedback (only, setting, change) VALUES (1, ?, ?)", (setting, json.dumps(change))
        )

    def feedback(self) -> tuple[str, dict[str, Any]] | None:
        """Return the setting under which the result feedback has changed something, and what; None for nothing."""
        row = self._database.row("SELECT setting, change FROM feedback")
        return None if row is None else (str(row["setting"]), json.loads(row["change"]))

    def audit(self, entry: AuditEntry) -> None:
        """Add to the audit log."""
        self._database.execute(
            "INSERT INTO audit (time, uid, user, verb, target, outcome, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.time, entry.uid, entry.user, entry.verb, entry.target, entry.outcome),
                json.dumps(entry.detail),
            ),
        )

    def audit_log(self, since: float = 0.0, *, last: int = 1000) -> list[AuditEntry]:
        """Return the newest entries since a time, in order."""
        rows = self._database.rows("SELECT * FROM audit WHERE time >= ? ORDER BY id DESC LIMIT ?", (since, last))
        return [AuditEntry(**{**dict(row), "detail": json.loads(row["detail"])}) for row in reversed(rows)]
