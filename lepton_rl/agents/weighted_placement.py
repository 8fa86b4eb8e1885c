"""Placement by weights: load, availability and energy of the nodes in one score."""

from pydantic import Field

from lepton_rl.agents.node_scores import NodeScore, ScoredPlacement, ScoreTables, tables_for
from lepton_rl.core import Snapshot
from lepton_rl.errors import ConfigError


class WeightedPlacement(ScoredPlacement, frozen=True, extra="forbid"):
    """Starts each job, in order, on the node with the lowest weighted sum of load, lack of availability and energy.

    `score = w1 load + w2 (1 - availability) + w3 energy`, each between 0 and 1: the part of the node's GPUs that is
    held once the job is there; the part of the gang's GPUs still to be found that the node offers (1 for a share);
    the joules of the job's service on the node's type of GPU over those of the thirstiest type (0 where GPUs are
    identical). The three aims are those of dynamic allocation in the texts that the project started from. Ties go to
    the tighter GPU or node. One decision costs q x nodes x types, shares q x GPUs x types. Good as a dial: load alone
    spreads, energy alone picks efficient types, availability keeps gangs together.
    """

    load: float = Field(default=1.0, ge=0, le=1e6, description="weight of the node's load with the job")
    availability: float = Field(default=1.0, ge=0, le=1e6, description="weight of what the node lacks of the gang")
    energy: float = Field(default=1.0, ge=0, le=1e6, description="weight of the joules on the node's type of GPU")

    def model_post_init(self, context: object) -> None:
        """Refuse weights that say nothing, once, where the settings are given."""
        if self.load == self.availability == self.energy == 0.0:
            raise ConfigError("weighted_placement: load, availability and energy are all 0; one must be above")

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "weighted_placement"

    @property
    def node_score(self) -> NodeScore:
        """The weighted sum."""
        return NodeScore.WEIGHTED

    def tables(self, snapshot: Snapshot) -> ScoreTables:
        """Return the weights."""
        return tables_for(snapshot.cluster, (self.load, self.availability, self.energy))
