"""What runs use of their GPUs: energy, shared among those that hold a GPU at a time, the most memory, and how busy."""

from collections.abc import Callable, Iterable

from lepton_rl.devices import DeviceTelemetry
from lepton_rl.devices.sampler import TelemetrySnapshot
from lepton_rl.node.jobs import RunRecord, RunUse
from lepton_rl.node.ownership import RunId

MIB = 1 << 20


class RunMeter:
    """Adds up what each run uses, from one telemetry snapshot to the next.

    The draw of a GPU, idle power included, is divided among those that hold it by their shares.
    """

    def __init__(self) -> None:
        self._drawn_mj: dict[str, float] = {}
        self._used: dict[RunId, RunUse] = {}
        self._seen = 0

    def begin(self, run: RunRecord) -> None:
        """Go on from what the journal has of a run."""
        self._used[run.job, run.run] = RunUse(
            run.energy_mj or 0.0, run.peak_gpu_memory_mib or 0, run.gpu_utilisation, run.gpu_samples or 0
        )

    def add(
        self, snapshot: TelemetrySnapshot, holding: Iterable[RunRecord], run_of: Callable[[int], RunId | None]
    ) -> None:
        """Take a snapshot in; one that was taken in before adds nothing."""
        if snapshot.number <= self._seen:
            return
        self._seen = snapshot.number
        runs = list(holding)
        devices = {device.identity.uuid: device for device in snapshot.devices}
        memory: dict[RunId, int] = {}
        for uuid, device in devices.items():
            on_it = [run for run in runs if uuid in run.gpu_uuids]
            drawn = self._drawn_since(device)
            held = sum(min(run.gpu_milli, 1000) for run in on_it)
            for run in on_it:
                key = (run.job, run.run)
                use = self._used.setdefault(key, RunUse())
                use.energy_mj += drawn * min(run.gpu_milli, 1000) / held
                memory[key] = memory.get(key, 0) + _memory_of(key, run, device, run_of)
                if len(on_it) == 1 and device.filtered.utilisation is not None:
                    use.add_utilisation(device.filtered.utilisation)
        for key, used_bytes in memory.items():
            use = self._used[key]
            use.peak_memory_mib = max(use.peak_memory_mib, used_bytes // MIB)

    def of(self, job: int, run: int) -> RunUse:
        """Return what a run has used so far."""
        return self._used.get((job, run), RunUse())

    def end(self, job: int, run: int) -> RunUse:
        """Return what a run has used, and forget it."""
        return self._used.pop((job, run), RunUse())

    def _drawn_since(self, device: DeviceTelemetry) -> float:
        """Millijoules that a device has drawn since the last snapshot."""
        energy, uuid = device.energy, device.identity.uuid
        total = energy.counter_mj if energy.counter_mj is not None else energy.integrated_mj
        if total is None:
            return 0.0
        before, self._drawn_mj[uuid] = self._drawn_mj.get(uuid, total), total
        return max(0.0, total - before)


def _memory_of(key: RunId, run: RunRecord, device: DeviceTelemetry, run_of: Callable[[int], RunId | None]) -> int:
    """Bytes that a run uses of a device: by its processes, or where the driver names none and it has all, all of it."""
    said = [
        process.memory_used_bytes
        for process in device.processes or ()
        if process.memory_used_bytes is not None and run_of(process.pid) == key
    ]
    if not said and run.gpu_milli >= 1000:
        return device.raw.memory_used_bytes or 0
    return sum(said)
