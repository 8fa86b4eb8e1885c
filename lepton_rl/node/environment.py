"""What the supervisor is asked to run: the job's command with the variables that show it its GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_rl.node.jobs import JobRecord, RunRecord
from lepton_rl.node.mps import MpsShare, share_under_mps

MARK = "LEPTON_RUN_KEY"  # by it the processes of a run are found again after its supervisor died
JOB, RUN = "LEPTON_JOB_ID", "LEPTON_RUN"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What holds for all jobs of a node; `umask` for those that come without one.

    `rlimits` maps names as RLIMIT_NOFILE to (soft, hard). `log_bytes_limit` is for each of stdout and stderr; as much
    again is kept in the older part; 0 is no limit. `mps_pipe_directory` is where an operator's MPS has its pipes.
    """

    log_bytes_limit: int = 64 << 20
    umask: int = 0o022
    mps_pipe_directory: Path | None = None
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return what supervisors go by, plain data."""
        rlimits = {name: list(limits) for name, limits in self.rlimits.items()}
        return {"log_bytes_limit": self.log_bytes_limit, "umask": self.umask, "rlimits": rlimits}

    def complete(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a supervisor is to be given: what its job asks for, and what holds for all of them."""
        umask = asked.get("umask")
        return {**asked, **self.plain(), "umask": self.umask if umask is None else umask}


def run_key(node_id: str, run: RunRecord) -> str:
    """Return the name of one run that no other run on any node has."""
    return f"{node_id}:{run.job}:{run.run}"


def is_of_run(variables: Mapping[str, str], job: int, run: int) -> bool:
    """Whether the variables of a request name this run of this job, whatever the node."""
    key = variables.get(MARK, "").split(":")
    return (variables.get(JOB), variables.get(RUN), key[1:]) == (str(job), str(run), [str(job), str(run)])


def run_group(node_id: str, run: RunRecord) -> str:
    """Return the name of a run's control group; several nodes may be on one machine."""
    return f"{node_id}.{run.job}.{run.run}"


def gpu_variables(run: RunRecord, mps: MpsShare | None) -> dict[str, str]:
    """Return the variables that show a job its GPUs; with none it sees none."""
    found = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(run.gpu_uuids),
        "LEPTON_GPUS": f"{run.gpu_milli / 1000:g}",
    }
    if mps is not None:
        found |= mps.variables(len(run.gpu_uuids))
    return found


def supervisor_request(job: JobRecord, run: RunRecord, node_id: str, mps_pipe_directory: Path | None) -> dict[str, Any]:
    """Return what a job asks of its supervisor; None as its umask where it came without one.

    The user's own variables do not override those that name GPUs and the job. Who starts the supervisor adds what holds
    for all jobs, by `RunSettings.complete`.
    """
    request = job.request
    mps = share_under_mps(request, mps_pipe_directory)
    identity = {JOB: str(job.id), RUN: str(run.run), MARK: run_key(node_id, run)}
    return {
        "argv": list(request.argv),
        "cwd": request.cwd,
        "env": {**request.env, **gpu_variables(run, mps), **identity},
        "stdout": "stdout",
        "stderr": "stderr",
        "umask": request.umask,
        "stop_grace_s": request.stop_grace_s,
        "time_limit_s": request.time_limit_s,
        "restartable": request.restartable,
        "checkpoint_signal": int(request.checkpoint_signal),
        "checkpoint_grace_s": request.checkpoint_grace_s,
    }
