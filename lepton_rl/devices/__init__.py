"""The GPUs of one machine: identities, readings, processes, events, three settings, and telemetry over time."""

from lepton_rl.devices.device import DeviceEvent, DeviceIdentity, DeviceProcess, Devices, Reading
from lepton_rl.devices.energy import Energy, EnergyMeter
from lepton_rl.devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceLost,
    DriverMismatch,
    DriverMissing,
    HistoryError,
    InvalidLimit,
    NoPermission,
    NotSupported,
    RecordingError,
    UnknownDevice,
)
from lepton_rl.devices.filter import ReadingFilter
from lepton_rl.devices.health import Health, HealthState, Xid, XidAction, judge, xid_table
from lepton_rl.devices.history import History, TelemetryRow, read_history, read_identities, write_csv
from lepton_rl.devices.nvml import NvmlDevices
from lepton_rl.devices.recording import Recorder, Recording, export_recording, load_recording, record
from lepton_rl.devices.replay import ReplayDevices
from lepton_rl.devices.sampler import DeviceTelemetry, Sampler, TelemetrySnapshot
from lepton_rl.devices.telemetry import Telemetry

__all__ = [
    "DeviceBusy",
    "DeviceError",
    "DeviceEvent",
    "DeviceIdentity",
    "DeviceLost",
    "DeviceProcess",
    "DeviceTelemetry",
    "Devices",
    "DriverMismatch",
    "DriverMissing",
    "Energy",
    "EnergyMeter",
    "Health",
    "HealthState",
    "History",
    "HistoryError",
    "InvalidLimit",
    "NoPermission",
    "NotSupported",
    "NvmlDevices",
    "Reading",
    "ReadingFilter",
    "Recorder",
    "Recording",
    "RecordingError",
    "ReplayDevices",
    "Sampler",
    "Telemetry",
    "TelemetryRow",
    "TelemetrySnapshot",
    "UnknownDevice",
    "Xid",
    "XidAction",
    "export_recording",
    "judge",
    "load_recording",
    "read_history",
    "read_identities",
    "record",
    "write_csv",
    "xid_table",
]
