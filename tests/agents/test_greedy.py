"""Greedy packing, worked out by hand."""

import numpy as np

from lepton_rl.agents import Greedy, run_policy
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.simulator import SimulatedCluster
from tests.agents.cases import plain_trace


def first_decision(cluster: ClusterSpec, policy: Greedy | None = None, **columns: object) -> list[object]:
    simulated = SimulatedCluster(plain_trace(**columns), cluster)
    assert simulated.advance()
    return list((policy or Greedy()).decide(simulated.snapshot()))


def test_best_fit_then_least_energy() -> None:
    # Two nodes of 4. Left over at first: job 0 (3 GPUs) 1, job 1 (4) 0, jobs 2 and 3 (1 each) 3: job 1 fills
    # node 0. Then job 0 leaves 1 on node 1, the others 3: job 0. Both small jobs now leave 0; job 3 runs 50 s
    # and draws half the energy of job 2.
    actions = first_decision(
        ClusterSpec(nodes=2, gpus_per_node=4),
        run_time=[100.0, 100.0, 100.0, 50.0],
        gpus=[3.0, 4.0, 1.0, 1.0],
    )
    assert actions == [Start(1, (0, 1, 2, 3)), Start(0, (4, 5, 6)), Start(3, (7,))]


def test_finish_times() -> None:
    # As above; job 2 follows job 3 on the eighth GPU.
    trace = plain_trace(run_time=[100.0, 100.0, 100.0, 50.0], gpus=[3.0, 4.0, 1.0, 1.0])
    outcome = run_policy(Greedy(), trace, ClusterSpec(nodes=2, gpus_per_node=4))
    assert outcome.finish.tolist() == [100.0, 100.0, 150.0, 50.0]


def test_ties_go_to_the_earlier_submission() -> None:
    actions = first_decision(ClusterSpec.pool(2), run_time=[10.0, 10.0, 10.0], gpus=[1.0, 1.0, 1.0])
    assert actions == [Start(0, (0,)), Start(1, (1,))]


def test_memory_is_the_dominant_resource_of_a_share() -> None:
    # One GPU of 80 GiB. Job 0 asks for half of it and leaves 0.5. Job 1 asks for 0.2 of the compute, but for
    # 64 GiB: it leaves 0.2 of the memory, and so fits better. Then 16 GiB are free and job 0 needs 40.
    actions = first_decision(ClusterSpec.pool(1), run_time=[10.0, 10.0], gpus=[0.5, 0.2], gpu_memory_gib=[np.nan, 64.0])
    assert actions == [Start(1, (0,))]


def test_a_share_fills_a_gpu_that_is_in_use() -> None:
    # Two GPUs. At first every 0.5 leaves 0.5 and the gang of 1 leaves 1: shares 0 and 1 fill GPU 0, then the
    # gang takes GPU 1.
    actions = first_decision(ClusterSpec.pool(2), run_time=[10.0, 10.0, 10.0], gpus=[0.5, 0.5, 1.0])
    assert actions == [Start(0, (0,)), Start(1, (0,)), Start(2, (1,))]


def test_spreading_placement() -> None:
    actions = first_decision(
        ClusterSpec(nodes=2, gpus_per_node=4), Greedy(placement="worst"), run_time=[10.0], gpus=[2.0]
    )
    assert actions == [Start(0, (0, 4))]


def test_without_requested_times_power_breaks_ties() -> None:
    # A pool of 3: 2 GPUs leave 1, 1 GPU leaves 2.
    trace = plain_trace(run_time=[10.0, 10.0, 10.0], gpus=[1.0, 2.0, 2.0]).with_requested("absent")
    outcome = run_policy(Greedy(), trace, ClusterSpec.pool(3))
    assert outcome.first_start.tolist() == [0.0, 0.0, 10.0]


def test_one_decision_starts_many_kinds_of_jobs_on_gpus_of_their_own() -> None:
    generator = np.random.default_rng(3)
    sizes = generator.choice([0.1, 0.25, 0.3, 1.0, 2.0, 4.0, 8.0], 300)
    cluster = ClusterSpec(nodes=8, gpus_per_node=8)
    simulated = SimulatedCluster(plain_trace(run_time=generator.uniform(10, 1000, 300), gpus=sizes), cluster)
    assert simulated.advance()
    for action in Greedy().decide(simulated.snapshot()):
        simulated.apply(action)  # refuses GPUs that are taken
    left = simulated.snapshot()
    assert not (left.queue.gpus <= left.free_gpus).any()
