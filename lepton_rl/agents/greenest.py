"""Least carbon: each job on the type of GPU whose run, from now on, emits least."""

from pydantic import PrivateAttr

from lepton_rl.agents.least_cost import LeastCostPolicy, RunningCosts, added_watts
from lepton_rl.agents.ordered import Trial
from lepton_rl.core import Snapshot


class Greenest(LeastCostPolicy, frozen=True, extra="forbid"):
    """Starts each job, in order, on the free GPUs whose run from now on causes the least carbon; defers none.

    The run's energy, as in `energy`, times the carbon intensity of the hours in which it is spent. The cluster's
    series is read as a forecast that comes true: a fast GPU that is done before a dirty hour may beat one that needs
    fewer joules. (Greedy minimum carbon emission of Garg et al., J. Parallel and Distributed Computing 2011, with the
    hours in place of sites.) Where the cluster has no carbon series, or the job no requested time, it decides as
    `energy` does. One decision costs q x types x nodes. Good when types differ and intensity changes within a run;
    for short runs it is `energy`, and what deferral could save is left alone.
    """

    _lacked_series: list[bool] = PrivateAttr(default_factory=list)  # at the last decision, if any

    @property
    def report(self) -> str:
        """What it did in place of what its name says, as one sentence; nothing where it did what that says."""
        if not any(self._lacked_series):
            return ""
        return "greenest: the cluster has no carbon series (carbon in its file): it decided as energy does"

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "greenest"

    def costs(self, snapshot: Snapshot, trial: Trial) -> RunningCosts:
        """Return watts, and the integral of the carbon intensity."""
        assert trial.hw is not None
        self._lacked_series[:] = [len(trial.hw.carbon) == 0]
        return RunningCosts(added_watts(trial.hw), trial.hw.carbon)
