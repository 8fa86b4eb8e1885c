"""Attained service: the two queues of Tiresias by hand, and the Gittins index by its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.agents import DiscretisedLas, Gittins, gittins_index, run_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.simulator import Timing
from tests.agents.cases import plain_trace


def test_a_new_job_goes_before_one_that_has_had_its_share() -> None:
    # One GPU, threshold 50 s. Job 0 has had 60 s when job 1 comes: it waits until job 1 has ended.
    trace = plain_trace(submit_time=[0.0, 60.0], run_time=[100.0, 30.0], gpus=[1.0, 1.0])
    outcome = run_policy(DiscretisedLas(threshold=50.0), trace, ClusterSpec.pool(1))
    assert outcome.finish.tolist() == [130.0, 90.0]
    assert outcome.preemptions.tolist() == [1, 0]
    # With a threshold that it has not reached, it goes on: within a queue jobs go by submission.
    outcome = run_policy(DiscretisedLas(threshold=61.0), trace, ClusterSpec.pool(1))
    assert outcome.finish.tolist() == [100.0, 130.0]


def test_service_counts_gpus_times_time() -> None:
    # After 30 s the gang of 2 has had 60 GPU-seconds, and is in the second queue.
    trace = plain_trace(submit_time=[0.0, 30.0], run_time=[100.0, 10.0], gpus=[2.0, 2.0])
    outcome = run_policy(DiscretisedLas(threshold=60.0), trace, ClusterSpec.pool(2))
    assert outcome.finish.tolist() == [110.0, 40.0]


def test_jobs_of_one_queue_do_not_preempt_each_other() -> None:
    # One GPU, a decision every 10 s, threshold 20 s: job 0 runs 20 s, job 1 runs 20 s, then 0 to its end, then 1.
    trace = plain_trace(run_time=[50.0, 40.0], gpus=[1.0, 1.0])
    outcome = run_policy(DiscretisedLas(threshold=20.0), trace, ClusterSpec.pool(1), Timing(timer=10.0))
    assert outcome.finish.tolist() == [70.0, 90.0]
    assert outcome.preemptions.tolist() == [1, 1]


def by_definition(service: list[float], attained: float) -> float:
    """The largest rate over every quantum that ends with a service of the history."""
    left = [s - attained for s in service if s > attained]
    rates = [sum(s <= d for s in left) / sum(min(s, d) for s in left) for d in left]
    return max(rates, default=0.0)


@given(st.lists(st.integers(1, 50).map(float), max_size=8), st.lists(st.integers(0, 60).map(float), max_size=5))
def test_gittins_index_is_its_definition(service: list[float], attained: list[float]) -> None:
    found = gittins_index(np.sort(np.array(service)), np.array(attained))
    assert found.tolist() == pytest.approx([by_definition(service, level) for level in attained])


def test_gittins_prefers_jobs_that_are_about_to_end() -> None:
    # Half of the history ends at 10 s, half at 1000 s. New: half in 10 s; after 5 s: half in 5 s; after 20 s: 1 in 980.
    fresh, nearly, long = gittins_index(np.array([10.0, 1000.0]), np.array([0.0, 5.0, 20.0])).tolist()
    assert fresh == pytest.approx(1 / 20)
    assert nearly == pytest.approx(1 / 10)
    assert long == pytest.approx(1 / 980)


def test_gittins_learns_from_the_jobs_that_have_finished() -> None:
    # One GPU. Job 0 ends at 10 s; jobs 1 and 2 are alike then, and the first goes on to its end at 20 s: history
    # 10, 10. Job 3 has run 15 s, beyond all history, when job 4 comes: that may end in 10 s, and goes first.
    trace = plain_trace(
        submit_time=[0.0, 0.0, 100.0, 115.0], run_time=[10.0, 10.0, 100.0, 10.0], gpus=[1.0, 1.0, 1.0, 1.0]
    )
    policy = Gittins()
    outcome = run_policy(policy, trace, ClusterSpec.pool(1))
    assert outcome.finish.tolist() == [10.0, 20.0, 210.0, 125.0]
    # The same policy on another run begins anew.
    assert run_policy(policy, trace, ClusterSpec.pool(1)).finish.tolist() == outcome.finish.tolist()
