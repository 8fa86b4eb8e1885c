"""The reference for nodes that differ (R6) against cases worked out by hand."""

import pytest

from tests.reference.detailed import DetailedCluster, DetailedJob, Group, Type, slowdown
from tests.reference.simulator import Blocking, Placement, simulate_on

SLOW = Type("slow", 10.0, 10.0, 110.0, {"general": 0.5, "vision": 0.25})
FAST = Type("fast", 80.0, 20.0, 220.0, {"general": 2.0, "vision": 2.0})


def job(number: int, submit: float, run: float, gpus: float, **wishes: object) -> DetailedJob:
    return DetailedJob(number, submit, run, run, gpus, **wishes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("placement", "gpus", "cores", "found"),
    [
        # Nodes of 2 slow GPUs with 8 cores (0, 1 and 2, 3), of 4 fast ones with 6 (4 to 7), of 3 with none named.
        ("first", 3.0, 0.0, [0, 1, 2]),
        ("best", 3.0, 0.0, [8, 9, 10]),  # the tightest that holds all three
        ("best", 3.0, 2.0, [8, 9, 10]),
        ("best", 3.0, 5.0, [8, 9, 10]),  # cores are not counted there
        ("best", 1.0, 2.0, [0]),
        ("best", 6.0, 3.0, [0, 1, 2, 8, 9, 10]),  # all 3 of node 3; both of node 0; then node 1 has fewer free than 2
        ("worst", 3.0, 0.0, [4, 5, 8]),  # 4 are offered, then 3 and 3
        ("worst", 3.0, 3.0, [0, 2, 8]),  # 2, 2, 2 and 3 are offered, then 2 each, then 1, 2, 2 and 2
        ("consolidated", 4.0, 0.0, [4, 5, 6, 7]),
        ("consolidated", 4.0, 2.0, [0, 4, 5, 6]),  # node 2 offers 3 only: two nodes are the fewest
    ],
)
def test_where_a_gang_goes(placement: Placement, gpus: float, cores: float, found: list[int]) -> None:
    cluster = DetailedCluster(
        [Group(2, 2, SLOW, {"cpu": 8.0}), Group(1, 4, FAST, {"cpu": 6.0}), Group(1, 3, FAST)], placement
    )
    assert cluster.find(job(0, 0.0, 1.0, gpus, asks={"cpu": cores})) == found


def test_consolidated_waits_for_the_fewest_nodes() -> None:
    cluster = DetailedCluster([Group(1, 2, SLOW), Group(2, 2, FAST)], "consolidated")
    cluster.take(job(0, 0.0, 1.0, 1.0), [2])
    assert cluster.find(job(1, 0.0, 1.0, 2.0)) == [0, 1]
    assert cluster.find(job(2, 0.0, 1.0, 2.0, types=("fast",))) == [4, 5]
    cluster.take(job(2, 0.0, 1.0, 1.0), [4])
    assert cluster.find(job(3, 0.0, 1.0, 2.0, types=("fast",))) is None  # one GPU on each of two nodes


def test_shares_take_the_rest_once_and_their_part_of_the_gpu_they_are_on() -> None:
    cluster = DetailedCluster([Group(1, 1, SLOW, {"cpu": 3.0}), Group(1, 1, FAST, {"cpu": 1.0})], "first")
    half = job(0, 0.0, 1.0, 0.5, asks={"cpu": 2.0})
    assert cluster.find(half) == [0]
    cluster.take(half, [0])
    assert cluster.free_memory == [5.0, 80.0]  # half of 10 GiB
    assert cluster.find(half) is None  # one core is left on either node
    assert cluster.find(job(1, 0.0, 1.0, 0.5, memory_gib=6.0)) == [1]
    cluster.give(half, [0])
    assert cluster.find(half) == [0]


def test_rates() -> None:
    groups = [Group(4, 1, SLOW, racks=2), Group(1, 2, FAST)]
    cluster = DetailedCluster(groups, "first", FAST, ((1, 1.0), (2, 1.25)), ((1, 1.0), (3, 2.0)))
    one = job(0, 0.0, 1.0, 1.0)
    assert cluster.rate(one, [4]) == 1.0  # for times on fast GPUs
    assert cluster.rate(one, [0]) == 0.25
    assert cluster.rate(job(0, 0.0, 1.0, 1.0, job_class="vision"), [0]) == 0.125
    assert cluster.rate(one, [0, 1]) == 0.25 / 1.25  # nodes 0 and 1 share a rack
    assert cluster.rate(one, [1, 2]) == 0.25 / (1.25 * 1.5)
    assert cluster.rate(one, [0, 2, 4, 5]) == 0.25 / (1.25 * 2.0)
    assert cluster.planned_rate(one) == 0.25
    assert cluster.planned_rate(job(0, 0.0, 1.0, 1.0, memory_gib=11.0)) == 1.0
    assert [slowdown(((1, 1.0), (3, 2.0)), count) for count in (1, 2, 3, 4)] == [1.0, 1.5, 2.0, 2.0]


@pytest.mark.parametrize(
    ("blocking", "starts"),
    [
        # GPU 0 is slow (1/2), GPU 1 fast (2); times are for a type of speed 1. Job 0 (80 s) holds the fast one to 40.
        # Job 1 wants it and waits till then. Job 2 (20 s) would take the slow GPU for 40 s, from 3 to 43: it delays
        # nobody, for the head cannot use that GPU. Job 3 (30 s) comes when both are taken.
        ("head", [0.0, 40.0, 40.0, 42.5]),  # job 2 slow at 40, to 80; job 1 (5 s) 2.5 s on the fast one, then job 3
        ("easy", [0.0, 40.0, 3.0, 42.5]),
        # Reservations count GPUs: at 3 job 1 is planned for now (one GPU is free, but it is the slow one), so none is
        # left for job 2, at 4 again; the next event is 40.
        ("conservative", [0.0, 40.0, 40.0, 42.5]),
    ],
)
def test_backfilling(blocking: Blocking, starts: list[float]) -> None:
    plain = Type("plain", 10.0, 1.0, 2.0, {"general": 1.0})
    jobs = [
        job(0, 0.0, 80.0, 1.0, types=("fast",)),
        job(1, 1.0, 5.0, 1.0, types=("fast",)),
        job(2, 3.0, 20.0, 1.0),
        job(3, 4.0, 30.0, 1.0, types=("fast",)),
    ]
    cluster = DetailedCluster([Group(1, 1, SLOW), Group(1, 1, FAST)], "first", plain)
    assert simulate_on(cluster, jobs, "fcfs", blocking).start == starts


def test_energy() -> None:
    # The slow GPU works 40 s at 110 W. The fast one idles 10 s at 20 W, then half of it works till 40: 120 W.
    cluster = DetailedCluster([Group(1, 1, SLOW), Group(1, 1, FAST)], "first")
    result = simulate_on(cluster, [job(0, 0.0, 40.0, 1.0), job(1, 10.0, 120.0, 0.5)], "fcfs", "head")
    assert result.finish == [40.0, 40.0]
    assert result.energy_joules == pytest.approx(40 * 110 + 10 * 20 + 30 * 120)
