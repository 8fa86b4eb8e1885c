"""Measuring what a GPU computes before it takes work: a command of the operator's, alone on it, for some seconds."""

import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from lepton_rl.node.environment import MARK
from lepton_rl.node.printable import printable
from lepton_rl.node.processes import Process, boot_id, members, signal_each
from lepton_rl.node.starter import NOBODY

_log = logging.getLogger(__name__)
READY_COMMAND = (sys.executable, "-P", "-m", "lepton_rl.devices.throughput")  # -P: nothing of the folder we are in
_KILL_PATIENCE_S = 10.0  # for a process that hangs in its driver
_MOST_AT_ONCE, _KEPT_BYTES = 1 << 20, 4096
_LONGEST_LINE = 200


@dataclass(frozen=True, slots=True)
class ThroughputRules:
    """What a GPU must compute before it takes work.

    Attributes:
        least_tflops: figure that it must reach, TFLOP/s.
        command: prints the figure as the last line of its standard output.
        limit_s: seconds after which it has failed.
    """

    least_tflops: float
    command: tuple[str, ...] = READY_COMMAND
    limit_s: float = 120.0


class Measurement:
    """One run of the command. `poll` never waits: it is looked at while the daemon goes on.

    Args:
        rules: what is run and asked for.
        uuid: of the GPU, the only one that the command sees.
        node_id: of the journal; by it the processes are known as this node's, also by the next daemon.
        monotonic: clock, seconds.
    """

    def __init__(self, rules: ThroughputRules, uuid: str, node_id: str, monotonic: Callable[[], float]) -> None:
        self.uuid, self._rules, self._node_id, self._monotonic = uuid, rules, node_id, monotonic
        self.against: str | None = None
        """What speaks against the GPU once it is known, in a sentence; empty for nothing."""
        self.tflops: float | None = None
        """The figure, once it is known; None where there is none."""
        shown = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid, MARK: _key(node_id)}
        self._deadline = monotonic() + rules.limit_s
        self._killed_at: float | None = None
        self._said, self._complained = _Tail(), _Tail()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                rules.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, **shown}, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # ValueError: a word with a NUL in it
            why = getattr(error, "strerror", None) or error
            self.against = f"its throughput run {rules.command[0]!r} could not be started: {why}"
            return
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)

    def poll(self) -> bool:
        """Look whether it has ended, or must be ended; return whether `against` is known."""
        if self._process is None:
            return True
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        code = self._process.poll()
        self._said.take(self._process.stdout)
        self._complained.take(self._process.stderr)
        if code is not None:
            self.against = self._judged(code)
        elif self._killed_at is None and self._monotonic() > self._deadline:
            self._killed_at = self._monotonic()
            _kill_group(self._process.pid)
        elif self._killed_at is not None and self._monotonic() - self._killed_at > _KILL_PATIENCE_S:
            self.against = f"{self._late()}, and not even SIGKILL ends it"
        if self.against is not None:
            self.close()
        return self.against is not None

    def close(self) -> None:
        """End it, and what it has left, if it still runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            _kill_group(process.pid)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        end_left(self._node_id)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()

    def _judged(self, code: int) -> str:
        if self._killed_at is not None:
            return self._late()
        if code:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            last = self._complained.last_line().removeprefix("error: ")
            return f"its throughput run failed with {how}{f': {last}' if last else ''}"
        said = self._said.last_line()
        try:
            tflops = float(said)
        except ValueError:
            tflops = math.nan
        if not math.isfinite(tflops):
            return f"its throughput run printed {said!r}, which is no number of TFLOP/s"
        self.tflops = tflops
        _log.info("GPU %s computes %g TFLOP/s by the command of acceptance.throughput", self.uuid, tflops)
        least = self._rules.least_tflops
        return "" if tflops >= least else f"it computes {tflops:g} TFLOP/s, at least {least:g} are asked for"

    def _late(self) -> str:
        return f"its throughput run took longer than {self._rules.limit_s:g} s"


def _kill_group(group: int) -> None:
    with suppress(OSError):  # it has gone, or has become another user's
        os.killpg(group, signal.SIGKILL)


class _Tail:
    """The end of what a process writes."""

    def __init__(self) -> None:
        self._kept = b""

    def take(self, stream: IO[bytes]) -> None:
        """Take what is there, up to a bound: a process that never stops writing must not hold us."""
        with suppress(BlockingIOError):
            for _ in range(_MOST_AT_ONCE // _KEPT_BYTES):
                data = os.read(stream.fileno(), _KEPT_BYTES)
                if not data:
                    return
                self._kept = (self._kept + data)[-_KEPT_BYTES:]

    def last_line(self) -> str:
        """Return the last line with something in it."""
        lines = [line.strip() for line in self._kept.decode(errors="replace").splitlines() if line.strip()]
        return printable(lines[-1])[:_LONGEST_LINE] if lines else ""


def end_left(node_id: str) -> int:
    """Kill the processes of a node's measurements, those of a former daemon's too; return how many there were."""
    nobody = Process(NOBODY, 0, boot_id())
    return signal_each(members(nobody, f"{MARK}={_key(node_id)}", sure=True), signal.SIGKILL)


def _key(node_id: str) -> str:
    """A run that no job has: their numbers begin with 1."""
    return f"{node_id}:0:0"
