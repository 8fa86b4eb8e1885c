"""Who is there: identities and handles of the GPUs and MIG instances that NVML lists."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lepton_rl.devices.device import DeviceIdentity
from lepton_rl.devices.errors import DriverMismatch
from lepton_rl.devices.nvml_errors import CODE_MISSING_FUNCTION, Answer, device_error, meaning_of
from lepton_rl.devices.nvml_queries import Interrupted, NvmlQueries


def required(nvml: Any, function: str, *arguments: Any) -> Any:
    """Return the answer to a question that every driver can answer; raises a DeviceError where this one cannot."""
    try:
        return getattr(nvml, function)(*arguments)
    except nvml.NVMLError as error:
        if error.value == CODE_MISSING_FUNCTION:
            raise DriverMismatch(
                f"the driver's libnvidia-ml.so.1 lacks the function for {function}: update the driver"
            ) from error
        raise device_error(error.value, f"ask the NVIDIA driver ({function})") from error


def enumerate_devices(queries: NvmlQueries) -> list[tuple[DeviceIdentity, Any]]:
    """Return each device and its handle: GPUs by the driver's index, then MIG instances; a lost GPU has handle None."""
    nvml = queries.nvml
    found: list[tuple[DeviceIdentity, Any]] = []
    for index in range(required(nvml, "nvmlDeviceGetCount")):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = str(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError as error:
            meaning = meaning_of(error.value)
            if meaning.answer is Answer.RESTARTED:
                raise device_error(error.value, f"identify GPU {index}") from error
            # One sick GPU must not keep the others from being used.
            found.append((DeviceIdentity(index, f"unknown-{index}", f"unknown: {meaning.words}"), None))
            continue
        try:
            found.append((_gpu(queries, index, uuid, handle), handle))
        except Interrupted:
            found.append((DeviceIdentity(index, uuid, "unknown"), handle))
    for parent, handle in tuple(found):
        if parent.divided:
            for instance in _instances(queries, parent.uuid, handle):
                with suppress(Interrupted):  # it went away just now
                    found.append((_instance(queries, len(found), parent, instance), instance))
    return found


def handle_of(nvml: Any, identity: DeviceIdentity) -> Any:
    """Return the handle of a device that was listed before, or None when the driver does not find it any more."""
    try:
        return nvml.nvmlDeviceGetHandleByUUID(identity.uuid.encode())
    except nvml.NVMLError:
        return None


def _gpu(queries: NvmlQueries, index: int, uuid: str, handle: Any) -> DeviceIdentity:
    name = queries.ask(uuid, handle, "nvmlDeviceGetName")
    pci = queries.ask(uuid, handle, "nvmlDeviceGetPciInfo")
    limits = queries.ask(uuid, handle, "nvmlDeviceGetPowerManagementLimitConstraints")
    low, high = limits if limits is not None else (None, None)
    mig = queries.ask(uuid, handle, "nvmlDeviceGetMigMode")
    return DeviceIdentity(
        index=index,
        uuid=uuid,
        name="unknown" if name is None else str(name),
        pci_bus_id=None if pci is None else _text(pci.busId),
        memory_total_bytes=queries.memory(uuid, handle).get("memory_total_bytes"),
        min_power_limit_mw=low,
        max_power_limit_mw=high,
        default_power_limit_mw=queries.ask(uuid, handle, "nvmlDeviceGetPowerManagementDefaultLimit"),
        divided=mig is not None and mig[0] == 1,
        minor=queries.ask(uuid, handle, "nvmlDeviceGetMinorNumber"),
    )


def _instance(queries: NvmlQueries, index: int, parent: DeviceIdentity, handle: Any) -> DeviceIdentity:
    uuid = str(required(queries.nvml, "nvmlDeviceGetUUID", handle))
    name = queries.ask(uuid, handle, "nvmlDeviceGetName")
    return DeviceIdentity(
        index=index,
        uuid=uuid,
        name=f"{parent.name} MIG" if name is None else str(name),
        pci_bus_id=parent.pci_bus_id,
        memory_total_bytes=queries.memory(uuid, handle).get("memory_total_bytes"),
        parent_uuid=parent.uuid,
    )


def _instances(queries: NvmlQueries, uuid: str, handle: Any) -> Iterator[Any]:
    for place in range(queries.ask(uuid, handle, "nvmlDeviceGetMaxMigDeviceCount") or 0):
        with suppress(queries.nvml.NVMLError):  # the places need not be filled from the front
            yield queries.nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
