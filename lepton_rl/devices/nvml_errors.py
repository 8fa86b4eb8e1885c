"""What each NVML return code means to us: the one table.

The numbers are NVML's stable ABI, written here so that the table can be read without the binding.
"""

from dataclasses import dataclass
from enum import Enum

from lepton_rl.devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceLost,
    DriverMismatch,
    DriverMissing,
    InvalidLimit,
    NoPermission,
    NotSupported,
)


class Answer(Enum):
    """What a failed query says about the value that was asked for."""

    MISSING_NOW = "the value is missing this time"
    MISSING_ALWAYS = "the value is missing, and asking again is vain until the driver restarts"
    RESET_REQUIRED = "the value is missing until the GPU is reset"
    LOST = "the GPU is gone"
    RESTARTED = "the driver was restarted: initialise again"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one return code means: the error it becomes, its words, and what it says of a query's value."""

    error: type[DeviceError]
    words: str
    answer: Answer = Answer.MISSING_NOW


_ALWAYS = Answer.MISSING_ALWAYS
CODE_MISSING_FUNCTION, CODE_LOST = 13, 15
NVML_ERRORS: dict[int, Meaning] = {
    1: Meaning(DriverMissing, "the driver was unloaded or restarted", Answer.RESTARTED),
    2: Meaning(InvalidLimit, "the driver does not accept the value"),
    3: Meaning(NotSupported, "the device does not support it", _ALWAYS),
    4: Meaning(NoPermission, "the driver does not permit it to this user: run it as root", _ALWAYS),
    6: Meaning(DeviceError, "the driver did not find it"),
    7: Meaning(DeviceBusy, "the answer outgrew its room: ask again"),
    8: Meaning(DeviceError, "the device lacks external power: check its power cables"),
    9: Meaning(
        DriverMissing, "the driver's kernel module is not loaded: see whether nvidia-smi runs", Answer.RESTARTED
    ),
    10: Meaning(DeviceBusy, "the driver did not answer in time: ask again"),
    11: Meaning(DeviceError, "the kernel found an interrupt problem of the device: see dmesg"),
    12: Meaning(
        DriverMissing,
        "libnvidia-ml.so.1 was not found: install the NVIDIA driver, or set devices.library_path to where it lies",
    ),
    13: Meaning(DriverMismatch, "the driver's library has no such function: a newer driver has it", _ALWAYS),
    14: Meaning(DeviceError, "the device's infoROM is corrupted: see nvidia-smi -q", _ALWAYS),
    15: Meaning(DeviceLost, "the GPU has fallen off the bus: the machine needs a reboot", Answer.LOST),
    16: Meaning(
        DeviceLost, "the GPU needs a reset before it can be used: nvidia-smi --gpu-reset", Answer.RESET_REQUIRED
    ),
    17: Meaning(
        NoPermission, "the operating system blocked it: see the device cgroup and the permissions of /dev/nvidia*"
    ),
    18: Meaning(
        DriverMismatch,
        "library and kernel module of the driver differ, as after an upgrade: reboot the machine",
        Answer.RESTARTED,
    ),
    19: Meaning(DeviceBusy, "the device is in use: try again when it is idle"),
    20: Meaning(DeviceBusy, "the driver ran out of memory: try again"),
    21: Meaning(DeviceError, "the device has no data on it yet"),
    24: Meaning(InvalidLimit, "the device has no such frequency"),
    25: Meaning(DriverMismatch, "the driver knows another version of the question: update nvidia-ml-py", _ALWAYS),
    26: Meaning(NotSupported, "the driver has retired the question: update nvidia-ml-py", _ALWAYS),
    27: Meaning(DeviceBusy, "the device is not ready: try again"),
    28: Meaning(DeviceLost, "the driver does not find the GPU any more: the machine needs a reboot", Answer.LOST),
    29: Meaning(DeviceBusy, "the device's present state does not allow it"),
    999: Meaning(DeviceError, "the driver met an internal error: see dmesg"),
}


def meaning_of(code: int) -> Meaning:
    """Return the meaning of a return code; one that is not in the table is a plain error that names its number."""
    return NVML_ERRORS.get(code) or Meaning(DeviceError, f"the driver answered with the unknown code {code}")


def device_error(code: int, what: str) -> DeviceError:
    """Return the error for a return code: "cannot `what`: ..."."""
    meaning = meaning_of(code)
    return meaning.error(f"cannot {what}: {meaning.words}")
