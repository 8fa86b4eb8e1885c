"""Jobs for whom GPUs are reserved: they start there as soon as they can, and no policy is asked."""

from collections.abc import Iterator

from lepton_rl.core.actions import Start
from lepton_rl.errors import IllegalAction
from lepton_rl.node.jobs import JobRecord
from lepton_rl.node.ledger import Reservation
from lepton_rl.node.lifecycle import GpuState
from lepton_rl.node.reservations import entitled, in_force
from lepton_rl.node.state import NodeState


def reserved_starts(state: NodeState) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield each job that can start now on GPUs that are reserved for it, and their UUIDs; start it before the next."""
    wall = state.clock.wall()
    for reservation in in_force(state.journal.ledger, wall):
        for record in entitled(reservation, state.jobs.waiting()):
            uuids = _free(reservation, state)[: max(record.request.gpu_milli // 1000, 1)]
            begun = record.request.begin_time <= wall and record.id not in state.jobs.holding
            if begun and _suits(record, uuids, state):
                yield record.id, uuids


def _free(reservation: Reservation, state: NodeState) -> tuple[str, ...]:
    """The GPUs of a reservation on which nothing runs."""
    held = state.gpus.held()
    return tuple(
        uuid
        for uuid in reservation.gpu_uuids
        if uuid in state.hardware.uuids and state.gpus.status[uuid].state is GpuState.RESERVED and uuid not in held
    )


def _suits(record: JobRecord, uuids: tuple[str, ...], state: NodeState) -> bool:
    """Whether a job could start on exactly these GPUs, were they not reserved."""
    gpus = tuple(map(state.hardware.number_of, uuids))
    others = set(range(len(state.hardware.uuids))).difference(gpus)
    try:
        state.snapshot([state.jobs.known[record.id]], others).after(Start(record.id, gpus))
    except IllegalAction:
        return False
    return True
