"""Queries of one NVML device: which functions give which value, and what is not asked twice."""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lepton_rl.devices.device import DeviceProcess, Reading
from lepton_rl.devices.nvml_errors import Answer, meaning_of

_NO_INSTANCE = 0xFFFFFFFF
_FIELD_RECOVERY_ACTION = 230
_SM, _MEMORY = 1, 2  # NVML_CLOCK_*
_CORRECTED, _UNCORRECTED, _VOLATILE = 0, 1, 0  # NVML_MEMORY_ERROR_TYPE_*, NVML_VOLATILE_ECC

THROTTLE_REASONS: Mapping[int, str] = {
    0x001: "idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
RECOVERY_ACTIONS: Mapping[int, str] = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "recover_imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}


class Interrupted(Exception):
    """A query found that its device is lost or the driver restarted; it never leaves this package.

    Args:
        code: of NVML.
    """

    def __init__(self, code: int) -> None:
        super().__init__(meaning_of(code).words)
        self.code, self.answer = code, meaning_of(code).answer


class NvmlQueries:
    """Asks an NVML binding, and remembers what a device does not support.

    A value that the device does not say is None. `failures` counts by function what failed for another reason.
    """

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.failures: Counter[str] = Counter()
        self._vain: set[tuple[str, str, tuple[Any, ...]]] = set()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Ask everything again: another driver may know more."""
        with self._lock:
            self._vain.clear()

    def ask(self, uuid: str, handle: Any, function: str, *arguments: Any) -> Any:
        """Return what an NVML function says of a device, or None.

        Raises:
            Interrupted: the device is lost, needs a reset, or the driver restarted.
        """
        key = (uuid, function, arguments)
        if key in self._vain:
            return None
        call = getattr(self.nvml, function, None)
        if call is None:  # an older binding
            self._vain.add(key)
            return None
        try:
            return call(handle, *arguments)
        except self.nvml.NVMLError as error:
            code = error.value
        answer = meaning_of(code).answer
        if answer is Answer.MISSING_ALWAYS:
            with self._lock:
                self._vain.add(key)
        elif answer is Answer.MISSING_NOW:
            with self._lock:
                self.failures[function] += 1
        else:
            raise Interrupted(code)
        return None

    def first(self, uuid: str, handle: Any, *questions: tuple[Any, ...]) -> Any:
        """Ask the first of some questions that the device supports; a later one stands in on older drivers."""
        for question in questions:
            answer = self.ask(uuid, handle, *question)
            if answer is not None or (uuid, question[0], question[1:]) not in self._vain:
                return answer
        return None

    def memory(self, uuid: str, handle: Any) -> dict[str, int | None]:
        """Return total, used, free and reserved bytes; before driver 510, used counts the reserved bytes in."""
        version = getattr(self.nvml, "nvmlMemory_v2", None)
        info = self.first(uuid, handle, ("nvmlDeviceGetMemoryInfo", version), ("nvmlDeviceGetMemoryInfo",))
        if info is None:
            return {}
        return {
            "memory_total_bytes": int(info.total),
            "memory_used_bytes": int(info.used),
            "memory_free_bytes": int(info.free),
            "memory_reserved_bytes": int(info.reserved) if hasattr(info, "reserved") else None,
        }

    def reading(self, uuid: str, handle: Any, time: float) -> Reading:
        """Return the reading of a whole GPU."""
        utilisation = self.ask(uuid, handle, "nvmlDeviceGetUtilizationRates")
        values: dict[str, Any] = self.memory(uuid, handle) | self.shared(uuid, handle)
        if utilisation is not None:
            values |= {"utilisation": utilisation.gpu / 100, "memory_utilisation": utilisation.memory / 100}
        return Reading(
            uuid=uuid,
            time=time,
            power_mw=self.ask(uuid, handle, "nvmlDeviceGetPowerUsage"),
            power_limit_mw=self.power_limit_mw(uuid, handle),
            energy_mj=self.ask(uuid, handle, "nvmlDeviceGetTotalEnergyConsumption"),
            **values,
        )

    def power_limit_mw(self, uuid: str, handle: Any) -> int | None:
        """Return the limit that was set."""
        limit = self.first(uuid, handle, ("nvmlDeviceGetPowerManagementLimit",), ("nvmlDeviceGetEnforcedPowerLimit",))
        return None if limit is None else int(limit)

    def shared(self, uuid: str, handle: Any) -> dict[str, Any]:
        """Return what a GPU and its MIG instances have in common."""
        # The second names are those of drivers that do not know the first ones yet.
        temperature = self.first(uuid, handle, ("nvmlDeviceGetTemperatureV", 0), ("nvmlDeviceGetTemperature", 0))
        reasons = self.first(
            uuid,
            handle,
            ("nvmlDeviceGetCurrentClocksEventReasons",),
            ("nvmlDeviceGetCurrentClocksThrottleReasons",),
        )
        values = {
            "temperature_c": None if temperature is None else _signed(temperature),
            "sm_clock_mhz": self.ask(uuid, handle, "nvmlDeviceGetClockInfo", _SM),
            "memory_clock_mhz": self.ask(uuid, handle, "nvmlDeviceGetClockInfo", _MEMORY),
            "throttle_reasons": None if reasons is None else _named(reasons),
            "ecc_corrected": self.ask(uuid, handle, "nvmlDeviceGetTotalEccErrors", _CORRECTED, _VOLATILE),
            "ecc_uncorrected": self.ask(uuid, handle, "nvmlDeviceGetTotalEccErrors", _UNCORRECTED, _VOLATILE),
            "recovery_action": self._recovery_action(uuid, handle),
        }
        rows = self.ask(uuid, handle, "nvmlDeviceGetRemappedRows")
        if rows is not None:
            corrected, uncorrected, pending, failed = rows
            values |= {
                "remapped_rows": corrected + uncorrected,
                "remap_pending": bool(pending),
                "remap_failed": bool(failed),
            }
        return values

    def _recovery_action(self, uuid: str, handle: Any) -> str | None:
        answers = self.ask(uuid, handle, "nvmlDeviceGetFieldValues", (_FIELD_RECOVERY_ACTION,))
        if answers is None or answers[0].nvmlReturn != 0:
            return None
        code = int(answers[0].value.uiVal)
        return RECOVERY_ACTIONS.get(code, f"action_{code}")

    def processes(self, uuid: str, handle: Any) -> tuple[DeviceProcess, ...] | None:
        """Return the processes on a device by pid, or None where it names none of the three kinds."""
        found: dict[int, DeviceProcess] = {}
        said = False
        for kind, function in (
            ("graphics", "nvmlDeviceGetGraphicsRunningProcesses_v3"),
            ("mps", "nvmlDeviceGetMPSComputeRunningProcesses_v3"),
            ("compute", "nvmlDeviceGetComputeRunningProcesses_v3"),
        ):
            listed = self.ask(uuid, handle, function)
            said |= listed is not None
            for entry in listed or ():
                instance = None if entry.gpuInstanceId == _NO_INSTANCE else int(entry.gpuInstanceId)
                memory = entry.usedGpuMemory
                found[entry.pid] = DeviceProcess(entry.pid, kind, None if memory is None else int(memory), instance)
        return tuple(found[pid] for pid in sorted(found)) if said else None


def _signed(value: int) -> int:
    """Return a temperature below zero as such: the older function gives it as an unsigned number."""
    return value - 2**32 if value >= 2**31 else value


def _named(bits: int) -> tuple[str, ...]:
    """Return the names of throttle reasons, "idle" left out: an idle GPU is not held back."""
    names = [name for bit, name in THROTTLE_REASONS.items() if bits & bit and name != "idle"]
    unknown = bits & ~sum(THROTTLE_REASONS)
    return (*names, f"reasons_{unknown:#x}") if unknown else tuple(names)
