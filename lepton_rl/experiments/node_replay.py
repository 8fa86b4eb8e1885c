"""What a node did beside what the simulator makes of the same jobs: the gap in waits, starts and energy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.agents import make_policy, policy_name, run_policy
from lepton_rl.core.cluster import ClusterSpec, cluster_from_description
from lepton_rl.core.metrics import Outcome
from lepton_rl.core.placement import Placement
from lepton_rl.core.units import JOULES_PER_KWH
from lepton_rl.errors import NodeError
from lepton_rl.experiments.start_delay import held_with_delay, started_after_delay
from lepton_rl.node.export import History, read_jobs
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL, NODE
from lepton_rl.workloads.job_table import fit_to_cluster

Figures = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Replay:
    """One node's history, and the simulation of it.

    Attributes:
        policy: in the simulation.
        cluster: the node.
        history: what happened.
        start_delay: seconds from decision to start that the simulation counts with.
        wait: (jobs,) simulated waits, seconds.
        finish: (jobs,) simulated ends, seconds of the trace.
        energy_j: simulated, of the jobs alone; None where the node's devices were not measured either.
    """

    policy: str
    cluster: ClusterSpec
    history: History
    start_delay: float
    wait: NDArray[np.float64]
    finish: NDArray[np.float64]
    energy_j: float | None

    @property
    def real_wait(self) -> NDArray[np.float64]:
        """Waits on the node, seconds."""
        return np.maximum(0.0, self.history.start - self.history.trace.submit_time)

    def rows(self) -> dict[str, Figures]:
        """Return each figure of the node, of the simulation, and their difference."""
        real, simulated = self.real_wait, self.wait
        jct_real = self.history.finish - self.history.trace.submit_time
        jct_simulated = self.finish - self.history.trace.submit_time
        rows = {
            "mean wait, s": _beside(real.mean(), simulated.mean()),
            "median wait, s": _beside(np.median(real), np.median(simulated)),
            "p90 wait, s": _beside(np.percentile(real, 90), np.percentile(simulated, 90)),
            "mean JCT, s": _beside(jct_real.mean(), jct_simulated.mean()),
            "makespan, s": _beside(self.history.finish.max(), self.finish.max()),
            "starts that differ by more than 1 s": {
                "node": None, "simulated": float(np.count_nonzero(np.abs(real - simulated) > 1.0)), "difference": None,
            },
        }  # fmt: skip
        begun = self.wait + self.history.trace.submit_time
        rows["most starts within 1 s"] = _beside(_most_within(self.history.start, 1.0), _most_within(begun, 1.0))
        if self.history.energy_j is not None and self.energy_j is not None:
            rows["energy of jobs, kWh"] = _beside(
                self.history.energy_j / JOULES_PER_KWH, self.energy_j / JOULES_PER_KWH
            )
        return rows


def replay(state_dir: Path, policy: str | None = None, start_delay: float | None = None, since: float = 0.0) -> Replay:
    """Simulate what a node did.

    Args:
        state_dir: of the node; its daemon may be running.
        policy: name or bundle; the one that decides there if None.
        start_delay: seconds from decision to start; the median that was measured if None.
        since: Unix seconds.

    Raises:
        NodeError: the folder holds no node.
        JournalError: nothing has run to its end yet.
    """
    about = read_about(state_dir)
    with Journal(state_dir / JOURNAL, read_only=True) as journal:
        history = read_jobs(journal, since, float(about["default_time_s"]))
    cluster = cluster_from_description(about["cluster"])
    acting = make_policy(policy if policy is not None else about["policy"])
    delay = float(np.median(history.start_delay)) if start_delay is None else start_delay
    trace = fit_to_cluster(history.trace, cluster)
    if len(trace) != len(history.trace):
        raise NodeError(f"{len(history.trace) - len(trace)} jobs do not fit {cluster}: the node was another one then")
    placement = Placement[about["placement"].upper()]
    held = run_policy(acting, held_with_delay(trace, delay), cluster, placement=placement)
    outcome = started_after_delay(held, trace, delay)
    return Replay(
        policy_name(acting), cluster, history, delay, outcome.first_start - trace.submit_time,
        outcome.finish, _energy_of_jobs(outcome),
    )  # fmt: skip


def _energy_of_jobs(outcome: Outcome) -> float | None:
    """Energy of the GPUs while jobs hold them: what a node counts as its jobs'."""
    cluster = outcome.cluster
    idle = cluster.idle_power_w * (cluster.gpus * outcome.makespan - outcome.busy_gpu_seconds)
    joules = outcome.metrics().get("energy_kwh")
    return None if joules is None else joules * JOULES_PER_KWH - idle


def read_about(state_dir: Path) -> dict[str, Any]:
    """Return what the daemon has written of itself.

    Raises:
        NodeError: the folder holds no node.
    """
    path = state_dir / NODE
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NodeError(f"{state_dir}: there is no node here; name its state with --state") from None
    except ValueError:
        raise NodeError(f"{path}: this file is damaged; start the node once, which writes it anew") from None
    return about


def _most_within(times: NDArray[np.float64], seconds: float) -> float:
    """The most of these times that lie within so many seconds of each other: a node starts jobs one after the other."""
    ordered = np.sort(times)
    return float((np.searchsorted(ordered, ordered + seconds, side="right") - np.arange(len(ordered))).max())


def _beside(real: float | np.floating[Any], simulated: float | np.floating[Any]) -> Figures:
    return {"node": float(real), "simulated": float(simulated), "difference": float(simulated - real)}
