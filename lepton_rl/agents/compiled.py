"""Policies that are a compiled rule, and the names by which settings speak of its parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field

from lepton_rl.core import Action, Placement, Policy, Snapshot
from lepton_rl.simulator import Blocking, Order, Rule, decide

BlockingName = Literal["head", "skip", "easy", "conservative"]
PlacementName = Literal["first", "best", "worst", "consolidated"]


@runtime_checkable
class CompiledPolicy(Protocol):
    """A policy whose decisions are one `Rule`, so that whole traces run without Python between the events."""

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return the actions to apply now, in order."""

    def rule(self, placement: Placement) -> Rule:
        """Return the rule; `placement` is the cluster's, used where the policy names none."""


def policy_name(policy: Policy) -> str:
    """Return what tables and errors call a policy: its `name`, else its class."""
    name = getattr(policy, "name", None)
    return name if isinstance(name, str) else type(policy).__name__


@cache
def _rule(
    order: Order, blocking: BlockingName, placement: Placement, weights: tuple[float, ...]
) -> Rule:  # a decision takes tens of microseconds: a rule is made once
    return Rule(order, Blocking[blocking.upper()], placement, weights)


def placement_of(name: PlacementName | None, otherwise: Placement) -> Placement:
    """Return the placement that a setting names, or the cluster's where it names none."""
    return otherwise if name is None else Placement[name.upper()]


@dataclass(frozen=True, slots=True)
class RuleNames:
    """The rules in force, by name; None where the policy decides without one."""

    blocking: str | None
    placement: str | None


def rule_names(policy: Policy, placement: Placement = Placement.FIRST) -> RuleNames:
    """Return what blocking and placement a policy runs under; `placement` is the cluster's."""
    if isinstance(policy, CompiledPolicy):
        rule = policy.rule(placement)
        return RuleNames(rule.blocking.name.lower(), rule.placement.name.lower())
    blocking, own = getattr(policy, "blocking", None), getattr(policy, "placement", None)
    if isinstance(blocking, str) and getattr(policy, "chooses_gpus", False):
        return RuleNames(blocking, None)
    if isinstance(blocking, str):  # scores in Python, with the rules of a compiled pass
        return RuleNames(blocking, own if isinstance(own, str) else placement.name.lower())
    return RuleNames(None, own if isinstance(own, str) else None)


class RulePolicy(BaseModel, frozen=True, extra="forbid"):
    """Base of the policies that are order + blocking + placement; a subclass names order and weights."""

    blocking: BlockingName = Field(default="head", description="what happens behind a job that does not fit")
    placement: PlacementName | None = Field(
        default=None, description="which GPUs a job gets; none: as the cluster is set"
    )

    def model_post_init(self, context: object) -> None:
        """Refuse what cannot be combined, once, where the settings are given."""
        self.rule(Placement.FIRST)

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return self.order.name.lower()

    @property
    def order(self) -> Order:
        """Score formula of the queue."""
        raise NotImplementedError

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the order, as `simulator.scores` numbers them."""
        return ()

    @property
    def needs_requested_times(self) -> bool:
        """Whether the policy means nothing without requested times."""
        return self.rule(Placement.FIRST).needs_requested_times

    def rule(self, placement: Placement) -> Rule:
        """Return the compiled rule; `placement` is the cluster's, used where the policy names none.

        Raises:
            ConfigError: a preemptive order cannot backfill.
        """
        return _rule(self.order, self.blocking, placement_of(self.placement, placement), self.weights)

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return what one pass of the rule does now: preemptions, then starts with their GPUs."""
        return decide(snapshot, self.rule(snapshot.placement))
