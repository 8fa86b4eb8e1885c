"""What stopping a running job costs, as experiment files say it."""

from pydantic import Field

from lepton_rl.experiments.loader import Section
from lepton_rl.simulator import Timing
from lepton_rl.simulator.rules import MOST_PREEMPTION_COST


class TimingSection(Section):
    """An experiment in which running jobs may be preempted and moved."""

    preemption_cost: float = Field(
        default=0.0, ge=0, le=MOST_PREEMPTION_COST, description="seconds that a preemption adds"
    )
    migration_cost: float = Field(
        default=0.0, ge=0, le=MOST_PREEMPTION_COST, description="seconds that a migration adds"
    )
    quantum: float = Field(default=0.0, ge=0, description="seconds before a run may be preempted or migrated")

    @property
    def timing(self) -> Timing:
        """What preemptions and migrations cost."""
        return Timing(self.preemption_cost, self.quantum, migration_cost=self.migration_cost)
