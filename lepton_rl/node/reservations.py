"""GPUs that are kept for somebody: from when they take no other work, and which jobs they wait for."""

from collections.abc import Iterable, Sequence

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


def kept_free(ledger: Ledger, wall: float, asked_s: Iterable[float]) -> set[str]:
    """Return the GPUs that a policy may not give away now.

    They are those reserved now, and those with a reservation ahead into which one of the jobs that wait could run.

    Args:
        ledger: has the reservations.
        wall: Unix seconds.
        asked_s: seconds that the jobs that wait ask for.
    """
    longest = max(asked_s, default=0.0)
    return {
        uuid
        for reservation in ledger.reservations(wall)
        for uuid in reservation.gpu_uuids
        if reservation.begin_time <= wall or wall + longest > reservation.begin_time
    }


def entitled(reservation: Reservation, waiting: Sequence[JobRecord]) -> list[JobRecord]:
    """Return the jobs that a reservation is for, in order of submission."""
    return [
        job
        for job in waiting
        if (reservation.user and job.request.user == reservation.user)
        or (reservation.project and job.request.project == reservation.project)
    ]
