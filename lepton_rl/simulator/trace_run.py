"""A whole trace under a compiled rule: no Python between the first event and the last."""

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.metrics import Outcome
from lepton_rl.errors import TraceError
from lepton_rl.simulator.events import run_to_end
from lepton_rl.simulator.rules import Rule, Timing
from lepton_rl.simulator.state import State, build_state, outcome_of
from lepton_rl.workloads import Trace


def run_trace(trace: Trace, cluster: ClusterSpec, rule: Rule, timing: Timing | None = None) -> Outcome:
    """Run `trace` on `cluster` under `rule` and return when each job started and finished.

    Raises:
        TraceError: a job can never run on this cluster.
        ConfigError: the rule needs requested times and the trace has none.
    """
    check_times(trace, rule)
    state = build_state(trace, cluster, rule, timing or Timing())
    run_state(state)
    return outcome_of(trace, state)


def check_times(trace: Trace, rule: Rule) -> None:
    """Refuse a rule that reads requested times on a trace without them."""
    if rule.needs_requested_times and trace.requested == "absent":
        blocking = f" with {rule.blocking.name.lower()} blocking" if rule.predicts else ""
        raise TraceError(
            f"{rule.order.name.lower()}{blocking} needs requested times and {trace.name} has none; "
            "use --requested exact or noisy:SIGMA, or an order such as fcfs, smallest, las"
        )


def run_state(state: State) -> None:
    """Run a state to its last event, in place."""
    left = run_to_end(
        state.jobs, state.truth, state.queue, state.run_end, state.run_job, state.gpus[0], state.nodes[0],
        state.bits[0], state.totals[0], state.hw, state.gpus[1], state.nodes[1], state.bits[1], state.totals[1],
        state.started, state.preempted, state.clock, state.counts, state.rules, state.settings,
    )  # fmt: skip
    assert left == 0, f"{left} jobs never started"
