"""Whether a GPU may take work: XID errors, memory errors, throttling and what the driver itself asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from lepton_rl.devices.device import DeviceEvent, Reading

# Clocks halved by hardware: the chip too hot, or the board's power brake pulled. Software slowdowns are the driver's
# ordinary work.
HARDWARE_SLOWDOWNS = frozenset({"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})
_CONTAINED = 94
_UNCONTAINED = frozenset({48, 95, 140})


class XidAction(StrEnum):
    """What an XID error asks for."""

    FAIL_JOB = "fail_job"
    NOTE = "note"
    RESET = "reset"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Xid:
    """One row of the XID table."""

    xid: int
    action: XidAction
    meaning: str


@cache
def xid_table() -> Mapping[int, Xid]:
    """Return what is known of XID errors, by number (xid.yaml has the sources and their date)."""
    rows: dict[int, dict[str, Any]] = yaml.safe_load(files("lepton_rl.devices").joinpath("xid.yaml").read_text())[
        "xids"
    ]
    return {xid: Xid(xid, XidAction(row["action"]), row["meaning"]) for xid, row in rows.items()}


class HealthState(Enum):
    """How a GPU is, from best to worst."""

    OK = "ok"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Health:
    """How a GPU is, and why in a sentence (empty when it is well)."""

    state: HealthState
    reason: str = ""

    @property
    def takes_work(self) -> bool:
        """Whether new jobs may start here: a degraded GPU is slower or due for a reset, but computes rightly."""
        return self.state in (HealthState.OK, HealthState.DEGRADED)


_OK = Health(HealthState.OK)


def judge(readings: Sequence[Reading], events: Sequence[DeviceEvent] = ()) -> Health:
    """Return the health of one GPU.

    Args:
        readings: oldest first. The first is the baseline that memory errors are counted from; the later ones are the
            recent past, of which throttling has to fill one half. An empty sequence is a GPU that nothing is known of.
        events: of this GPU since the baseline.
    """
    if not readings:
        return _OK
    latest = readings[-1]
    if latest.lost:
        return Health(HealthState.LOST, "the GPU has fallen off the bus; it is out until the machine reboots")
    if latest == Reading(latest.uuid, latest.time):
        return Health(HealthState.UNHEALTHY, "the driver says nothing of the GPU: see dmesg")
    for finding in (_recovery(latest), _by_xid(events), _memory_errors(readings, events), _remapping(latest)):
        if finding is not None:
            return finding
    return _throttling(readings) or _contained(events) or _unknown_xid(events) or _OK


def _recovery(latest: Reading) -> Health | None:
    action = latest.recovery_action
    if action is None or action == "none":
        return None
    return Health(HealthState.UNHEALTHY, f"the driver asks for: {action.replace('_', ' ')}")


def _by_xid(events: Sequence[DeviceEvent]) -> Health | None:
    for event in reversed(events):
        if event.kind == "unavailable":
            return Health(HealthState.UNHEALTHY, "the driver says that the GPU is unavailable")
        known = xid_table().get(event.xid) if event.xid is not None else None
        if known is not None and known.action in (XidAction.RESET, XidAction.DRAIN):
            needed = "a GPU reset" if known.action is XidAction.RESET else "a look at the machine"
            return Health(HealthState.UNHEALTHY, f"XID {known.xid}, {known.meaning}: it needs {needed}")
    return None


def _memory_errors(readings: Sequence[Reading], events: Sequence[DeviceEvent]) -> Health | None:
    counts = [reading.ecc_uncorrected for reading in readings if reading.ecc_uncorrected is not None]
    new = counts[-1] - counts[0] if counts else 0
    xids = {event.xid for event in events}
    if new > 0 and (_CONTAINED not in xids or xids & _UNCONTAINED):
        return Health(HealthState.UNHEALTHY, f"{new} uncorrectable memory errors: it needs a GPU reset")
    return None


def _remapping(latest: Reading) -> Health | None:
    if latest.remap_failed:
        return Health(HealthState.UNHEALTHY, "a bad memory row could not be replaced: the GPU is due for repair")
    if latest.remap_pending:
        return Health(HealthState.DEGRADED, "a bad memory row waits to be replaced: reset the GPU when convenient")
    return None


def _throttling(readings: Sequence[Reading]) -> Health | None:
    recent = [reading.throttle_reasons for reading in readings if reading.throttle_reasons is not None]
    slowed = [HARDWARE_SLOWDOWNS & set(reasons) for reasons in recent]
    count = sum(1 for reasons in slowed if reasons)
    if not recent or 2 * count < len(recent):
        return None
    names = ", ".join(sorted(set().union(*slowed))).replace("_", " ")
    return Health(HealthState.DEGRADED, f"slowed down by hardware ({names}): see cooling and power supply")


def _contained(events: Sequence[DeviceEvent]) -> Health | None:
    if any(event.xid == _CONTAINED for event in events):
        return Health(HealthState.DEGRADED, f"XID {_CONTAINED}, {xid_table()[_CONTAINED].meaning}")
    return None


def _unknown_xid(events: Sequence[DeviceEvent]) -> Health | None:
    for event in reversed(events):
        if event.xid is not None and event.xid not in xid_table():
            return Health(
                HealthState.DEGRADED, f"XID {event.xid}, which the table of XID errors does not know: see dmesg"
            )
    return None
