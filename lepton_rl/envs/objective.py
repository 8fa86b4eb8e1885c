"""What a learner is paid: minus the objective, as an exact integral over time."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.arrays import Floats
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.metrics import Outcome
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR
from lepton_rl.core.units import JOULES_PER_KWH, SECONDS_PER_HOUR
from lepton_rl.envs.batch_kernel import PRICE_COLUMNS, REFUND, RUNNING, SUBMISSION, WAITING
from lepton_rl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Objective:
    """A cost per job: `slowdown x mean bounded slowdown + wait_hours x mean wait (h) + jct_hours x mean JCT (h) +
    energy_kwh x energy of the cluster (kWh) per job`.

    The return of an episode is minus this cost. A slowdown alone is won by parking big jobs: mix in `wait_hours`.
    """

    slowdown: float = 1.0
    wait_hours: float = 2.5
    jct_hours: float = 0.0
    energy_kwh: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.slowdown, self.wait_hours, self.jct_hours, self.energy_kwh)
        if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or sum(weights) == 0:
            raise ConfigError(f"an objective needs weights of 0 or more and one above 0, not {weights}")

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the weights that are above 0."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) > 0)

    def preferring(self, parts: Sequence[float] | NDArray[Any]) -> Self:
        """Return the objective with each of its `components` weighted by its part of 1, times their number.

        Equal parts leave it as it is.
        """
        names = self.components
        weights = (getattr(self, name) * float(part) * len(names) for name, part in zip(names, parts, strict=True))
        return replace(self, **dict(zip(names, weights, strict=True)))

    def cost(self, outcome: Outcome, first: int = 0) -> float:
        """Return the objective of a finished run; jobs before the index `first` are not counted."""
        wait = outcome.wait[first:]
        return float(
            self.slowdown * outcome.bounded_slowdown()[first:].mean()
            + self.wait_hours * wait.mean() / SECONDS_PER_HOUR
            + self.jct_hours * outcome.jct[first:].mean() / SECONDS_PER_HOUR
            + self.energy_kwh * outcome.energy_joules / JOULES_PER_KWH / len(wait)
        )

    def prices(self, run: Floats, counted: int) -> Floats:
        """Return each job's part of the cost, shape (jobs, PRICE_COLUMNS), for a mean over `counted` jobs."""
        prices = np.zeros((len(run), PRICE_COLUMNS))
        floor = np.maximum(run, SLOWDOWN_FLOOR)
        prices[:, WAITING] = self.slowdown / floor + (self.wait_hours + self.jct_hours) / SECONDS_PER_HOUR
        prices[:, RUNNING] = self.jct_hours / SECONDS_PER_HOUR
        prices[:, SUBMISSION] = self.slowdown + self.jct_hours * run / SECONDS_PER_HOUR
        # Below the floor a job's slowdown stays 1 until wait + run reaches it: that waiting is refunded.
        prices[:, REFUND] = np.where(run < SLOWDOWN_FLOOR, self.slowdown / SLOWDOWN_FLOOR, 0.0)
        return prices / counted

    def energy_rates(self, cluster: ClusterSpec, counted: int) -> tuple[float, float]:
        """Return the cost of a second of the idle cluster, and of a second of one held milli-GPU.

        Where nodes differ, nothing and the cost of a joule: there the cluster's draw is metered.
        """
        per_joule = self.energy_kwh / JOULES_PER_KWH / counted
        if cluster.groups:
            return 0.0, per_joule
        span = cluster.max_power_w - cluster.idle_power_w
        return per_joule * cluster.idle_power_w * cluster.gpus, per_joule * span / 1000.0
