"""Which GPUs the processes of a control group can open at all: a program for the kernel, put there by bpf(2).

It needs root and cgroup v2. The devices' numbers are those of /dev/nvidia0 and so on; what all GPUs share (nvidiactl,
nvidia-modeset, nvidia-uvm) stays open, and MIG instances, which are told apart elsewhere, are not filtered.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Collection
from pathlib import Path

NVIDIA_MAJOR = 195
FIRST_SHARED_MINOR = 254  # nvidia-modeset, then nvidiactl
_SYSCALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI = 2  # beside a filter that is there already; a device must pass all of them
_LOAD_WORD, _JUMP_IF_NOT, _JUMP_IF, _JUMP_FROM, _MOVE, _EXIT = 0x61, 0x55, 0x15, 0x35, 0xB7, 0x95


def allow_only(
    group: Path, minors: Collection[int], *, major: int = NVIDIA_MAJOR, below: int = FIRST_SHARED_MINOR
) -> None:
    """Deny a control group all devices of a major number with minor numbers under `below`, except `minors`.

    Raises:
        OSError: this kernel or user may not.
    """
    program = _load(_instructions(frozenset(minors), major, below))
    try:
        target = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIII", target, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(target)
    finally:
        os.close(program)  # the group keeps it


def _instructions(minors: frozenset[int], major: int, below: int) -> bytes:
    """Return the program; its argument, in register 1, is {access and type, major, minor}, 4 bytes each."""
    steps = [
        (_LOAD_WORD, 2 | 1 << 4, 4, 0),
        (_LOAD_WORD, 3 | 1 << 4, 8, 0),
        (_JUMP_IF_NOT, 2, len(minors) + 3, major),
        (_JUMP_FROM, 3, len(minors) + 2, below),
        *((_JUMP_IF, 3, len(minors) - place + 1, minor) for place, minor in enumerate(sorted(minors))),
        (_MOVE, 0, 0, 0),
        (_EXIT, 0, 0, 0),
        (_MOVE, 0, 0, 1),
        (_EXIT, 0, 0, 0),
    ]
    return b"".join(struct.pack("=BBhi", *step) for step in steps)


def _load(instructions: bytes) -> int:
    code, licence = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"MIT")
    return _bpf(
        _PROG_LOAD,
        struct.pack(
            "=IIQQIIQII",
            *(_PROG_TYPE_CGROUP_DEVICE, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence)),
            *(0, 0, 0, 0, 0),
        ),
    )


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"filtering devices is not known on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    arguments = (ctypes.c_long(number), ctypes.c_int(command), ctypes.byref(held), ctypes.c_uint(len(held)))
    answer = int(libc.syscall(*arguments))
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return answer
