"""Fewest joules: each job on the type of GPU that spends the least energy on it."""

from lepton_rl.agents.least_cost import NO_HOURS, LeastCostPolicy, RunningCosts, added_watts
from lepton_rl.agents.ordered import Trial
from lepton_rl.core import Snapshot


class Energy(LeastCostPolicy, frozen=True, extra="forbid"):
    """Starts each job, in order, on the free GPUs that spend the fewest joules on it.

    `joules = sum over its GPUs of (max - idle) power x predicted seconds there`: what the job adds to a cluster whose
    idle GPUs draw power anyway. Without requested times, joules of a second of service. Candidates are one type of
    GPU at a time, and for gangs all types together, placed by `best`, which is all there is where GPUs are identical.
    The greedy rule of Garg et al., J. Parallel and Distributed Computing 2011, for energy in place of carbon. One
    decision costs q x types x nodes. Good when types differ in work per joule and the cluster has room to choose:
    under full load every type is used, and it saves nothing.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "energy"

    def costs(self, snapshot: Snapshot, trial: Trial) -> RunningCosts:
        """Return watts."""
        assert trial.hw is not None
        return RunningCosts(added_watts(trial.hw), NO_HOURS)
