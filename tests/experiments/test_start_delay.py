"""A start that takes time, worked out by hand: 1 GPU, 3 jobs of 10 s that come together, 2 s to each start."""

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.simulate import simulate
from lepton_rl.workloads import Trace

CLUSTER = ClusterSpec(1, 1)


def jobs() -> Trace:
    """Three jobs at 0 s."""
    columns = {"submit_time": np.zeros(3), "run_time": np.full(3, 10.0), "gpus": np.ones(3)}
    return Trace.from_columns({**columns, "requested_time": np.full(3, 20.0)}, requested="given")


@pytest.mark.parametrize("recorded", [False, True])
def test_each_job_starts_later_and_holds_its_gpu_meanwhile(recorded: bool) -> None:
    found = simulate(jobs(), CLUSTER, make_policy("fcfs"), start_delay=2.0, recorded=recorded)
    assert found.outcome.first_start.tolist() == [2.0, 14.0, 26.0]
    assert found.outcome.finish.tolist() == [12.0, 24.0, 36.0]
    assert found.outcome.wait.tolist() == [2.0, 14.0, 26.0]
    assert found.outcome.bounded_slowdown() == pytest.approx([1.2, 2.4, 3.6])
    assert found.outcome.utilization == 1.0
    if found.recording is not None:
        assert found.recording.begin.tolist() == [0.0, 12.0, 24.0]
        assert found.recording.outcome.wait.tolist() == [2.0, 14.0, 26.0]


def test_without_a_delay_nothing_is_different() -> None:
    plain = simulate(jobs(), CLUSTER, make_policy("fcfs"))
    none = simulate(jobs(), CLUSTER, make_policy("fcfs"), start_delay=0.0)
    assert plain.outcome.first_start.tolist() == none.outcome.first_start.tolist() == [0.0, 10.0, 20.0]
    assert plain.summary() == none.summary()


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_delay_that_cannot_be_is_refused(delay: float) -> None:
    with pytest.raises(ConfigError, match=r"--start-delay: a start takes from 0 to 31,536,000 s, not"):
        simulate(jobs(), CLUSTER, make_policy("fcfs"), start_delay=delay)
