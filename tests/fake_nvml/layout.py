"""Memory layout of the fake driver's state: the one home of it, from which the C header is made.

The state is one file that every process maps. C reads these structures through a generated header whose static
assertions hold each offset to the one that ctypes computed, so that a disagreement does not compile.
"""

import ctypes
from typing import Any

MAX_GPUS = 16
MAX_INSTANCES = 8
MAX_PROCESSES = 64
MAX_RULES = 64
MAX_EVENTS = 256
NO_INSTANCE = 0xFFFFFFFF
UNKNOWN_MEMORY = 0xFFFFFFFFFFFFFFFF


class Process(ctypes.Structure):
    """A process on a GPU; the library leaves out those that have ended."""

    _fields_ = (
        ("pid", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),  # 0 compute, 1 graphics, 2 MPS
        ("gpu_instance", ctypes.c_uint32),
        ("compute_instance", ctypes.c_uint32),
        ("used_bytes", ctypes.c_uint64),
    )


class Instance(ctypes.Structure):
    """A MIG instance."""

    _fields_ = (
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
        ("gpu_instance", ctypes.c_uint32),
        ("compute_instance", ctypes.c_uint32),
        ("memory_total_bytes", ctypes.c_uint64),
        ("memory_other_bytes", ctypes.c_uint64),
    )


class Gpu(ctypes.Structure):
    """One GPU. Used memory is `memory_other_bytes` and what the living processes use."""

    _fields_ = (
        ("name", ctypes.c_char * 96),
        ("uuid", ctypes.c_char * 96),
        ("serial", ctypes.c_char * 32),
        ("pci_domain", ctypes.c_uint32),
        ("pci_bus", ctypes.c_uint32),
        ("pci_device", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
        ("memory_total_bytes", ctypes.c_uint64),
        ("memory_reserved_bytes", ctypes.c_uint64),
        ("memory_other_bytes", ctypes.c_uint64),
        ("energy_base_mj", ctypes.c_uint64),
        ("energy_base_ns", ctypes.c_uint64),  # CLOCK_MONOTONIC
        ("energy_fixed", ctypes.c_uint32),
        ("power_mw", ctypes.c_uint32),
        ("power_limit_mw", ctypes.c_uint32),
        ("min_power_limit_mw", ctypes.c_uint32),
        ("max_power_limit_mw", ctypes.c_uint32),
        ("default_power_limit_mw", ctypes.c_uint32),
        ("utilisation_percent", ctypes.c_uint32),
        ("memory_utilisation_percent", ctypes.c_uint32),
        ("temperature_c", ctypes.c_int32),
        ("fan_percent", ctypes.c_uint32),
        ("sm_clock_mhz", ctypes.c_uint32),
        ("memory_clock_mhz", ctypes.c_uint32),
        ("max_sm_clock_mhz", ctypes.c_uint32),
        ("max_memory_clock_mhz", ctypes.c_uint32),
        ("locked_min_mhz", ctypes.c_uint32),
        ("locked_max_mhz", ctypes.c_uint32),  # 0: not locked
        ("throttle_reasons", ctypes.c_uint64),
        ("ecc_corrected", ctypes.c_uint64),
        ("ecc_uncorrected", ctypes.c_uint64),
        ("remapped_corrected", ctypes.c_uint32),
        ("remapped_uncorrected", ctypes.c_uint32),
        ("remap_pending", ctypes.c_uint32),
        ("remap_failed", ctypes.c_uint32),
        ("recovery_action", ctypes.c_uint32),
        ("mig_enabled", ctypes.c_uint32),
        ("instance_count", ctypes.c_uint32),
        ("process_count", ctypes.c_uint32),
        ("instances", Instance * MAX_INSTANCES),
        ("processes", Process * MAX_PROCESSES),
    )


class Rule(ctypes.Structure):
    """What befalls one query: an error, a delay, or neither; `hits` counts how often it was asked."""

    _fields_ = (
        ("query", ctypes.c_char * 64),
        ("gpu", ctypes.c_int32),  # -1: every GPU
        ("error", ctypes.c_uint32),
        ("delay_ms", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("hits", ctypes.c_uint64),
    )


class Event(ctypes.Structure):
    """One entry of the ring of events."""

    _fields_ = (
        ("gpu", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("type", ctypes.c_uint64),
        ("data", ctypes.c_uint64),
    )


class State(ctypes.Structure):
    """The whole file."""

    _fields_ = (
        ("magic", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),  # of the driver: a process that saw an older one must initialise again
        ("event_count", ctypes.c_uint64),  # ever injected; entry n lies at n mod MAX_EVENTS
        ("driver_loaded", ctypes.c_uint32),
        ("gpu_count", ctypes.c_uint32),
        ("rule_count", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("driver_version", ctypes.c_char * 32),
        ("rules", Rule * MAX_RULES),
        ("events", Event * MAX_EVENTS),
        ("gpus", Gpu * MAX_GPUS),
    )


MAGIC = 0x4E564D4C46414B45  # "NVMLFAKE"
_CONSTANTS = ("MAX_GPUS", "MAX_INSTANCES", "MAX_PROCESSES", "MAX_RULES", "MAX_EVENTS", "NO_INSTANCE")
_STRUCTURES = (Process, Instance, Gpu, Rule, Event, State)
_C_TYPES: dict[Any, str] = {
    ctypes.c_int32: "int32_t",
    ctypes.c_uint32: "uint32_t",
    ctypes.c_uint64: "uint64_t",
    ctypes.c_char: "char",
} | {structure: f"struct {structure.__name__.lower()}" for structure in _STRUCTURES}


def c_header() -> str:
    """Return the header that gives C the same structures, each offset and size asserted."""
    lines = ["#include <stddef.h>", "#include <stdint.h>"]
    lines += [f"#define {name} {globals()[name]}u" for name in _CONSTANTS]
    lines += [f"#define MAGIC {MAGIC}ull"]
    for structure in _STRUCTURES:
        name = f"struct {structure.__name__.lower()}"
        fields: list[tuple[str, Any]] = [(field[0], field[1]) for field in structure._fields_]
        lines += [f"{name} {{", *(f"  {_declared(kind, field)};" for field, kind in fields), "};"]
        lines += [f'_Static_assert(sizeof({name}) == {ctypes.sizeof(structure)}, "size of {name}");']
        for field, _ in fields:
            offset = getattr(structure, field).offset
            lines += [f'_Static_assert(offsetof({name}, {field}) == {offset}, "offset of {name}.{field}");']
    return "\n".join(lines) + "\n"


def _declared(kind: Any, name: str) -> str:
    if issubclass(kind, ctypes.Array):
        return f"{_C_TYPES[kind._type_]} {name}[{kind._length_}]"
    return f"{_C_TYPES[kind]} {name}"
