"""What the ideas read: the present set-up, what its simulation showed, and what may be assumed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lepton_rl.agents import CompiledPolicy, Priority, policy_name, rule_names
from lepton_rl.core import Outcome, Policy
from lepton_rl.core.arrays import Floats
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.setup import Setup
from lepton_rl.workloads import Trace
from lepton_rl.workloads.requested import CLAIRVOYANT

MOST_JOBS_IN_PYTHON = 2_000
"""Policies that decide in Python are some hundred times slower than compiled rules."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that was not tried, and why."""

    what: str
    why: str


Idea = Iterator[Candidate | LeftOut]
"""What an idea makes of a study: changes to simulate, and what it leaves out."""


@dataclass(frozen=True, eq=False)
class Study:
    """A workload as it is run now.

    Attributes:
        setup: the present one.
        outcomes: of its windows.
        load: offered load of its jobs on the present cluster.
        may_preempt: whether jobs may be stopped for others.
        defer_hours: how long jobs that can wait may be held back.
    """

    setup: Setup
    outcomes: tuple[Outcome, ...]
    load: float
    may_preempt: bool
    defer_hours: int

    @property
    def policy(self) -> Policy:
        """The present policy, made anew."""
        return self.setup.make_policy()

    @property
    def present(self) -> str:
        """The present policy in words."""
        return policy_words(self.policy)

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The jobs of each window."""
        return self.setup.windows

    @property
    def jobs(self) -> int:
        """Jobs of all windows."""
        return sum(map(len, self.traces))

    @property
    def knows_times(self) -> bool:
        """Whether users gave requested times, or the command line said that they are to be assumed."""
        first = self.traces[0]
        return first.requested != "absent" and CLAIRVOYANT not in first.notes

    @property
    def has_time(self) -> bool:
        """Whether policies that decide in Python can be tried too."""
        return self.jobs <= MOST_JOBS_IN_PYTHON

    def column(self, name: str) -> Floats:
        """Return a column of all windows, one after the other, shape (jobs,)."""
        return np.concatenate([getattr(trace, name) for trace in self.traces])

    @property
    def gpu_seconds(self) -> Floats:
        """Of each job, shape (jobs,)."""
        return self.column("gpus") * self.column("run_time")

    @property
    def gpu_seconds_waited(self) -> Floats:
        """Wait times GPUs of each job, shape (jobs,)."""
        return np.concatenate([outcome.wait * outcome.gpus for outcome in self.outcomes])


def policy_words(policy: Policy) -> str:
    """Return a policy with its rules: "sjf, blocking easy, placement best"."""
    rules = rule_names(policy)
    words = [
        f"{rule} {value}" for rule, value in (("blocking", rules.blocking), ("placement", rules.placement)) if value
    ]
    return ", ".join((policy_name(policy), *words))


def is_compiled(policy: Policy) -> bool:
    """Return whether whole windows run without Python between the events."""
    return isinstance(policy, CompiledPolicy)


def order_name(policy: Policy) -> str | None:
    """Return the score by which a policy orders the queue, where it has one with a name."""
    return policy.score if isinstance(policy, Priority) else None
