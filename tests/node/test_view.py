"""Jobs and GPUs of a node as a policy sees them."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from lepton_rl.core.actions import Start
from lepton_rl.core.cluster import ClusterSpec, NodeGroup
from lepton_rl.core.hardware.catalogue import gpu_type
from lepton_rl.core.placement import Placement
from lepton_rl.errors import IllegalAction, JobError
from lepton_rl.node.hardware import CPU, RAM
from lepton_rl.node.jobs import JobRequest
from lepton_rl.node.view import GpuView, JobRows, RunningJob, Views

A100 = gpu_type("A100-SXM4-80GB")
CLUSTER = ClusterSpec.of_groups((NodeGroup(1, 4, A100, ((CPU, 32.0), (RAM, 256.0))),))
ROWS = JobRows(CLUSTER, 3600.0)
VIEWS = Views(CLUSTER, Placement.FIRST, 60.0, 30.0)


def asks(milli: int = 1000, **more: object) -> JobRequest:
    """Return what a job of so many thousandths of a GPU asks for."""
    return JobRequest(argv=("true",), cwd="/", gpu_milli=milli, **more)  # type: ignore[arg-type]


def test_a_row_says_what_was_asked_for() -> None:
    request = asks(
        2000, gpu_memory_mib=20 * 1024, requested_s=120.0, user="ada", queue="night", project="vision",
        compute_intensity=3.0, time_sensitivity=4.0,
    )  # fmt: skip
    snapshot = VIEWS.build(50.0, [ROWS.row(7, request, 10.0, 20.0), ROWS.row(8, asks(250), 11.0, 0.0)], [], GpuView())
    queue = snapshot.queue
    assert queue.id.tolist() == [7, 8]
    assert (queue.submit_time.tolist(), queue.requested_time.tolist()) == ([10.0, 11.0], [120.0, 3600.0])
    assert (queue.gpus.tolist(), queue.gpu_memory_gib.tolist()) == ([2.0, 0.25], [20.0, 0.0])
    assert (queue.attained_service.tolist(), queue.predicted_time.tolist()) == ([20.0, 0.0], [100.0, 3600.0])
    assert (queue.compute_intensity.tolist(), queue.time_sensitivity.tolist()) == ([3.0, 1.0], [4.0, 1.0])
    assert (queue.user.tolist(), queue.queue.tolist()) == ([ROWS.code("user", "ada"), -1], [0, 1])
    assert (snapshot.time, snapshot.restart_cost, snapshot.quantum) == (50.0, 60.0, 30.0)


def test_queues_users_and_projects_keep_their_numbers() -> None:
    rows = JobRows(CLUSTER, 1.0)
    assert [rows.code("user", name) for name in ("ada", "bob", "ada", "")] == [0, 1, 0, -1]
    assert rows.code("project", "bob") == 0


def test_a_job_that_has_run_longer_than_it_asked_for_still_has_a_second_left() -> None:
    snapshot = VIEWS.build(0.0, [ROWS.row(1, asks(requested_s=10.0), 0.0, 99.0)], [], GpuView())
    assert snapshot.queue.predicted_time.tolist() == [1.0]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (asks(5000), "asks for 5 GPUs"),
        (asks(gpu_memory_mib=81 * 1024), "1 GPU, 81 GiB of GPU memory"),
        (asks(cpus=33.0), "1 GPU, 33 CPU cores; it has .* 32 CPU cores"),
        (asks(2000, ram_mib=300 * 1024), "2 GPUs, 300 GiB of the machine's memory; it has .* 256 GiB"),
        (asks(0), "at least a share of a GPU"),
    ],
)
def test_what_can_never_run_is_refused_in_a_sentence(request_: JobRequest, why: str) -> None:
    with pytest.raises(JobError, match=why):
        ROWS.row(1, request_, 0.0, 0.0)


def test_cores_and_memory_of_the_machine_are_shared_out() -> None:
    held = RunningJob(ROWS.row(1, asks(cpus=24.0), 0.0, 0.0), 0.0, (0,))
    waiting = [ROWS.row(2, asks(cpus=16.0), 0.0, 0.0), ROWS.row(3, asks(cpus=8.0), 0.0, 0.0)]
    snapshot = VIEWS.build(0.0, waiting, [held], GpuView())
    with pytest.raises(IllegalAction):
        snapshot.after(Start(2))
    assert snapshot.after(Start(3)).gpus_of(3) == (1,)


def test_waiting_jobs_come_in_order_of_submission_and_running_ones_by_number() -> None:
    waiting = [ROWS.row(job, asks(), submitted, 0.0) for job, submitted in ((5, 3.0), (9, 1.0), (4, 3.0))]
    running = [RunningJob(ROWS.row(job, asks(), 0.0, 0.0), 0.0, (gpu,)) for job, gpu in ((8, 0), (2, 3))]
    snapshot = VIEWS.build(4.0, waiting, running, GpuView())
    assert (snapshot.queue.id.tolist(), snapshot.running.id.tolist()) == ([9, 4, 5], [2, 8])
    assert (snapshot.gpus_of(8), snapshot.gpus_of(2)) == ((0,), (3,))


def test_who_must_not_be_stopped_shows() -> None:
    running = [RunningJob(ROWS.row(job, asks(), 0.0, 0.0), 0.0, (job,), job != 2) for job in (1, 2, 3)]
    assert VIEWS.build(4.0, [], running, GpuView()).pinned == {2}


def test_a_power_limit_that_is_set_shows() -> None:
    snapshot = VIEWS.build(0.0, [], [], GpuView(power_limit_mw={2: 250_000}))
    assert snapshot.gpu_power_limit_w.tolist() == [400.0, 400.0, 250.0, 400.0]


PIECES = st.lists(st.sampled_from([100, 250, 500, 750, 1000, 2000]), max_size=6)


@given(pieces=PIECES, out=st.frozensets(st.integers(0, 3)), wanted=st.sampled_from([100, 500, 1000, 2000, 4000]))
def test_no_job_starts_on_a_gpu_that_is_out_or_full(pieces: list[int], out: frozenset[int], wanted: int) -> None:
    free, running = [1000] * 4, []
    for number, milli in enumerate(pieces, 1):
        needed, part = max(milli // 1000, 1), min(milli, 1000)
        gpus = tuple(gpu for gpu in range(4) if free[gpu] >= part)[:needed]
        if len(gpus) < needed:
            continue
        for gpu in gpus:
            free[gpu] -= part
        running.append(RunningJob(ROWS.row(number, asks(milli, gpu_memory_mib=1), 0.0, 0.0), 0.0, gpus))
    snapshot = VIEWS.build(1.0, [ROWS.row(99, asks(wanted, gpu_memory_mib=1), 0.0, 0.0)], running, GpuView(out))
    for job in running:
        assert snapshot.gpus_of(int(job.row[0])) == job.gpus
    usable = [gpu for gpu in range(4) if gpu not in out and free[gpu] >= min(wanted, 1000)]
    try:
        taken = snapshot.after(Start(99)).gpus_of(99)
    except IllegalAction:
        assert len(usable) < max(wanted // 1000, 1)
    else:
        assert set(taken) <= set(usable)
    for gpu in range(4):
        if wanted <= 1000 and gpu not in usable:
            with pytest.raises(IllegalAction):
                snapshot.after(Start(99, (gpu,)))
    assert not any(array.flags.writeable for array in (snapshot.jobs, snapshot.gpus, snapshot.totals))
    assert np.isfinite(snapshot.gpu_load).all()
