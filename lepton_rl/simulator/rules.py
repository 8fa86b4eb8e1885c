"""A scheduling rule that runs compiled: order + blocking + placement, and what preemption costs."""

from dataclasses import dataclass

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints64
from lepton_rl.core.placement import Placement
from lepton_rl.errors import ConfigError
from lepton_rl.simulator.blocking import Blocking
from lepton_rl.simulator.scores import DYNAMIC_ORDERS, PREEMPTIVE_ORDERS, TIMELESS_ORDERS, Order

MOST_PREEMPTION_COST = 1e9
"""Seconds, about 30 years: sums over a run stay far from where adding a second changes nothing."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a cluster decides and what a preemption or a migration costs, in seconds; 0 switches each off."""

    preemption_cost: float = 0.0
    quantum: float = 0.0
    timer: float = 0.0
    migration_cost: float = 0.0

    def __post_init__(self) -> None:
        for name in ("preemption_cost", "quantum", "timer", "migration_cost"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.integer | np.floating):
                raise ConfigError(f"{name} must be a number of seconds, not {value!r}")
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be 0 or more seconds, not {value}")
        for name in ("preemption_cost", "migration_cost"):
            if getattr(self, name) > MOST_PREEMPTION_COST:
                raise ConfigError(f"{name} must be {MOST_PREEMPTION_COST:g} s or less, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Rule:
    """Order + blocking + placement. `weights` (at most 8) are the order's own, see `scores`."""

    order: Order = Order.FCFS
    blocking: Blocking = Blocking.HEAD
    placement: Placement = Placement.FIRST
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.preemptive and self.blocking not in (Blocking.HEAD, Blocking.SKIP):
            raise ConfigError(
                f"{self.order.name.lower()} is preemptive and cannot be combined with {self.blocking.name.lower()} "
                "backfilling; use head or skip"
            )

    @property
    def preemptive(self) -> bool:
        """Whether running jobs are ordered too."""
        return self.order in PREEMPTIVE_ORDERS

    @property
    def predicts(self) -> bool:
        """Whether the rule backfills and so needs predicted ends."""
        return self.blocking in (Blocking.EASY, Blocking.CONSERVATIVE)

    @property
    def needs_requested_times(self) -> bool:
        """Whether the rule means nothing without requested times."""
        reserves = len(self.weights) > 4 and self.weights[4] > 0
        return self.predicts or reserves or self.order not in TIMELESS_ORDERS

    def arrays(self, whole_gpus: bool, timing: Timing) -> tuple[Ints64, Floats]:
        """Return (rules, settings) for the compiled functions."""
        rules = np.zeros(L.RULE_COLUMNS, np.int64)
        rules[L.ORDER] = self.order
        rules[L.BLOCKING] = self.blocking
        rules[L.PLACEMENT] = self.placement
        rules[L.DYNAMIC] = self.order in DYNAMIC_ORDERS
        rules[L.PREEMPTIVE] = self.preemptive
        rules[L.COUNTED] = whole_gpus and self.placement != Placement.CONSOLIDATED
        rules[L.PREDICTS] = self.predicts
        settings = np.zeros(L.SETTING_COLUMNS)
        settings[L.WEIGHTS : L.WEIGHTS + len(self.weights)] = self.weights
        settings[L.PREEMPTION_COST] = timing.preemption_cost
        settings[L.QUANTUM] = timing.quantum
        settings[L.TIMER_INTERVAL] = timing.timer
        return rules, settings
