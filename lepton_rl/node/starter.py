"""How a node starts supervisors, tells them to stop, and finds and ends what they leave: by itself, or by a helper."""

import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lepton_rl.errors import JobError
from lepton_rl.node.cgroup import Cgroups, Limits
from lepton_rl.node.environment import MARK, RunSettings, run_group, run_key, supervisor_request
from lepton_rl.node.jobs import JobRecord, RunRecord, StopHow
from lepton_rl.node.processes import Process, members, signal_each
from lepton_rl.node.run_folder import RunFolder

SIGNALS = {StopHow.CHECKPOINT: signal.SIGUSR1, StopHow.STOP: signal.SIGTERM, StopHow.KILL: signal.SIGUSR2}
NOBODY = -1  # leads no session


@dataclass(frozen=True, slots=True)
class Begun:
    """A supervisor that was just started; both descriptors are the caller's to close.

    Attributes:
        pidfd: of the supervisor.
        ready: reads as ended once the job has started.
    """

    pidfd: int
    ready: int


class Starter(Protocol):
    """What `Runs` needs to have done to processes.

    Attributes:
        restarts: whether `start_again` can start a run that was prepared and never begun.
    """

    restarts: bool

    def check(self) -> None:
        """Raise JobError where nothing can be started at this moment."""

    def start(self, job: JobRecord, run: RunRecord, folder: RunFolder, minors: Sequence[int] | None) -> Begun | None:
        """Prepare a run's folder and start its supervisor; None where that may have happened and the folder tells.

        Raises:
            StartRefused: the job may not run here.
            OSError, JobError: nothing was started, and nothing will be of this run.
        """

    def start_again(self, run: RunRecord, folder: RunFolder, lock: int) -> Begun | None:
        """Start a run that was prepared and never begun, whose lock we hold; None as for `start`."""

    def tell(self, run: RunRecord, pidfd: int, how: StopHow) -> bool:
        """Tell a living supervisor to stop its job; False where it could not be told yet."""

    def left(self, run: RunRecord) -> list[Process]:
        """Return the living processes of a run whose supervisor is dead."""

    def end_left(self, run: RunRecord, how: StopHow) -> int:
        """Signal the processes of a run whose supervisor is dead; return how many there were.

        Raises:
            JobError: that cannot be done now.
        """

    def give_up(self, folder: RunFolder) -> None:
        """See to it that a run that has not begun, and whose lock we hold, never begins."""

    def clear(self, run: RunRecord) -> None:
        """Put away what an ended run needs no more."""

    def remove(self, folder: Path) -> None:
        """Remove the folder of a job that has ended, with those of its runs.

        Raises:
            OSError, JobError: something of it is still there.
        """


class OwnStarter:
    """Supervisors and jobs are processes of the daemon's own user.

    Args:
        node_id: of the journal.
        cgroups: where the kernel and our rights allow them.
        settings: what holds for all jobs.
    """

    restarts = True

    def __init__(self, node_id: str, cgroups: Cgroups | None = None, settings: RunSettings | None = None) -> None:
        self._node_id, self._cgroups, self._settings = node_id, cgroups, settings or RunSettings()

    def check(self) -> None:
        """Nothing stands against it."""

    def start(self, job: JobRecord, run: RunRecord, folder: RunFolder, minors: Sequence[int] | None) -> Begun | None:
        """Prepare a run's folder and start its supervisor."""
        asked = supervisor_request(job, run, self._node_id, self._settings.mps_pipe_directory)
        if self._cgroups is not None:
            limits = Limits(job.request.ram_mib, job.request.cpus, None if minors is None else tuple(minors))
            asked = asked | {"cgroups": [str(self._cgroups.make(run_group(self._node_id, run), limits))]}
        try:
            folder.prepare(self._settings.complete(asked))
            lock = folder.lock()
            if lock is None:
                raise JobError(f"{folder.path} is held by another supervisor")
            try:
                return self.start_again(run, folder, lock)
            finally:
                os.close(lock)
        except (OSError, JobError):
            self.clear(run)
            raise

    def start_again(self, run: RunRecord, folder: RunFolder, lock: int) -> Begun | None:
        """Start the supervisor of a prepared folder."""
        pid, ready = folder.spawn(lock)
        try:
            return Begun(os.pidfd_open(pid), ready)  # ours until reaped: its number cannot be another's yet
        except OSError:  # no descriptor to be had; the job runs all the same, and is found by its folder
            os.close(ready)
            return None

    def tell(self, run: RunRecord, pidfd: int, how: StopHow) -> bool:
        """Signal a supervisor; it takes the same twice for once."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, SIGNALS[how])
        return True

    def left(self, run: RunRecord) -> list[Process]:
        """Return the processes of a run, by its control group, its session and its mark."""
        return self._members(run, sure=False)

    def end_left(self, run: RunRecord, how: StopHow) -> int:
        """Signal what is left of a run: SIGKILL for `KILL`, else SIGTERM."""
        return signal_each(self._members(run, sure=True), signal.SIGKILL if how is StopHow.KILL else signal.SIGTERM)

    def _members(self, run: RunRecord, *, sure: bool) -> list[Process]:
        child = Process(run.child_pid or NOBODY, run.child_ticks or 0, run.boot_id)
        grouped = () if self._cgroups is None else self._cgroups.processes(run_group(self._node_id, run))
        return members(child, f"{MARK}={run_key(self._node_id, run)}", grouped, sure=sure)

    def give_up(self, folder: RunFolder) -> None:
        """Nothing is to be done: nobody but us starts anything."""

    def clear(self, run: RunRecord) -> None:
        """Remove a run's control group."""
        if self._cgroups is not None:
            self._cgroups.remove(run_group(self._node_id, run))

    def remove(self, folder: Path) -> None:
        """Remove the folder of an ended job: all of it is ours."""
        shutil.rmtree(folder)
