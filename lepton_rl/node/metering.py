"""What each run uses of its GPUs: energy, and the most memory; added up from telemetry while it runs.

The energy of a shared GPU is divided by the shares that are held; idle shares' part goes with them. A daemon that
starts again goes on from what the journal has: the seconds in which none watched are missing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lepton_rl.devices import DeviceTelemetry
from lepton_rl.node.jobs import RunRecord

MIB = 1 << 20
WHOLE = 1000


@dataclass(slots=True)
class Used:
    """Millijoules, and the most memory on one GPU at a time in MiB, of one run."""

    energy_mj: float = 0.0
    peak_memory_mib: int = 0


class RunMeter:
    """Adds up what runs use.

    Args:
        owner_of: the (job, run) whose process a pid is, or None.
    """

    def __init__(self, owner_of: Callable[[int], tuple[int, int] | None]) -> None:
        self._owner_of = owner_of
        self._used: dict[tuple[int, int], Used] = {}
        self._energy: dict[str, float] = {}

    def used(self, run: RunRecord) -> Used:
        """Return what a run has used so far."""
        start = Used(float(run.energy_mj or 0), run.peak_gpu_memory_mib or 0)
        return self._used.setdefault((run.job, run.run), start)

    def add(self, devices: Iterable[DeviceTelemetry], runs: Iterable[RunRecord]) -> None:
        """Take in one look at all devices, and the runs that hold GPUs now."""
        holders: dict[str, list[RunRecord]] = {}
        for run in runs:
            for uuid in run.gpu_uuids:
                holders.setdefault(uuid, []).append(run)
        for device in devices:
            uuid = device.identity.uuid
            total = device.energy.counter_mj if device.energy.counter_mj is not None else device.energy.integrated_mj
            step = max(0.0, (total or 0.0) - self._energy.get(uuid, total or 0.0))
            self._energy[uuid] = total or 0.0
            sharing = holders.get(uuid, [])
            held = sum(min(run.gpu_milli, WHOLE) for run in sharing)
            for run in sharing:
                self.used(run).energy_mj += step * min(run.gpu_milli, WHOLE) / held
            self._add_memory(device, sharing)

    def forget(self, run: RunRecord) -> Used:
        """Return what an ended run has used, and keep nothing of it."""
        used = self.used(run)
        del self._used[run.job, run.run]
        return used

    def _add_memory(self, device: DeviceTelemetry, sharing: list[RunRecord]) -> None:
        of_run: dict[tuple[int, int], int] = {}
        for process in device.processes or ():
            owner = self._owner_of(process.pid)
            if owner is not None and process.memory_used_bytes is not None:
                of_run[owner] = of_run.get(owner, 0) + process.memory_used_bytes
        by_key: Mapping[tuple[int, int], RunRecord] = {(run.job, run.run): run for run in sharing}
        for key, size in of_run.items():
            if key in by_key:
                used = self.used(by_key[key])
                used.peak_memory_mib = max(used.peak_memory_mib, round(size / MIB))
