"""A control group for each run, where the kernel and our rights allow one: limits that a job cannot get around."""

import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lepton_rl.node.device_filter import allow_only

_CPU_PERIOD_US = 100_000
_PATIENCE_S = 2.0  # a killed process leaves its group a moment later


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; None is no limit. `gpu_minors` are the numbers in /dev/nvidia0 and so on."""

    ram_mib: int | None = None
    cpus: float | None = None
    gpu_minors: tuple[int, ...] | None = None


class Cgroups:
    """The groups below one of our own; a run's is named by the caller."""

    def __init__(self, parent: Path) -> None:
        """Make the parent group and let its children have the memory and cpu controllers, as far as there are any.

        Under systemd, give a folder of a unit with Delegate=yes, which holds no process itself.

        Raises:
            OSError: we may not.
        """
        parent.mkdir(exist_ok=True)
        self.parent = parent
        for controller in ("memory", "cpu"):
            for folder in (parent.parent, parent):
                with suppress(OSError):  # not there, or the other hierarchy has it
                    (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        enabled = (parent / "cgroup.subtree_control").read_text().split()
        self.controllers = frozenset(enabled) & {"memory", "cpu"}
        self.filters_devices = self._can_filter()

    @classmethod
    def find(cls, name: str = "lepton-rl") -> Self | None:
        """Return our group at the top of the cgroup v2 hierarchy, or None where there is none or it is not ours."""
        mounted = cgroup2_mount()
        if mounted is None or not os.access(mounted, os.W_OK):
            return None
        try:
            return cls(mounted / name)
        except OSError:
            return None

    def _can_filter(self) -> bool:
        probe = self.parent / f"probe-{os.getpid()}"
        try:
            probe.mkdir()
            allow_only(probe, ())
        except OSError:
            return False
        else:
            return True
        finally:
            with suppress(OSError):
                probe.rmdir()

    def make(self, name: str, limits: Limits) -> Path:
        """Make the group of a run, with what can be enforced of its limits; one that is there is used again.

        Raises:
            OSError: the kernel refuses a limit.
        """
        group = self.parent / name
        group.mkdir(exist_ok=True)
        if "memory" in self.controllers and limits.ram_mib is not None:
            (group / "memory.max").write_text(str(limits.ram_mib << 20))
            with suppress(OSError):  # kernels without swap accounting have no such file
                (group / "memory.swap.max").write_text("0")
            (group / "memory.oom.group").write_text("1")  # half a job is no job
        if "cpu" in self.controllers and limits.cpus is not None:
            (group / "cpu.max").write_text(f"{round(limits.cpus * _CPU_PERIOD_US)} {_CPU_PERIOD_US}")
        if self.filters_devices and limits.gpu_minors is not None:
            allow_only(group, limits.gpu_minors)
        return group

    def processes(self, name: str) -> list[int]:
        """Return the processes in a run's group: all of the run that live, wherever they put themselves."""
        try:
            return [int(line) for line in (self.parent / name / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def remove(self, name: str) -> bool:
        """Kill what is left in a run's group and remove it; return whether it is gone."""
        group = self.parent / name
        deadline = time.monotonic() + _PATIENCE_S
        while group.is_dir():
            with suppress(OSError):
                (group / "cgroup.kill").write_text("1")
            with suppress(OSError):
                group.rmdir()
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def cgroup2_mount() -> Path | None:
    """Return where the cgroup v2 hierarchy is mounted."""
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, kind, *_ = line.split()
            if kind == "cgroup2":
                return Path(place)
    return None


def describe_enforcement(cgroups: Cgroups | None, *, switch_user: bool = False, mps: bool = False) -> list[str]:
    """Return in plain sentences what keeps a job to what it asked for, and what does not."""
    controllers: Collection[str] = cgroups.controllers if cgroups is not None else ()
    why = "no control group of version 2 is ours to use" if cgroups is None else "this kernel does not give it to us"
    return [
        "GPUs: a job cannot open the other GPUs; their device files are closed to it by the kernel."
        if cgroups is not None and cgroups.filters_devices
        else f"GPUs: CUDA_VISIBLE_DEVICES shows a job its GPUs, which it can override: not enforced ({why}).",
        "GPU shares: MPS limits the threads and memory of a share; faults of one client can end the others."
        if mps
        else "GPU shares: jobs on a GPU take turns; neither memory nor time of a share is limited (MPS does not run).",
        "RAM: a job over its --ram is ended by the kernel, all of it."
        if "memory" in controllers
        else f"RAM: --ram is used to plan and is not enforced ({why}).",
        "CPUs: a job gets no more CPU time than its --cpus."
        if "cpu" in controllers
        else f"CPUs: --cpus is used to plan and is not enforced ({why}).",
        "Processes: all of a job's processes are ended with it, wherever they put themselves; its group is killed."
        if cgroups is not None
        else "Processes: all of a job's processes are ended with it while its supervisor lives; should that be killed, "
        "they are found by session and environment.",
        "Users: each job runs as the user who submitted it."
        if switch_user
        else "Users: all jobs run as the user of the daemon, and can read and signal each other.",
    ]
