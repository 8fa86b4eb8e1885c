"""What happened on a node as a workload: the jobs that ran, as the simulator replays them."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import JournalError
from lepton_rl.node.estimates import EstimateRules, RunTimes
from lepton_rl.node.hardware import CPU, RAM
from lepton_rl.node.jobs import FINAL, JobRecord, JobState, RunRecord
from lepton_rl.node.journal import Journal
from lepton_rl.workloads import Dropped, Trace

MIB_PER_GIB = 1024.0
SHORTEST_RUN_S = 1e-3


@dataclass(frozen=True, eq=False)
class History:
    """What a journal tells of the jobs that ran.

    Attributes:
        trace: the jobs, in order of submission; run times are the seconds that their runs took in all.
        start: (jobs,) when the first run of each began, seconds of the trace.
        finish: (jobs,) when its last run ended, the same.
        start_delay: (runs,) seconds from decision to start of every run.
        energy_j: of all runs, joules; None where no run was measured.
        preemptions: (jobs,) runs beyond the first.
    """

    trace: Trace
    start: NDArray[np.float64]
    finish: NDArray[np.float64]
    start_delay: NDArray[np.float64]
    energy_j: float | None
    preemptions: NDArray[np.int64]


def read_jobs(
    journal: Journal, since: float = 0.0, default_time_s: float = 86_400.0, anonymous: bool = False
) -> History:
    """Return the jobs that were submitted since a moment and have run to an end.

    Args:
        journal: of the node.
        since: Unix seconds.
        default_time_s: what a job without requested time counted as asking for.
        anonymous: users, projects and queues become numbers that cannot be turned back.

    Raises:
        JournalError: there is none.
    """
    records = [record for record in journal.jobs() if record.submit_time >= since]
    ended = [record for record in records if record.state in FINAL]
    found = [(record, [run for run in journal.runs(record.id) if run.started_time is not None]) for record in ended]
    ran = [(record, runs) for record, runs in found if runs and runs[-1].ended_time is not None]
    if not ran:
        raise JournalError(f"{journal.path}: no job has run to its end yet; there is nothing to export")
    ran.sort(key=lambda pair: (_ready(pair[0]), pair[0].id))
    trace = Trace.from_columns(
        _columns(ran, default_time_s, _pseudonyms() if anonymous else {}),
        name="node",
        requested="given",
        dropped=_left_out(records, {record.id for record, _ in ran}),
    )
    origin = _ready(ran[0][0])
    runs = [run for _, each in ran for run in each]
    delays = [max(0.0, (run.started_time or run.decided_time) - run.decided_time) for run in runs]
    measured = [run.energy_mj for run in runs if run.energy_mj is not None]
    return History(
        trace=trace,
        start=np.array([(each[0].started_time or 0.0) - origin for _, each in ran]),
        finish=np.array([(each[-1].ended_time or 0.0) - origin for _, each in ran]),
        start_delay=np.array(delays),
        energy_j=sum(measured) / 1e3 if measured else None,
        preemptions=np.array([len(each) - 1 for _, each in ran]),
    )


def _ready(record: JobRecord) -> float:
    """When a job could first have started: a policy does not see it before its time to begin."""
    return max(record.submit_time, record.request.begin_time)


def _columns(
    ran: list[tuple[JobRecord, list[RunRecord]]], default_time_s: float, secret: Mapping[str, str]
) -> dict[str, list[Any]]:
    requests = [record.request for record, _ in ran]
    whole = [max(request.gpu_milli / 1000, 1.0) for request in requests]

    def name(text: str) -> object:
        if not text:
            return -1
        return text if not secret else hashlib.sha256((secret["key"] + text).encode()).hexdigest()[:8]

    columns: dict[str, list[Any]] = {
        "job_id": [record.id for record, _ in ran],
        "submit_time": [_ready(record) for record, _ in ran],
        "run_time": [max(SHORTEST_RUN_S, sum(run.run_s or 0.0 for run in runs)) for _, runs in ran],
        "requested_time": _requested(ran, default_time_s),
        "gpus": [request.gpu_milli / 1000 for request in requests],
        "gpu_memory_gib": [
            np.nan if request.gpu_memory_mib is None else request.gpu_memory_mib / MIB_PER_GIB for request in requests
        ],
        "gpu_utilization": [_mean_utilisation(runs) for _, runs in ran],
        "compute_intensity": [_or_one(request.compute_intensity) for request in requests],
        "time_sensitivity": [_or_one(request.time_sensitivity) for request in requests],
        f"{CPU}_per_gpu": [(request.cpus or 0.0) / count for request, count in zip(requests, whole, strict=True)],
        f"{RAM}_per_gpu": [
            (request.ram_mib or 0.0) / MIB_PER_GIB / count for request, count in zip(requests, whole, strict=True)
        ],
    }
    for column in ("queue", "user", "project"):
        values = [name(getattr(request, column)) for request in requests]
        if any(value != -1 for value in values):
            columns[column] = ["" if value == -1 else value for value in values]
    return columns


def _requested(ran: list[tuple[JobRecord, list[RunRecord]]], default_time_s: float) -> list[float]:
    """What each job counted as asking for when it was submitted: estimates learn from what had finished by then."""
    times = RunTimes(EstimateRules(default_s=default_time_s))
    ended = sorted((runs[-1].ended_time or 0.0, index) for index, (_, runs) in enumerate(ran))
    found = []
    for record, _ in ran:
        while ended and ended[0][0] <= record.submit_time:
            before, runs = ran[ended.pop(0)[1]]
            if before.state is JobState.DONE:
                times.learn(before.request, sum(run.run_s or 0.0 for run in runs))
        found.append(times.of(record.request))
    return found


def _mean_utilisation(runs: list[RunRecord]) -> float:
    """How busy a job kept its GPUs over all its runs, 0 to 1; NaN where none was read while it had them to itself."""
    read = [(run.gpu_utilisation, run.run_s or 0.0) for run in runs if run.gpu_utilisation is not None]
    seconds = sum(length for _, length in read)
    return sum(mean * length for mean, length in read) / seconds if seconds > 0 else np.nan


def _or_one(value: float | None) -> float:
    return 1.0 if value is None else value


def _pseudonyms() -> Mapping[str, str]:
    """A key that is thrown away: the same name is the same number within one export, and in no other."""
    return {"key": secrets.token_hex(32)}


def _left_out(records: list[JobRecord], kept: set[int]) -> list[Dropped]:
    rest = [record for record in records if record.id not in kept]
    if not rest:
        return []
    examples = tuple(f"job {record.id} is {record.state}" for record in rest[:5])
    return [Dropped("has not run to an end", len(rest), examples)]
