"""Giving memory back that a daemon needs only while it loads what decides.

Compiled functions are loaded by LLVM, some 60 MiB of code and tables of which nobody reads a byte after that. They stay
in a process's resident memory until the machine runs short. Their pages are unchanged copies of a file: given back,
they are read again when the next function is loaded.
"""

import asyncio
import ctypes
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s+(\S.*)")
_DONT_NEED = 4  # Linux: MADV_DONTNEED
_LIBRARY = "libllvmlite"
_EVERY_S = 60.0
"""A function is loaded when it is first called, which may be long after the start: that takes LLVM's code again."""


async def stay_small() -> None:
    """Give memory back now and then, for ever."""
    while True:
        give_back_loader()
        await asyncio.sleep(_EVERY_S)


def give_back_loader() -> None:
    """Give LLVM's pages and what the allocator holds free back to the machine; nothing where that cannot be done."""
    with suppress(OSError, AttributeError):  # another system than Linux with glibc
        system = ctypes.CDLL(None)
        for begin, end in _unchanged_mappings(_LIBRARY):
            system.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED)
        system.malloc_trim(ctypes.c_size_t(0))


def _unchanged_mappings(library: str) -> Iterator[tuple[int, int]]:
    """Yield the addresses of a library's mappings that cannot be written and never were: all of it is in the file.

    What the loader changed and then protected is anonymous memory, or swap where the machine ran short: of neither is
    there any.
    """
    begin, end, candidate, own = 0, 0, False, set[str]()
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = _MAPPING.fullmatch(line)
        if found is not None:
            begin, end, own = int(found[1], 16), int(found[2], 16), set()
            candidate = "w" not in found[3] and Path(found[4]).name.startswith(library)
        elif candidate and line.startswith(("Anonymous:", "Swap:")) and line.split()[1:] == ["0", "kB"]:
            own.add(line.partition(":")[0])
            if len(own) == 2:
                yield begin, end
