"""GPUs that are kept for somebody: from when they take no other work, and which jobs may start on them before.

Ahead of a reservation its GPUs take only jobs that end before it begins. A policy is told so by what it sees: first
all jobs, on the GPUs that no job could hold for too long; then only the shorter ones, on the GPUs that they may use.
"""

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lepton_rl.node.durations import spelled
from lepton_rl.node.jobs import JobRecord
from lepton_rl.node.ledger import Ledger, Reservation


def in_force(ledger: Ledger, wall: float) -> list[Reservation]:
    """Return the reservations that have begun and not ended, Unix seconds."""
    return [reservation for reservation in ledger.reservations(wall) if reservation.begin_time <= wall]


def reasons(ledger: Ledger, wall: float) -> dict[str, str]:
    """Return for whom GPUs are kept now, in words, by UUID."""
    return {
        uuid: f"reserved for {reservation.user or reservation.project} until its end"
        for reservation in in_force(ledger, wall)
        for uuid in reservation.gpu_uuids
    }


@dataclass(frozen=True, slots=True)
class Window:
    """What one step of a decision is about: jobs that end by a time, on GPUs that nobody has reserved before it.

    Attributes:
        until: jobs whose requested time ends by then are shown, Unix seconds.
        kept_from: GPUs not reserved before this time are kept for jobs that are not shown; None keeps none.
    """

    until: float
    kept_from: float | None = None

    def shows(self, end: float) -> bool:
        """Return whether a job that would end then takes part."""
        return end <= self.until

    def offers(self, begin: float) -> bool:
        """Return whether a GPU whose next reservation begins then may be given away."""
        return begin >= self.until and (self.kept_from is None or begin < self.kept_from)


def windows(
    asked: Collection[tuple[float, int]], begins: Sequence[float], others: Iterable[float] = ()
) -> list[Window]:
    """Return the steps of a decision, the one with all jobs first.

    GPUs on which a longer job waits are kept for it in the later steps: a stream of short jobs must not pass it there.

    Args:
        asked: of each job that waits, when it would end were it started now (Unix seconds), and how many GPUs it needs.
        begins: of each GPU, when its next reservation begins, Unix seconds; infinite where there is none.
        others: when jobs that run and may be moved would end.
    """
    last = max((*(end for end, _ in asked), *others), default=0.0)
    found = [Window(last)]
    for begin in sorted({begin for begin in begins if begin < last}, reverse=True):
        if any(end <= begin for end, _ in asked):
            longer = [end for end, gpus in asked if end > begin and gpus <= sum(other >= end for other in begins)]
            found.append(Window(begin, min(longer, default=None)))
    return found


def next_reservations(ledger: Ledger, wall: float) -> dict[str, Reservation]:
    """Return the reservation of each GPU, by UUID, that is in force or begins next."""
    found: dict[str, Reservation] = {}
    for reservation in ledger.reservations(wall):
        for uuid in reservation.gpu_uuids:
            found.setdefault(uuid, reservation)
    return found


@dataclass(frozen=True, slots=True)
class Ahead:
    """The reservations of a node's GPUs as one decision knows them.

    Attributes:
        wall: when that was, Unix seconds.
        next: of each GPU, by number, the reservation that is in force or begins next; none where there is none.
    """

    wall: float = 0.0
    next: Mapping[int, Reservation] = field(default_factory=dict)

    def begins(self, gpus: int) -> list[float]:
        """Return when the next reservation of GPU 0, 1, ... begins, Unix seconds; infinite where there is none."""
        return [self.next[gpu].begin_time if gpu in self.next else math.inf for gpu in range(gpus)]

    def run_into(self, asked_s: float, *, said: bool) -> dict[int, str]:
        """Return the GPUs, by number, that are reserved before a job would end on them, and that in words.

        Args:
            asked_s: seconds that the job counts as asking for.
            said: whether its user said so.
        """
        return {
            gpu: _runs_into(gpu, reservation, asked_s, said)
            for gpu, reservation in self.next.items()
            if self.wall + asked_s > reservation.begin_time
        }


def _runs_into(gpu: int, reservation: Reservation, asked_s: float, said: bool) -> str:
    whom = reservation.user or reservation.project
    asks = f"asks for {spelled(asked_s)}" if said else f"asks for no --time, which counts as {spelled(asked_s)},"
    return (
        f"GPU {gpu} is reserved from {_clock(reservation.begin_time)} for {whom}: this job {asks} and would run into it"
    )


def _clock(wall: float) -> str:
    then, now = time.localtime(wall), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)


def entitled(reservation: Reservation, waiting: Sequence[JobRecord]) -> list[JobRecord]:
    """Return the jobs that a reservation is for, in order of submission."""
    return [
        job
        for job in waiting
        if (reservation.user and job.request.user == reservation.user)
        or (reservation.project and job.request.project == reservation.project)
    ]
