"""NVIDIA's Multi-Process Service for shares of a GPU: used where an operator runs it, never started here.

Under MPS the processes of several jobs run on a GPU at a time, each with a part of its threads and a bound on its
memory, by variables of its environment (NVIDIA, Multi-Process Service, "Environment Variables").
"""

from dataclasses import dataclass
from pathlib import Path

from lepton_rl.node.jobs import JobRequest

CONTROL = "nvidia-cuda-mps"
"""What the kernel calls the control daemon, `nvidia-cuda-mps-control`: it keeps 15 letters."""


@dataclass(frozen=True, slots=True)
class MpsShare:
    """What a share of a GPU may use under MPS.

    Attributes:
        pipe_directory: of the control daemon.
        thread_percentage: of the GPU's threads.
        memory_mib: of the GPU's memory; None for no bound.
    """

    pipe_directory: Path
    thread_percentage: float
    memory_mib: int | None = None

    def variables(self, gpus: int) -> dict[str, str]:
        """Return the environment of a job that has this much of each of its GPUs."""
        found = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe_directory),
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{self.thread_percentage:g}",
        }
        if self.memory_mib is not None:
            found["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = ",".join(f"{gpu}={self.memory_mib}M" for gpu in range(gpus))
        return found


def mps_runs(pipe_directory: Path | None) -> bool:
    """Return whether a control daemon lives and has its pipes in this folder."""
    if pipe_directory is None or not (pipe_directory / "control").exists():
        return False
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if (process / "comm").read_text().startswith(CONTROL):
                    return True
            except OSError:  # it has ended meanwhile
                continue
    return False


def share_under_mps(request: JobRequest, pipe_directory: Path | None) -> MpsShare | None:
    """Return what MPS is to allow a job; None for one with whole GPUs, or where MPS does not run."""
    if pipe_directory is None or request.gpu_milli >= 1000 or not mps_runs(pipe_directory):
        return None
    return MpsShare(pipe_directory, request.gpu_milli / 10, request.gpu_memory_mib or None)
