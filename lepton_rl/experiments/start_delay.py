"""The delay from a decision to the start of its job, as a node has it: the GPUs are held from the decision on."""

from dataclasses import replace

from lepton_rl.core import Outcome
from lepton_rl.workloads import Trace


def held_with_delay(trace: Trace, delay: float) -> Trace:
    """Return the jobs as long as they hold their GPUs: each for `delay` seconds more than it runs."""
    return replace(trace, run_time=trace.run_time + delay) if delay else trace


def started_after_delay(outcome: Outcome, trace: Trace, delay: float) -> Outcome:
    """Return a simulation of such jobs as their users see it: they start later, and run for as long as the trace says.

    Args:
        outcome: of `held_with_delay(trace, delay)`.
        trace: the jobs.
        delay: seconds.
    """
    return replace(outcome, run=trace.run_time, first_start=outcome.first_start + delay) if delay else outcome
