"""Predictions: from the past alone, from the closest jobs that there are enough of."""

import numpy as np
import pytest

from lepton_rl.agents import Predicted, run_policy
from lepton_rl.agents.compiled import BlockingName
from lepton_rl.core import ClusterSpec, schedule
from lepton_rl.core import layout as L
from lepton_rl.core.hardware.dynamics import Dynamics, Reservation
from lepton_rl.simulator import SimulatedCluster
from tests.agents.cases import plain_trace


def test_without_history_jobs_go_by_submission() -> None:
    trace = plain_trace(run_time=[50.0, 5.0, 20.0], gpus=[1.0] * 3).with_requested("exact")
    assert run_policy(Predicted(enough=9), trace, ClusterSpec.pool(1)).first_start.tolist() == [0.0, 50.0, 55.0]


def test_users_are_known_by_their_finished_jobs() -> None:
    # One GPU. User 0's first job took 100 s, user 1's 5 s; of the two that come at 200 s, user 1's goes first.
    trace = plain_trace(
        submit_time=[0.0, 1.0, 200.0, 200.0], run_time=[100.0, 5.0, 90.0, 6.0], gpus=[1.0] * 4, user=[0, 1, 0, 1]
    )
    policy = Predicted(enough=1)
    outcome = run_policy(policy, trace, ClusterSpec.pool(1))
    assert outcome.first_start.tolist() == [0.0, 100.0, 206.0, 200.0]
    # Neither an earlier run nor the run times to come are known.
    assert run_policy(policy, trace, ClusterSpec.pool(1)).first_start.tolist() == outcome.first_start.tolist()
    longer = plain_trace(
        submit_time=[0.0, 1.0, 200.0, 200.0], run_time=[100.0, 5.0, 1.0, 900.0], gpus=[1.0] * 4, user=[0, 1, 0, 1]
    )
    assert run_policy(policy, longer, ClusterSpec.pool(1)).first_start[3] == 200.0


def test_predictions_back_off_to_the_closest_level_with_enough() -> None:
    policy = Predicted(enough=2)
    trace = plain_trace(
        run_time=[10.0, 20.0, 40.0, 1.0], gpus=[1.0, 1.0, 2.0, 1.0], user=[0, 0, 0, 1], queue=[0, 0, 0, 0],
        submit_time=[0.0, 0.0, 0.0, 100.0],
    )  # fmt: skip
    cluster = SimulatedCluster(trace, ClusterSpec.pool(4))
    schedule(policy, cluster)
    asked = np.zeros((4, L.JOB_COLUMNS))
    asked[:, L.GPUS] = [1000, 2000, 1000, 8000]
    asked[:, L.USER] = [0, 0, 5, 5]
    asked[:, L.QUEUE] = [0, 0, 0, 7]
    # User, queue and size: median of 10 and 20. The user alone: of 10, 20, 40. Queue and size: of 10, 20, 1. All jobs:
    # of 1, 10, 20, 40.
    assert policy.predictions(asked).tolist() == [15.0, 20.0, 10.0, 15.0]


@pytest.mark.parametrize("blocking", ["head", "skip", "easy", "conservative"])
@pytest.mark.parametrize("requested", ["given", "absent"])
def test_reservations_are_kept_by_requested_times(blocking: BlockingName, requested: str) -> None:
    # Two nodes of one GPU; node 0 is reserved from 100 to 200. Without a past an hour is predicted: jobs 0 and 1
    # take node 1 in turn. Job 2 is predicted to take 10 s as job 0 did, but asks for 500: node 0 takes it at 200 only.
    trace = plain_trace(
        submit_time=[0.0, 0.0, 20.0], run_time=[10.0, 300.0, 10.0], gpus=[1.0] * 3, requested_time=[10.0, 300.0, 500.0],
        user=[0, 1, 0],
    ).with_requested(requested)  # fmt: skip
    spec = ClusterSpec(nodes=2, gpus_per_node=1).with_dynamics(Dynamics(reservations=(Reservation(100, 200, (0,)),)))
    outcome = run_policy(Predicted(enough=1, blocking=blocking), trace, spec)
    assert outcome.first_start.tolist() == [0.0, 10.0, 200.0]
