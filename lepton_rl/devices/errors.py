"""Errors of the devices: what a driver, a library or a recording can do to us."""

from lepton_rl.errors import LeptonError


class DeviceError(LeptonError):
    """A device or its driver cannot do what was asked."""


class DriverMissing(DeviceError):
    """No NVIDIA driver answers on this machine."""


class DriverMismatch(DeviceError):
    """The driver, its library and the Python binding do not belong together."""


class NoPermission(DeviceError):
    """The driver refuses this user."""


class DeviceLost(DeviceError):
    """The GPU has fallen off the bus or needs a reset."""


class UnknownDevice(DeviceError):
    """No device has the index that was asked for."""


class NotSupported(DeviceError):
    """The device has no such ability."""


class InvalidLimit(DeviceError):
    """A power limit or clock lies outside what the device allows."""


class DeviceBusy(DeviceError):
    """The driver did not answer in time or not for now; asking again may help."""


class RecordingError(DeviceError):
    """A recording of readings cannot be played, or is asked for what only a device can do."""


class HistoryError(DeviceError):
    """The telemetry history cannot be opened or read."""
