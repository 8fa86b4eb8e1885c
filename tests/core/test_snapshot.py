"""Snapshots: read-only, honest, and `after(action)` is what `apply` does. Every refusal, in words."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import Action, Cluster, ClusterSpec, Placement, Preempt, Snapshot, Start
from lepton_rl.core import layout as L
from lepton_rl.errors import IllegalAction
from lepton_rl.simulator import SimulatedCluster, Timing
from tests.reference.simulator import Job
from tests.simulator.cases import Case, cases, trace_of

ARRAYS = ("jobs", "gpus", "nodes", "bits", "totals")


def busy_cluster(quantum: float = 0.0) -> SimulatedCluster:
    """Two nodes of two GPUs at 6 s: 0 and 1 run on GPU 0 and on 2 and 3; 2, 3 and 4 wait, 5 comes at 9 s.

    GPU 0 has half its share and 10 of its 80 GiB left.
    """
    jobs = [
        Job(0, 0, 50, 60, 0.5, memory_gib=70),
        Job(1, 2, 50, 40, 2),
        Job(2, 3, 5, 7, 2),
        Job(3, 4, 5, 5, 0.5),
        Job(4, 6, 5, 5, 0.75),
        Job(5, 9, 5, 5, 1),
    ]
    cluster = SimulatedCluster(trace_of(jobs), ClusterSpec(2, 2), timing=Timing(quantum=quantum))
    cluster.advance()
    cluster.apply(Start(0))
    cluster.advance()
    cluster.apply(Start(1, (3, 2)))
    while cluster.time < 6:
        cluster.advance()
    return cluster


def test_what_a_snapshot_says() -> None:
    snapshot = busy_cluster().snapshot()
    assert snapshot.time == 6
    assert snapshot.free_gpus == 1
    assert list(snapshot.running) == [0, 1]
    assert list(snapshot.queue) == [2, 3, 4]
    assert len(snapshot.queue) == 3
    assert snapshot.running.start_time.tolist() == [0, 2]
    assert snapshot.running.predicted_time.tolist() == [60, 40]
    assert snapshot.queue.submit_time.tolist() == [3, 4, 6]
    assert snapshot.queue.requested_time.tolist() == [7, 5, 5]
    assert snapshot.queue.gpus.tolist() == [2, 0.5, 0.75]
    assert snapshot.running.gpu_memory_gib.tolist() == [70, 0]
    assert snapshot.queue.compute_intensity.tolist() == [1, 1, 1]
    assert snapshot.queue.time_sensitivity.tolist() == [1, 1, 1]
    assert snapshot.queue.user.tolist() == [-1, -1, -1]
    assert snapshot.queue.queue.tolist() == [-1, -1, -1]
    assert snapshot.queue.attained_service.tolist() == [0, 0, 0]
    assert snapshot.gpu_load.tolist() == [0.5, 0, 1, 1]
    assert snapshot.gpu_memory_free_gib.tolist() == [10, 80, 0, 0]
    assert snapshot.gpu_power_w.tolist() == [225, 50, 400, 400]
    assert snapshot.gpus_of(0) == (0,)
    assert snapshot.gpus_of(1) == (3, 2)


def test_a_snapshot_is_read_only_and_does_not_change_with_its_cluster() -> None:
    cluster = busy_cluster()
    snapshot = cluster.snapshot()
    before = {name: getattr(snapshot, name).copy() for name in ARRAYS}
    for later in (snapshot, snapshot.after(Start(3))):
        for name in ARRAYS:
            with pytest.raises(ValueError, match="read-only"):
                getattr(later, name)[...] = 0
        with pytest.raises(ValueError, match="read-only"):
            later.queue.submit_time[0] = 1.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            later.time = 3.0  # type: ignore[misc]
    snapshot.after(Preempt(1))
    cluster.apply(Start(3))
    cluster.advance()
    for name in ARRAYS:
        assert np.array_equal(getattr(snapshot, name), before[name], equal_nan=True), name


def test_true_run_times_and_future_jobs_are_not_in_it() -> None:
    # Job 0 runs 50 s, which no column says; job 5 has not been submitted.
    table = busy_cluster().snapshot().jobs
    assert not (table == 50).any()
    assert table.shape == (5, L.JOB_COLUMNS)


def assert_equal(left: Snapshot, right: Snapshot) -> None:
    for name in ARRAYS:
        assert np.array_equal(getattr(left, name), getattr(right, name), equal_nan=True), name
    for name in ("time", "cluster", "placement", "restart_cost", "quantum", "running_count"):
        assert getattr(left, name) == getattr(right, name), name
    for one, other in ((left.queue, right.queue), (left.running, right.running)):
        columns = [name for name, entry in vars(type(one)).items() if isinstance(entry, property)]
        assert len(columns) == 13
        for name in columns:
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name


def attempt(change: Callable[[], object]) -> str | None:
    """The sentence with which a change was refused, if it was."""
    try:
        change()
    except IllegalAction as error:
        return str(error)
    return None


@settings(max_examples=120)
@given(
    case=cases(),
    placement=st.sampled_from(list(Placement)),
    timing=st.builds(Timing, st.sampled_from([0.0, 1.5]), st.sampled_from([0.0, 0.0, 3.0])),
    data=st.data(),
)
def test_after_an_action_is_what_apply_then_snapshot_shows(
    case: Case, placement: Placement, timing: Timing, data: st.DataObject
) -> None:
    cluster = SimulatedCluster(case.trace, case.cluster, placement, timing)
    gpus = st.lists(st.integers(-1, case.cluster.gpus), max_size=4).map(tuple)
    for _ in range(12):
        snapshot = cluster.snapshot()
        known = sorted([*snapshot.queue, *snapshot.running])
        if known:
            job = data.draw(st.sampled_from(known))
            action: Action = data.draw(
                st.one_of(st.just(Start(job)), st.just(Preempt(job)), st.builds(Start, st.just(job), gpus))
            )
            foreseen: list[Snapshot] = []
            refused = attempt(lambda: foreseen.append(snapshot.after(action)))  # noqa: B023
            assert attempt(lambda: cluster.apply(action)) == refused  # noqa: B023
            assert_equal(cluster.snapshot(), foreseen[0] if foreseen else snapshot)
        elif attempt(cluster.advance) is not None or not len(cluster.snapshot().jobs):
            break
        if data.draw(st.booleans()) and attempt(cluster.advance) is not None:
            break


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (Start(2), "job 2 needs 2 GPUs, 1 are free"),
        (Start(0), "job 0 is running already"),
        (Preempt(2), "job 2 is waiting, not running"),
        (Start(2, (1,)), "job 2 needs 2 different GPUs, the action names (1,)"),
        (Start(2, (1, 1)), "job 2 needs 2 different GPUs, the action names (1, 1)"),
        (Start(3, ()), "job 3 needs 1 different GPUs, the action names ()"),
        (Start(2, (1, 4)), "job 2: there is no GPU 4; the cluster has GPUs 0 to 3"),
        (Start(2, (-1, 1)), "job 2: there is no GPU -1; the cluster has GPUs 0 to 3"),
        (Start(2, (1, 0)), "job 2 needs 1 of GPU 0, 0.5 is free"),
        (Start(4, (0,)), "job 4 needs 0.75 of GPU 0, 0.5 is free"),
        (Start(3, (0,)), "job 3 does not fit the 10 GiB that are free on GPU 0"),
    ],
)
def test_illegal_actions_are_refused_alike_and_change_nothing(action: Action, sentence: str) -> None:
    cluster = busy_cluster()
    snapshot = cluster.snapshot()
    with pytest.raises(IllegalAction, match=f"^{re.escape(sentence)}$"):
        snapshot.after(action)
    with pytest.raises(IllegalAction, match=f"^{re.escape(sentence)}$"):
        cluster.apply(action)
    assert_equal(cluster.snapshot(), snapshot)


def test_a_share_that_fits_nowhere() -> None:
    cluster = busy_cluster()
    cluster.apply(Start(4))
    with pytest.raises(IllegalAction, match=r"^job 3 needs 0.5 of a GPU, none has that much free"):
        cluster.apply(Start(3))


def test_a_gang_that_would_have_to_be_spread() -> None:
    jobs = [Job(number, 0, 5, 5, gpus) for number, gpus in enumerate((1, 1, 2))]
    cluster = SimulatedCluster(trace_of(jobs), ClusterSpec(2, 2), Placement.CONSOLIDATED)
    cluster.advance()
    cluster.apply(Start(0, (0,)))
    cluster.apply(Start(1, (2,)))
    sentence = "job 2 needs 2 GPUs on the fewest nodes .consolidated., 2 are free but spread too thin"
    with pytest.raises(IllegalAction, match=sentence):
        cluster.apply(Start(2))
    with pytest.raises(IllegalAction, match=sentence):
        cluster.snapshot().after(Start(2))
    cluster.apply(Start(2, (1, 3)))  # who names the GPUs may spread it


def test_a_young_run_is_not_preempted() -> None:
    cluster = busy_cluster(quantum=5.0)
    sentence = "^job 1 has run 4 s of its 5 s quantum and cannot be preempted yet$"
    with pytest.raises(IllegalAction, match=sentence):
        cluster.apply(Preempt(1))
    with pytest.raises(IllegalAction, match=sentence):
        cluster.snapshot().after(Preempt(1))
    cluster.apply(Preempt(0))


def test_jobs_that_are_not_there() -> None:
    cluster = busy_cluster()
    for action in (Start(5), Preempt(99), Start(-1)):
        with pytest.raises(IllegalAction, match=rf"^no job {action.job} has been submitted$"):
            cluster.apply(action)
        with pytest.raises(IllegalAction, match=rf"^job {action.job} is neither waiting nor running$"):
            cluster.snapshot().after(action)
    while cluster.time < 50:
        cluster.advance()
    with pytest.raises(IllegalAction, match=r"^job 0 has finished$"):
        cluster.apply(Start(0))
    with pytest.raises(IllegalAction, match=r"^job 2 is not running$"):
        cluster.gpus_of(2)
    with pytest.raises(IllegalAction, match=r"^job 2 is waiting, not running$"):
        cluster.snapshot().gpus_of(2)


def test_what_is_no_action() -> None:
    cluster = busy_cluster()
    with pytest.raises(
        IllegalAction, match=r"^'start' is not an action; use Start, Preempt, Migrate or SetPowerLimit$"
    ):
        cluster.apply("start")  # type: ignore[arg-type]
    with pytest.raises(
        IllegalAction, match=r"^'start' is not an action; use Start, Preempt, Migrate or SetPowerLimit$"
    ):
        cluster.snapshot().after("start")  # type: ignore[arg-type]


def test_the_simulated_cluster_is_a_cluster() -> None:
    cluster: Cluster = busy_cluster()
    assert cluster.advance()
