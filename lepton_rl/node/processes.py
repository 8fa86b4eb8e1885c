"""Processes by an identity that is not used again: number, start time and boot, held by a pidfd while it matters."""

import os
import select
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lepton_rl.node.supervisor import process_ids, start_ticks, stat


def boot_id() -> str:
    """Return the kernel's name for this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one boot; `start_ticks` is its start time in clock ticks since boot."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the process that has a number now, or None."""
        try:
            return cls(pid, start_ticks(pid), boot_id())
        except OSError:
            return None

    def open(self) -> int | None:
        """Return a pidfd of this very process, or None where it is gone, even if another has taken its number."""
        if self.boot_id != boot_id():
            return None
        try:
            opened = os.pidfd_open(self.pid)
        except OSError:
            return None
        # The descriptor first, the start time after: what is compared is then what the descriptor holds, or is gone.
        with suppress(OSError):
            if start_ticks(self.pid) == self.start_ticks:
                return opened
        os.close(opened)
        return None

    def alive(self) -> bool:
        """Return whether it has not ended; one that only waits to be reaped has."""
        opened = self.open()
        if opened is None:
            return False
        try:
            return not ended(opened)
        finally:
            os.close(opened)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; return whether it was there and ours to signal."""
        opened = self.open()
        if opened is None:
            return False
        try:
            signal.pidfd_send_signal(opened, number)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(opened)


def ended(pidfd: int) -> bool:
    """Return whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def members(leader: Process, mark: str, grouped: Collection[int] = (), *, sure: bool = False) -> list[Process]:
    """Return the living processes of a run whose supervisor is dead, in no order.

    They are those in the session that `leader` began, those that have left it but carry `mark` ("NAME=value") in the
    environment they were started with, and those with the numbers in `grouped`. A session whose leader has ended may,
    once in a long while, be a stranger's of the same number: with `sure` it counts for nothing.
    """
    now = boot_id()
    if leader.boot_id != now:
        return []
    same = Process.of(leader.pid)
    trusted = same == leader or (same is None and not sure)
    found = []
    for pid in process_ids():
        with suppress(OSError):
            columns = stat(pid)
            process = Process(pid, int(columns[19]), now)
            in_session = trusted and int(columns[3]) == leader.pid and process.start_ticks >= leader.start_ticks
            if (in_session or pid in grouped or _carries(pid, mark)) and process.alive():
                found.append(process)
    return found


def _carries(pid: int, mark: str) -> bool:
    try:
        return mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def signal_each(processes: Iterable[Process], number: signal.Signals) -> int:
    """Send a signal to each of these very processes; return how many were there."""
    return sum(process.signal(number) for process in processes)
