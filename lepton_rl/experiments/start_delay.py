"""The delay from a decision to the start of its job, as a node has it: the GPUs are held from the decision on."""

from dataclasses import replace

from lepton_rl.core import Outcome
from lepton_rl.errors import ConfigError
from lepton_rl.workloads import Trace

MOST_DELAY_S = 31_536_000.0
"""A year: a start that takes longer is a slip of the pen."""


def held_with_delay(trace: Trace, delay: float) -> Trace:
    """Return the jobs as long as they hold their GPUs: each for `delay` seconds more than it runs.

    Raises:
        ConfigError: the delay is negative, no number, or longer than a year.
    """
    if not 0.0 <= delay <= MOST_DELAY_S:
        raise ConfigError(f"--start-delay: a start takes from 0 to {MOST_DELAY_S:,.0f} s, not {delay:g}")
    return replace(trace, run_time=trace.run_time + delay) if delay else trace


def started_after_delay(outcome: Outcome, trace: Trace, delay: float) -> Outcome:
    """Return a simulation of such jobs as their users see it: they start later, and run for as long as the trace says.

    Args:
        outcome: of `held_with_delay(trace, delay)`.
        trace: the jobs.
        delay: seconds.
    """
    return replace(outcome, run=trace.run_time, first_start=outcome.first_start + delay) if delay else outcome
