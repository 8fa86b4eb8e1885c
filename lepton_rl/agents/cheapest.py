"""Least rent: each job on the node group where the rent of its GPUs, for as long as it takes there, is least."""

from dataclasses import replace

import numpy as np

from lepton_rl.agents.least_cost import NO_HOURS, LeastCostPolicy, RunningCosts
from lepton_rl.agents.ordered import Trial
from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints64
from lepton_rl.core.cluster import MAX_TYPES, ClusterSpec
from lepton_rl.core.units import SECONDS_PER_HOUR
from lepton_rl.errors import ConfigError


class Cheapest(LeastCostPolicy, frozen=True, extra="forbid"):
    """Starts each job, in order, on the free GPUs that cost the least rent until it is done.

    `rent = sum over its GPUs of USD per hour x predicted hours there`, a share paying its part. Without requested
    times, of a second of service. Groups of one type with different rents are told apart; those whose rent is not
    known come last, in the order of the file. Candidates are one type and rent at a time, and for gangs all together,
    placed by `best`, which is all there is where GPUs are identical. The cost optimisation of Buyya et al., Software:
    Practice and Experience 2005, without deadlines. One decision costs q x types x nodes. Good when GPUs are paid for
    by use; a slow cheap GPU may win, and jobs take longer then.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "cheapest"

    def priced(self, snapshot: Snapshot, trial: Trial) -> Trial:
        """Return the trial with a type of its own for each pair of GPU type and rent.

        Raises:
            ConfigError: there are more than MAX_TYPES such pairs.
        """
        count = len(rent_pairs(snapshot.cluster))
        if count > MAX_TYPES:
            raise ConfigError(
                f"cheapest counts with at most {MAX_TYPES} pairs of GPU type and rent, the cluster has {count}"
            )
        return split_by_rent(snapshot.cluster, trial)

    def costs(self, snapshot: Snapshot, trial: Trial) -> RunningCosts:
        """Return USD per second."""
        rents = np.array([rent for _, rent in rent_pairs(snapshot.cluster)])
        return RunningCosts(rents / SECONDS_PER_HOUR, NO_HOURS)


def rent_pairs(cluster: ClusterSpec) -> list[tuple[int, float]]:
    """Return the pairs of GPU type and rent, USD per hour, infinity where it is not known, each once."""
    return list(dict.fromkeys(_pairs(cluster)))


def split_by_rent(cluster: ClusterSpec, trial: Trial) -> Trial:
    """Return a trial of a cluster whose nodes differ with a type of its own for each of at most MAX_TYPES pairs."""
    assert trial.hw is not None
    pairs = _pairs(cluster)
    known = rent_pairs(cluster)
    type_of = np.array([kind for kind, _ in known])
    trial.nodes[:, L.TYPE] = np.repeat([known.index(pair) for pair in pairs], [group.nodes for group in cluster.groups])
    trial.jobs[:, L.TYPES] = _renamed(trial.jobs[:, L.TYPES].astype(np.int64), type_of)
    by_type = ("speed", "power_mw", "curve", "levels_mw", *(("heat",) if len(trial.hw.heat) else ()))
    hw = trial.hw._replace(**{name: getattr(trial.hw, name)[type_of] for name in by_type})
    return replace(trial, hw=hw)


def _pairs(cluster: ClusterSpec) -> list[tuple[int, float]]:
    """Return type and rent of each group; infinity where the rent is not known."""
    names = [kind.name for kind in cluster.types]
    return [
        (names.index(group.limited_gpu.name), np.inf if group.rent is None else group.rent) for group in cluster.groups
    ]


def _renamed(types: Ints64, type_of: Ints64) -> Floats:
    """Return which pairs will do where `types` says which types will do, both as bits."""
    bits = np.left_shift(np.int64(1), np.arange(len(type_of)))
    allowed = np.right_shift(types[:, None], type_of) & 1
    pairs: Floats = (allowed * bits).sum(axis=1).astype(np.float64)
    return pairs
