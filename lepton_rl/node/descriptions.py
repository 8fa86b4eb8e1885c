"""Jobs, runs and GPUs as callers are told of them: plain data."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.jobs import JobRecord, RunRecord

COMMAND_WORDS, WORD_LENGTH = 20, 200
"""Of a command, in listings; `job` has all of it."""
_ASKED = (
    "cwd", "gpu_memory_mib", "cpus", "ram_mib", "compute_intensity", "time_sensitivity", "restartable",
    "checkpoint_signal", "checkpoint_grace_s", "stop_grace_s", "umask",
)  # fmt: skip
_OF_A_RUN = (
    "run", "gpu_uuids", "decided_time", "started_time", "ended_time", "run_s", "outcome", "exit_code", "signal",
    "energy_mj", "peak_gpu_memory_mib", "gpu_utilisation", "cpu_s", "max_rss_kib", "log_bytes_dropped",
)  # fmt: skip


def describe_job(record: JobRecord, logs: Path, *, whole: bool) -> dict[str, Any]:
    """Return what a listing says of a job.

    Args:
        record: of the job.
        logs: folder of its newest run.
        whole: also what its command line tells, or may tell: that is not for every other user.
    """
    request = record.request
    return {
        "job": record.id, "name": request.name or (Path(request.argv[0]).name if whole else ""),
        "command": [word[:WORD_LENGTH] for word in request.argv[:COMMAND_WORDS]] if whole else None,
        "state": record.state, "user": request.user, "project": request.project, "queue": request.queue,
        "gpus": request.gpu_milli / 1000, "requested_s": request.requested_s, "time_limit_s": request.time_limit_s,
        "begin_time": request.begin_time,
        "priority": request.priority, "submit_time": record.submit_time, "start_time": record.start_time,
        "end_time": record.end_time, "exit_code": record.exit_code, "signal": record.signal,
        "reason": record.reason if whole else None, "run": record.run,
        "logs": str(logs) if whole and record.run else None,
    }  # fmt: skip


def describe_request(record: JobRecord) -> dict[str, Any]:
    """Return what a job asked for, beside what a listing says."""
    asked = {name: getattr(record.request, name) for name in _ASKED}
    return {**asked, "argv": list(record.request.argv), "env": dict(record.request.env)}


def describe_run(run: RunRecord) -> dict[str, Any]:
    """Return what is known of a run."""
    return {name: getattr(run, name) for name in _OF_A_RUN}


def describe_gpus(cluster: NodeCluster, *, simulated: bool) -> list[dict[str, Any]]:
    """Return each GPU's state, its jobs, its last filtered reading, and what it computed when that was measured.

    Args:
        cluster: the node.
        simulated: whether the GPUs are no hardware; it stands beside each figure that was measured.
    """
    latest, holders = cluster.telemetry.latest(), cluster.jobs.holders()
    gpus = []
    for number, uuid in enumerate(cluster.hardware.uuids):
        status, reading = cluster.gpu_of(uuid), latest.device(uuid).filtered
        kind = cluster.hardware.cluster.group_of(number).gpu.name
        measured = cluster.gpus.measured.get(uuid)
        throughput = None if measured is None else {**asdict(measured), "simulated": simulated}
        gpus.append(
            {
                "gpu": number, "uuid": uuid, "type": kind, "state": status.state, "reason": status.reason,
                "since": status.since, "measuring": status.measuring, "jobs": list(holders.get(uuid, ())),
                "utilisation": reading.utilisation, "memory_used_bytes": reading.memory_used_bytes,
                "memory_total_bytes": reading.memory_total_bytes,
                "power_mw": reading.power_mw, "power_limit_mw": reading.power_limit_mw,
                "temperature_c": reading.temperature_c, "throughput": throughput,
            }
        )  # fmt: skip
    return gpus
