"""Clusters whose nodes differ: the compiled simulator, on each of its faces, against the plain-Python reference."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import Action, ClusterSpec, Placement, Snapshot, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import Locality, SpreadCurve, aliases, gpu_type
from lepton_rl.errors import IllegalAction, TraceError
from lepton_rl.simulator import Rule, SimulatedCluster, Timing, decide, run_trace
from lepton_rl.workloads.job_table import fit_to_cluster, runnable
from tests.reference import simulator as reference
from tests.reference.detailed import DetailedJob
from tests.reference.simulator import WHOLE
from tests.simulator.cases import (
    BLOCKINGS,
    ORDERS,
    PLACEMENTS,
    PREEMPTIVE,
    Case,
    assert_matches,
    cases,
    rule_of,
    same_schedule,
)
from tests.simulator.detailed_cases import (
    FAST,
    PLAIN,
    SLOW,
    DetailedCase,
    clusters,
    detailed_cases,
    detailed_trace,
    job_wishes,
    made_type,
    reference_cluster,
)

every_blocking = pytest.mark.parametrize("blocking", BLOCKINGS)
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


def check_holdings(case: DetailedCase, snapshot: Snapshot) -> None:
    """No GPU is held twice, no node is over what it has, and the figures add up; from who holds what alone."""
    cluster = reference_cluster(case.cluster)
    for number in snapshot.running:
        job, gpus = case.jobs[number], list(snapshot.gpus_of(number))
        assert len(gpus) == max(job.gpus, 1)
        assert all(cluster.machine(gpu).will_do(job) for gpu in gpus)
        cluster.take(job, gpus)  # refuses shares, memory, CPU, RAM and accelerators below 0
    assert snapshot.gpu_load.tolist() == pytest.approx([1 - free / WHOLE for free in cluster.free_share])
    assert snapshot.gpu_power_w.sum() == pytest.approx(cluster.power_w(), rel=1e-12)
    free = [share == WHOLE for share in cluster.free_share]
    assert snapshot.free_gpus == sum(free)
    for gpu, memory in enumerate(cluster.free_memory):
        if cluster.free_share[gpu] > 0:  # a gang keeps others off its GPUs whatever it holds
            assert snapshot.gpu_memory_free_gib[gpu] == pytest.approx(memory, abs=1e-2)


def assert_same_snapshot(left: Snapshot, right: Snapshot) -> None:
    for name in ("jobs", "gpus", "nodes", "bits"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


def loop(case: DetailedCase, cluster: SimulatedCluster, rule: Rule) -> list[list[int]]:
    """Run the rule as decisions on snapshots; return the GPUs that each job last held."""
    held: dict[int, list[int]] = {}
    while cluster.advance():
        snapshot = cluster.snapshot()
        check_holdings(case, snapshot)
        actions: list[Action] = decide(snapshot, rule)
        for action in actions:
            snapshot = snapshot.after(action)
            cluster.apply(action)
            if isinstance(action, Start):
                assert action.gpus is not None
                held[action.job] = sorted(action.gpus)
        if actions:
            check_holdings(case, cluster.snapshot())
            assert_same_snapshot(snapshot, cluster.snapshot())
    return [held[number] for number in range(len(case.jobs))]


def assert_agree(
    case: DetailedCase,
    order: str,
    blocking: reference.Blocking,
    placement: reference.Placement,
    cost: float = 0.0,
    quantum: float = 0.0,
) -> None:
    """The whole-trace run and the loop of decisions against the reference."""
    expected = case.expected(order, blocking, placement, cost, quantum)
    found = case.found(order, blocking, placement, cost, quantum)
    assert_matches(found, expected, order)

    cluster = SimulatedCluster(case.trace, case.cluster, Placement[placement.upper()], Timing(cost, quantum))
    allocation = loop(case, cluster, rule_of(order, blocking, placement))
    assert same_schedule(cluster.outcome(), found), order
    assert cluster.outcome().energy_joules == found.energy_joules, order
    assert allocation == expected.allocation, order


@every_blocking
@every_placement
@settings(max_examples=15)
@given(case=detailed_cases())
def test_every_order(case: DetailedCase, blocking: reference.Blocking, placement: reference.Placement) -> None:
    for order in ORDERS:
        assert_agree(case, order, blocking, placement)


@pytest.mark.parametrize("order", PREEMPTIVE)
@pytest.mark.parametrize("blocking", ["head", "skip"])
@every_placement
@settings(max_examples=30)
@given(
    case=detailed_cases(exact=True),
    cost=st.sampled_from([0.0, 0.0, 1.5, 4.0]),
    quantum=st.sampled_from([0.0, 0.0, 2.0, 5.5]),
)
def test_every_preemptive_order(
    case: DetailedCase,
    order: str,
    blocking: reference.Blocking,
    placement: reference.Placement,
    cost: float,
    quantum: float,
) -> None:
    assert_agree(case, order, blocking, placement, cost, quantum)


@pytest.mark.parametrize("order", PREEMPTIVE)
@settings(max_examples=30)
@given(case=detailed_cases(), cost=st.sampled_from([0.0, 0.1, 3.7]))
def test_preemption_at_times_that_round(case: DetailedCase, order: str, cost: float) -> None:
    # Sums of rounded times may break ties otherwise than the reference; the two faces still agree to the bit.
    found = case.found(order, "skip", "first", cost, 0.3)
    cluster = SimulatedCluster(case.trace, case.cluster, timing=Timing(cost, 0.3))
    loop(case, cluster, rule_of(order, "skip"))
    assert same_schedule(cluster.outcome(), found)


@every_blocking
@every_placement
def test_a_busier_workload(blocking: reference.Blocking, placement: reference.Placement) -> None:
    """Long queues on a mixed cluster: room to backfill, and passes that saw the same queue before."""
    rng = np.random.default_rng(3)
    cluster = ClusterSpec.of_groups(
        (
            NodeGroup(3, 2, SLOW, (("cpu_cores", 6.0),), racks=2),
            NodeGroup(1, 4, FAST, (("cpu_cores", 16.0), ("fpga", 1.0))),
            NodeGroup(2, 3, gpu_type("A100-SXM4-80GB")),
        ),
        locality=Locality(SpreadCurve((1, 2, 4), (1.0, 1.1, 1.7)), SpreadCurve((1, 2), (1.0, 1.25))),
    )
    empty = reference_cluster(cluster)
    jobs: list[DetailedJob] = []
    for submit in np.cumsum(rng.choice([0, 0, 1, 2], 90)).tolist():
        run = float(rng.integers(1, 15))
        job = DetailedJob(
            len(jobs),
            float(submit),
            run,
            run if rng.random() < 0.7 else float(rng.integers(1, 25)),
            float(rng.choice([0.25, 0.5, 1, 1, 2, 3, 6])),
            job_class=str(rng.choice(["general", "vision"])),
            types=((), (), ("slow", "fast"), ("fast",))[rng.integers(4)],
            asks=({}, {"cpu_cores": 2.0}, {"cpu_cores": 0.5, "fpga": 0.25})[rng.integers(3)],
        )
        if empty.find(job) is not None:
            jobs.append(job)
    assert len(jobs) > 60
    for order in ("fcfs", "sjf", "wfp3"):
        assert_agree(DetailedCase(jobs, cluster), order, blocking, placement)


def as_groups(cluster: ClusterSpec) -> ClusterSpec:
    """The plain cluster as groups of one and the same type, one node in the first of them."""
    memory, idle, most = cluster.gpu_memory_gib, cluster.idle_power_w, cluster.max_power_w
    kind = made_type("only", memory, idle, most, 1.0)
    counts = [1, cluster.nodes - 1] if cluster.nodes > 1 else [1]
    return ClusterSpec.of_groups(tuple(NodeGroup(nodes, cluster.gpus_per_node, kind) for nodes in counts))


@every_blocking
@every_placement
@settings(max_examples=15)
@given(case=cases())
def test_groups_of_one_type_are_the_plain_cluster(
    case: Case, blocking: reference.Blocking, placement: reference.Placement
) -> None:
    groups = as_groups(case.cluster)
    for order in ORDERS:
        rule = rule_of(order, blocking, placement)
        plain, detailed = run_trace(case.trace, case.cluster, rule), run_trace(case.trace, groups, rule)
        assert same_schedule(plain, detailed), order
        assert math.isclose(plain.energy_joules, detailed.energy_joules, rel_tol=1e-12)


@pytest.mark.parametrize("order", PREEMPTIVE)
@settings(max_examples=30)
@given(case=cases(), placement=st.sampled_from(PLACEMENTS), cost=st.sampled_from([0.0, 0.1, 3.7]))
def test_groups_of_one_type_are_the_plain_cluster_preempted(
    case: Case, order: str, placement: reference.Placement, cost: float
) -> None:
    for blocking in ("head", "skip"):
        rule, timing = rule_of(order, blocking, placement), Timing(cost, 0.3)
        plain, detailed = (
            run_trace(case.trace, case.cluster, rule, timing),
            run_trace(case.trace, as_groups(case.cluster), rule, timing),
        )
        assert same_schedule(plain, detailed), blocking


# Worked out by hand.


def test_energy_by_hand() -> None:
    # Node 0: two GPUs of 10 W idle, 110 W at most, speed 1. Node 1: one of 20 W and 220 W, speed 2.
    # Job 0 holds both GPUs of node 0 from 0 to 100: 2 x 110 W x 100 s                       = 22,000 J.
    # Job 1 (100 s of service) holds GPU 2 from 0 to 50: 220 W x 50 s                         = 11,000 J.
    # Job 2 (60 s, half a GPU) holds half of it from 50 to 80: (20 + 200 / 2) W x 30 s        =  3,600 J.
    # From 80 to 100, the last finish, GPU 2 is idle: 20 W x 20 s                             =    400 J.
    one, two = made_type("one", 10.0, 10.0, 110.0, 1.0), made_type("two", 10.0, 20.0, 220.0, 2.0)
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, one), NodeGroup(1, 1, two)))
    jobs = [
        DetailedJob(0, 0.0, 100.0, 100.0, 2.0, types=("one",)),
        DetailedJob(1, 0.0, 100.0, 100.0, 1.0, types=("two",)),
        DetailedJob(2, 50.0, 60.0, 60.0, 0.5, types=("two",)),
    ]
    outcome = run_trace(detailed_trace(jobs), cluster, rule_of("fcfs", "head"))
    assert outcome.finish.tolist() == [100.0, 50.0, 80.0]
    assert outcome.energy_joules == pytest.approx(37_000.0, rel=1e-12)
    assert outcome.mean_power_w == pytest.approx(370.0, rel=1e-12)
    assert outcome.utilization == pytest.approx((200 + 50 + 15) / 300)


def test_speeds_by_hand() -> None:
    # Two nodes of one slow GPU (speed 1/2) in one rack, one node of two fast ones (2; language 4) in another; times
    # are for the plain type (1). Two nodes or more slow a job by 1.25, two racks by 1.6.
    cluster = ClusterSpec.of_groups(
        (NodeGroup(2, 1, SLOW), NodeGroup(1, 2, FAST)),
        PLAIN,
        Locality(SpreadCurve((1, 2), (1.0, 1.25)), SpreadCurve((1, 2), (1.0, 1.6))),
    )
    jobs = [
        DetailedJob(0, 0.0, 100.0, 100.0, 2.0),  # both slow nodes: 1/2 / 1.25 = 0.4, so 250 s
        DetailedJob(1, 1000.0, 100.0, 100.0, 3.0),  # three nodes, two racks: 1/2 / (1.25 x 1.6) = 1/4, 400 s
        DetailedJob(2, 2000.0, 100.0, 100.0, 2.0, job_class="language", types=("fast",)),  # 4: 25 s
        DetailedJob(3, 3000.0, 100.0, 100.0, 1.0, job_class="vision", types=("slow",)),  # 1/4: 400 s
        DetailedJob(4, 4000.0, 100.0, 100.0, 0.5, memory_gib=20.0),  # too much for a slow GPU; 2: 50 s
    ]
    outcome = run_trace(detailed_trace(jobs), cluster, rule_of("fcfs", "head"))
    assert outcome.finish == pytest.approx([250.0, 1400.0, 2025.0, 3400.0, 4050.0], rel=1e-12)


def test_a_preempted_job_keeps_its_service() -> None:
    # One fast GPU (speed 2). Job 0 has 100 s of service to go; at 10 it has had 20. Job 1 (30 s) then goes first
    # under srtf and takes 15 s. Job 0 goes on at 25 with 80 s and 6 s for the restart: 43 s, so until 68.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, FAST),), PLAIN)
    jobs = [DetailedJob(0, 0.0, 100.0, 100.0, 1.0), DetailedJob(1, 10.0, 30.0, 30.0, 1.0)]
    outcome = run_trace(detailed_trace(jobs), cluster, rule_of("srtf", "head"), Timing(preemption_cost=6.0))
    assert outcome.finish.tolist() == [68.0, 25.0]
    assert outcome.preemptions.tolist() == [1, 0]


# What a cluster can never run, and what it refuses.


def test_jobs_that_no_group_can_run_are_dropped_and_named() -> None:
    cluster = ClusterSpec.of_groups(
        (NodeGroup(2, 2, SLOW, (("cpu_cores", 8.0),)), NodeGroup(1, 4, FAST, (("cpu_cores", 4.0), ("fpga", 1.0))))
    )
    wishes: list[dict[str, Any]] = [
        {"gpus": 8.0},
        {"gpus": 9.0},  # more than there are
        {"gpus": 1.0, "types": ("plain",)},  # a type that is not there
        {"gpus": 5.0, "types": ("fast",)},  # more of a type than there are
        {"gpus": 1.0, "memory_gib": 81.0},  # more memory than any GPU has
        {"gpus": 1.0, "memory_gib": 11.0, "types": ("slow",)},  # more than the type has
        {"gpus": 2.0, "types": ("fast",), "asks": {"cpu_cores": 3.0}},  # CPU for one GPU only
        {"gpus": 0.5, "types": ("slow",), "asks": {"cpu_cores": 9.0}},
        {"gpus": 4.0, "asks": {"fpga": 1.0, "ram_gib": 500.0}},  # slow nodes do not count FPGAs; nobody counts RAM
    ]
    jobs = [DetailedJob(number, 0.0, 10.0, 10.0, **wish) for number, wish in enumerate(wishes)]
    fitting = fit_to_cluster(detailed_trace(jobs), cluster)
    assert fitting.job_id.tolist() == [0, 8]
    assert [entry.count for entry in fitting.dropped] == [1, 6]
    assert fitting.dropped[0].examples == ("job 1 asks for 9",)
    assert fitting.dropped[1].reason == "no node group can ever run it"
    assert fitting.dropped[1].examples[:2] == (
        "job 2 asks for 1 GPU of type plain",
        "job 3 asks for 5 GPUs of type fast",
    )
    assert "ram_gib_per_gpu is not counted: no node group offers ram_gib" in fitting.notes
    empty = reference_cluster(cluster)
    assert [empty.find(job) is not None for job in jobs] == [job.id in (0, 8) for job in jobs]
    with pytest.raises(TraceError, match=r"no node group can ever run 6 of 8 jobs \(job 2 asks for 1 GPU of type"):
        fit_to_cluster(detailed_trace([jobs[0], *jobs[2:]]), cluster, strict=True)
    with pytest.raises(TraceError, match="job 3 asks for 5 GPUs of type fast; no node group of 2 x 2 slow"):
        SimulatedCluster(detailed_trace([jobs[3]]), cluster)


@settings(max_examples=60)
@given(cluster=clusters(), wishes=st.lists(job_wishes(), min_size=1, max_size=8))
def test_what_can_run_is_what_the_reference_finds_room_for(cluster: ClusterSpec, wishes: list[dict[str, Any]]) -> None:
    jobs = [DetailedJob(number, 0.0, 1.0, 1.0, **wish) for number, wish in enumerate(wishes)]
    empty = reference_cluster(cluster)
    assert runnable(detailed_trace(jobs), cluster).tolist() == [empty.find(job) is not None for job in jobs]


@pytest.mark.parametrize(
    ("first", "then", "sentence"),
    [
        ({"types": ("fast",)}, (0,), "job 1 cannot run on the type of GPU, or in the GPU memory, of node 0"),
        ({"memory_gib": 40.0}, (0,), "job 1 cannot run on the type of GPU, or in the GPU memory, of node 0"),
        ({"gpus": 0.5, "types": ("fast",)}, (1,), "job 1 cannot run on the type of GPU, or in the GPU memory, of node"),
        ({"gpus": 0.5, "memory_gib": 11.0}, (1,), "job 1 does not fit the 10 GiB that are free on GPU 1"),
        ({"gpus": 2.0, "asks": {"cpu_cores": 2.5}}, (0, 1), "job 1 asks for more CPU, RAM or accelerators than node 0"),
        ({"gpus": 0.5, "asks": {"cpu_cores": 4.5}}, (0,), "job 1 asks for more CPU, RAM or accelerators than node 0"),
        ({"gpus": 2.0, "types": ("fast",)}, None, "job 1 needs 2 GPUs of a type and on nodes that suit it, 1 are free"),
        ({"gpus": 0.5, "asks": {"fpga": 1.0}}, None, "job 1 needs 0.5 of a GPU of a type and on nodes that suit it"),
        ({"gpus": 2.0}, (0, 2), "job 1 needs 1 of GPU 2, 0 is free"),
        ({"gpus": 1.0}, (4,), "job 1: there is no GPU 4; the cluster has GPUs 0 to 3"),
    ],
)
def test_starts_that_a_node_cannot_take_are_refused(
    first: dict[str, Any], then: tuple[int, ...] | None, sentence: str
) -> None:
    # Node 0: two slow GPUs of 10 GiB, 4 cores, no FPGA. Node 1: two fast GPUs, 5 cores, one FPGA, half of it in use.
    cluster = ClusterSpec.of_groups(
        (
            NodeGroup(1, 2, SLOW, (("cpu_cores", 4.0), ("fpga", 0.0))),
            NodeGroup(1, 2, FAST, (("cpu_cores", 5.0), ("fpga", 1.0))),
        )
    )
    running = DetailedJob(0, 0.0, 10.0, 10.0, 1.0, types=("fast",), asks={"fpga": 0.5})
    simulated = SimulatedCluster(
        detailed_trace([running, DetailedJob(1, 0.0, 10.0, 10.0, **{"gpus": 1.0, **first})]), cluster
    )
    simulated.advance()
    simulated.apply(Start(0, (2,)))
    before = simulated.snapshot()
    for refuse in (simulated.apply, before.after):
        with pytest.raises(IllegalAction, match=re.escape(sentence)):
            refuse(Start(1, then))
        assert_same_snapshot(simulated.snapshot(), before)
    simulated.advance()
    simulated.apply(Start(1))
    assert not simulated.advance() or not simulated.snapshot().running_count


# Amounts.


@pytest.mark.parametrize("cores", [2.007, 2.011, 0.001, 8.2, 1.001])
def test_asking_for_all_of_a_node_fits(cores: float) -> None:
    # 2.007 x 1000 is a little above 2007: it must not count as 2008.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 4, PLAIN, (("cpu_cores", 4 * cores),)),))
    trace = detailed_trace([DetailedJob(0, 0.0, 1.0, 1.0, 4.0, asks={"cpu_cores": cores})])
    assert run_trace(trace, cluster, rule_of("fcfs", "head")).finish.tolist() == [1.0]


def test_what_a_group_does_not_name_is_never_short() -> None:
    # 8 GPUs of a million each: their thousandths are more than an int32 holds. Only the second group counts them.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 8, SLOW), NodeGroup(1, 1, FAST, (("disk_mib", 2_000_000.0),))))
    jobs = [DetailedJob(0, 0.0, 10.0, 10.0, 8.0, types=("slow",), asks={"disk_mib": 1_000_000.0})]
    jobs += [DetailedJob(1 + i, 0.0, 10.0, 10.0, 0.5, types=("fast",), asks={"disk_mib": 1e6}) for i in range(2)]
    simulated = SimulatedCluster(detailed_trace(jobs), cluster)
    simulated.advance()
    simulated.apply(Start(0, tuple(range(8))))
    for number in (1, 2):
        simulated.apply(Start(number))
    check_holdings(DetailedCase(jobs, cluster), simulated.snapshot())
    assert run_trace(detailed_trace(jobs), cluster, rule_of("fcfs", "head")).first_start.tolist() == [0.0] * 3


def test_types_are_found_by_their_other_names() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, gpu_type("T4")), NodeGroup(1, 1, gpu_type("A100-SXM4-80GB"))))
    names = ["A100-SXM4-80GB", aliases("A100-SXM4-80GB")[0], "a100 sxm4 80gb", "H100-SXM5 | A100-SXM4-80GB"]
    for name in names:
        trace = detailed_trace([DetailedJob(0, 0.0, 10.0, 10.0, 1.0, types=(name,))])
        simulated = SimulatedCluster(trace, cluster)
        simulated.advance()
        simulated.apply(Start(0))
        assert simulated.gpus_of(0) == (1,), name
