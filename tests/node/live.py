"""A node in this process: real processes and the real NVML binding, on a fake driver."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lepton_rl.core.policy import Policy
from lepton_rl.devices import NvmlDevices, Telemetry
from lepton_rl.node.cluster import NodeCluster, NodeRules
from lepton_rl.node.guard import Guard, GuardRules
from lepton_rl.node.hardware import describe_hardware
from lepton_rl.node.jobs import FINAL, JobRecord, JobRequest, JobState
from lepton_rl.node.journal import Journal
from lepton_rl.node.lifecycle import GpuState
from lepton_rl.node.power import PowerControl
from lepton_rl.node.runs import Runs
from lepton_rl.node.view import JobRows, RunningJob
from tests.fake_nvml import FakeNvml
from tests.node.conftest import PATIENCE_S, shell

PATIENT = "echo ready; exec sleep 1000"


class LiveNode:
    """One node whose loop turns only while a test waits for something."""

    def __init__(
        self,
        folder: Path,
        fake: FakeNvml,
        library: Path,
        rules: NodeRules | None = None,
        power: PowerControl | None = None,
        telemetry_s: float = 0.05,
    ) -> None:
        self.folder, self.fake = folder, fake
        self.journal = Journal(folder / "journal.sqlite3", now=time.time())
        self.devices = NvmlDevices(library)
        self.telemetry = Telemetry(self.devices, period_s=telemetry_s, process_period_s=telemetry_s)
        self.runs = Runs(folder, self.journal)
        hardware = describe_hardware(self.devices.identities)
        self.cluster = NodeCluster(hardware, self.journal, self.runs, self.telemetry, rules, power=power)
        self.guard: Guard | None = None
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if not self.closed:
            self.kill_all()
            self.close()

    def close(self) -> None:
        """End the daemon; its jobs go on."""
        self.closed = True
        if self.guard is not None:
            self.guard.close()
        self.cluster.shut()
        self.cluster.loop.close()
        self.runs.close()
        self.telemetry.close()
        self.devices.close()
        self.journal.close()

    def kill_all(self) -> None:
        """Kill what still runs."""
        for run in self.journal.holding():
            for pid in (run.supervisor_pid, run.child_pid):
                if pid is not None:
                    with suppress(OSError):
                        os.kill(pid, signal.SIGKILL)

    def under(self, policy: Policy, fallback: Policy, rules: GuardRules | None = None) -> Guard:
        """Let a policy decide whenever the node waits for something."""
        if self.guard is not None:
            self.guard.close()
        names = (type(policy).__name__, type(fallback).__name__)
        self.guard = Guard(policy, fallback, names, rules, allowance=self.cluster.steps.allowance)
        self.cluster.steps.starving = self.guard.starving
        return self.guard

    def submit(self, script: str, **settings: object) -> int:
        """Submit a job that runs a shell script."""
        job = self.journal.submit(shell(script, **settings), time.time())
        self.cluster.submitted(job)
        return job

    def turn(self) -> None:
        """Let the loop turn a few times, and the policy decide, where there is one."""
        self.cluster.loop.run_until_complete(asyncio.sleep(0.005))
        self.cluster.look()
        if self.guard is not None:
            for action in self.guard.decide(self.cluster.snapshot()):
                self.cluster.apply(action)
            while self.cluster.narrow():
                for action in self.guard.decide(self.cluster.snapshot()):
                    self.cluster.apply(action)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Turn until a condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for: {what}"
            self.turn()

    def ready(self) -> Self:
        """Wait until every GPU takes work."""
        self.until(lambda: all(self.state(gpu) is GpuState.AVAILABLE for gpu in self.gpus), "available GPUs")
        return self

    @property
    def gpus(self) -> range:
        """Numbers of the GPUs."""
        return range(len(self.cluster.hardware.uuids))

    def state(self, gpu: int) -> GpuState:
        """Return the state of a GPU."""
        return self.cluster.gpu_of(self.cluster.hardware.uuids[gpu]).state

    def reason(self, gpu: int) -> str:
        """Return why a GPU is in its state."""
        return self.cluster.gpu_of(self.cluster.hardware.uuids[gpu]).reason

    def measuring(self, gpu: int) -> bool:
        """Return whether a GPU is being measured, or will be when those before it are done."""
        return self.cluster.gpu_of(self.cluster.hardware.uuids[gpu]).measuring

    def job(self, job: int) -> JobRecord:
        """Return what the journal has of a job."""
        return self.journal.job(job)

    def wait_for(self, job: int, state: JobState) -> JobRecord:
        """Wait until a job is in a state."""
        self.until(lambda: self.job(job).state in (state, *FINAL), f"job {job} {state}")
        assert self.job(job).state is state, self.job(job)
        return self.job(job)

    def running(self, job: int) -> None:
        """Wait until a job runs and has said that it is ready."""
        self.wait_for(job, JobState.RUNNING)
        out = self.output(job)
        self.until(lambda: out.exists() and "ready" in out.read_text(), f"job {job} to say that it is ready")

    def output(self, job: int) -> Path:
        """Return where the newest run of a job writes."""
        return self.runs.folder(job, self.job(job).run) / "stdout"

    def gpus_of(self, job: int, run: int | None = None) -> tuple[int, ...]:
        """Return the numbers of the GPUs that a run was given."""
        return tuple(map(self.cluster.hardware.number_of, self.journal.run(job, run).gpu_uuids))


def rows_of(rows: JobRows, requests: Sequence[JobRequest], gpus: Sequence[tuple[int, ...]]) -> list[RunningJob]:
    """Return requests as jobs 1, 2, ... that have run on these GPUs since the beginning."""
    made = [rows.row(number, request, 0.0, 0.0) for number, request in enumerate(requests, 1)]
    return [RunningJob(row, 0.0, held) for row, held in zip(made, gpus, strict=True)]
