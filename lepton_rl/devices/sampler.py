"""One look at every device: raw and filtered readings, energy, processes and health, as one frozen snapshot."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from lepton_rl.devices.device import DeviceEvent, DeviceIdentity, DeviceProcess, Devices, Reading
from lepton_rl.devices.energy import Energy, EnergyMeter
from lepton_rl.devices.errors import DeviceError
from lepton_rl.devices.filter import ReadingFilter, is_possible
from lepton_rl.devices.health import Health, HealthState, judge

_EVENTS_KEPT = 200
_RECENT_READINGS = 10


@dataclass(frozen=True, slots=True)
class DeviceTelemetry:
    """All that is known of one device now.

    Attributes:
        processes: None where the device does not say, or was not asked yet.
        processes_at: when they were asked for, in seconds of the monotonic clock.
        problem: why the device could not be read this time; raw and filtered are then empty.
    """

    identity: DeviceIdentity
    raw: Reading
    filtered: Reading
    energy: Energy
    health: Health
    processes: tuple[DeviceProcess, ...] | None = None
    processes_at: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TelemetrySnapshot:
    """All devices at one moment; it does not change, so any number of threads may hold it.

    Attributes:
        time: seconds since the epoch, by the wall clock, which may jump.
        monotonic_s: the same moment by `time.monotonic`, for ages and durations.
        number: of this snapshot, from 1.
        duration_s: seconds it took to ask.
        late_s: seconds it began after its turn.
        missed: turns that fell out so far, because asking took longer than the period.
        events: the latest ones, oldest first.
        event_count: how many there were ever; `new_events` tells what is new to who remembers it.
    """

    time: float
    monotonic_s: float
    number: int
    devices: tuple[DeviceTelemetry, ...]
    duration_s: float = 0.0
    late_s: float = 0.0
    missed: int = 0
    events: tuple[DeviceEvent, ...] = ()
    event_count: int = 0

    def new_events(self, seen: int) -> tuple[DeviceEvent, ...]:
        """Return the events after the first `seen`, an `event_count` of before; the oldest may be forgotten already."""
        new = self.event_count - seen
        return self.events[-new:] if new > 0 else ()

    @property
    def age_s(self) -> float:
        """Seconds since it was read; more than a few periods means that the driver hangs."""
        return time.monotonic() - self.monotonic_s

    def device(self, uuid: str) -> DeviceTelemetry:
        """Return the device of a UUID; KeyError where there is none."""
        for device in self.devices:
            if device.identity.uuid == uuid:
                return device
        raise KeyError(uuid)


@dataclass
class _Watched:
    """What is remembered of one device from one look to the next."""

    identity: DeviceIdentity
    filter: ReadingFilter
    energy: EnergyMeter
    baseline: Reading | None = None
    recent: deque[Reading] = field(default_factory=lambda: deque(maxlen=_RECENT_READINGS))
    events: list[DeviceEvent] = field(default_factory=list)
    processes: tuple[DeviceProcess, ...] | None = None
    processes_at: float | None = None


class Sampler:
    """Looks at devices when told to. `sample` belongs to one thread, the rest to any.

    Args:
        devices: to look at.
        window: readings in the median of the filter.
        allowed_difference: share by which the energy counter may differ from the added-up power.
        energy_window_s: seconds over which these are compared.
    """

    def __init__(
        self, devices: Devices, *, window: int = 5, allowed_difference: float = 0.2, energy_window_s: float = 60.0
    ) -> None:
        self._devices = devices
        self._lock = threading.Lock()
        self._events: deque[DeviceEvent] = deque(maxlen=_EVENTS_KEPT)
        self._watched = [
            _Watched(
                identity,
                ReadingFilter(identity, window),
                EnergyMeter(
                    1.5 * identity.max_power_limit_mw if identity.max_power_limit_mw else None,
                    allowed_difference=allowed_difference,
                    window_s=energy_window_s,
                ),
            )
            for identity in devices.identities
        ]
        self._number = self._event_count = 0

    def add_event(self, event: DeviceEvent) -> None:
        """Take an event in: it counts for the health of its GPU and the MIG instances on it."""
        with self._lock:
            self._events.append(event)
            self._event_count += 1
            for watched in self._watched:
                if event.uuid in (watched.identity.uuid, watched.identity.parent_uuid):
                    watched.events = [*watched.events[-_EVENTS_KEPT:], event]

    def acknowledge(self, uuid: str) -> None:
        """Forget the events of a device and count its memory errors from now on, as after a reset or a repair."""
        with self._lock:
            for watched in self._watched:
                if watched.identity.uuid == uuid:
                    watched.events, watched.baseline = [], None

    def sample(self, wall_s: float, monotonic_s: float, *, with_processes: bool) -> TelemetrySnapshot:
        """Return what the devices say now; a device that cannot be read is in it with its problem."""
        looks = tuple(self._look(watched, wall_s, monotonic_s, with_processes) for watched in self._watched)
        self._number += 1
        with self._lock:
            events, count = tuple(self._events), self._event_count
        return TelemetrySnapshot(wall_s, monotonic_s, self._number, looks, events=events, event_count=count)

    def _look(self, watched: _Watched, wall_s: float, monotonic_s: float, with_processes: bool) -> DeviceTelemetry:
        identity, problem = watched.identity, None
        try:
            raw = self._devices.read(identity.index)
            if with_processes:
                watched.processes = self._devices.processes(identity.index)
                watched.processes_at = monotonic_s
        except DeviceError as error:
            raw, problem = Reading(identity.uuid, wall_s), str(error)
        filtered = watched.filter(raw)
        # As read, not as filtered: a median would cut off real peaks.
        power_mw = raw.power_mw if is_possible("power_mw", identity, raw) else None
        energy = watched.energy.add(monotonic_s, filtered.energy_mj, power_mw)
        return DeviceTelemetry(
            identity,
            raw,
            filtered,
            energy,
            self._health(watched, filtered) if problem is None else Health(HealthState.UNHEALTHY, problem),
            watched.processes,
            watched.processes_at,
            problem,
        )

    def _health(self, watched: _Watched, reading: Reading) -> Health:
        watched.recent.append(reading)
        with self._lock:
            if watched.baseline is None or _began_anew(watched.baseline, reading):
                watched.baseline = reading
            events, baseline = watched.events, watched.baseline
        return judge([baseline, *watched.recent], events)


def _began_anew(baseline: Reading, reading: Reading) -> bool:
    """Return whether the error counters fell, as when the driver was loaded again, or are known only now."""
    before, now = baseline.ecc_uncorrected, reading.ecc_uncorrected
    return now is not None and (before is None or now < before)
