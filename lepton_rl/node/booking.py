"""Making, listing and giving up reservations of GPUs."""

import pwd
from typing import Any

from lepton_rl.errors import NodeError, nearest
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.ledger import Reservation
from lepton_rl.node.messages import Reserve

_OF_A_TOKEN = "@http"


def reserve(cluster: NodeCluster, uid: int, user: str, message: Reserve) -> dict[str, Any]:
    """Keep GPUs for a user and return the reservation as it is listed.

    Raises:
        NodeError: it would have ended already, too few GPUs are free of others' reservations, or there is no such user.
    """
    end, now = message.begin_time + message.duration_s, cluster.clock.wall()
    if end <= now:
        raise NodeError("a reservation must end after now")
    _check_user(cluster, message.user)
    taken = {
        uuid
        for other in cluster.journal.ledger.reservations(now)
        if other.begin_time < end and message.begin_time < other.end_time
        for uuid in other.gpu_uuids
    }
    free = [uuid for uuid in cluster.hardware.uuids if uuid not in taken]
    if len(free) < message.gpus:
        are = "GPU is" if len(free) == 1 else "GPUs are"
        raise NodeError(f"only {len(free)} {are} not reserved by others then; {message.gpus} were asked for")
    number = cluster.journal.ledger.reserve(
        Reservation(
            uid=uid, user=message.user or user, project="", gpu_uuids=tuple(free[-message.gpus :]),  # policies fill
            begin_time=message.begin_time, end_time=end, reason=message.reason or None,  # from the front
        )
    )  # fmt: skip
    _tell(cluster)
    return next(found for found in listed(cluster) if found["reservation"] == number)


def unreserve(cluster: NodeCluster, number: int) -> dict[str, Any]:
    """Give a reservation up.

    Raises:
        NodeError: there is none of that number.
    """
    if not cluster.journal.ledger.cancel_reservation(number, cluster.clock.wall()):
        raise NodeError(f"there is no reservation {number} to give up; `lepton-rl node reservations` lists them")
    _tell(cluster)
    return {"reservation": number}


def listed(cluster: NodeCluster) -> list[dict[str, Any]]:
    """Return the reservations that are in force or ahead: `gpus` by UUID, `numbers` those of them that are here."""
    uuids = cluster.hardware.uuids
    return [
        {
            "reservation": found.id, "user": found.user, "gpus": list(found.gpu_uuids),
            "numbers": [uuids.index(uuid) for uuid in found.gpu_uuids if uuid in uuids],
            "begin_time": found.begin_time, "end_time": found.end_time, "reason": found.reason,
        }
        for found in cluster.journal.ledger.reservations(cluster.clock.wall())
    ]  # fmt: skip


def _tell(cluster: NodeCluster) -> None:
    cluster.look()
    cluster.decide()


def _check_user(cluster: NodeCluster, user: str) -> None:
    """Refuse a user whose job will never come: no account, no token's name, and none who has had jobs here."""
    if not user or user.isdecimal() or user.endswith(_OF_A_TOKEN) or cluster.journal.has_jobs_of(user):
        return
    try:
        pwd.getpwnam(user)
    except KeyError:
        names = [entry.pw_name for entry in pwd.getpwall()]
        raise NodeError(f"there is no user {user!r} on this machine{nearest(user, names)}") from None
