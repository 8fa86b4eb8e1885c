"""A node behind the Cluster protocol: real processes on the GPUs of a fake driver."""

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.agents.registry import make_policy
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import IllegalAction, JobError, JournalFull
from lepton_rl.node.cluster import PROCESSES_AGE_S, NodeRules
from lepton_rl.node.daemon import decide_for_ever
from lepton_rl.node.explain import explain
from lepton_rl.node.guard import GuardRules
from lepton_rl.node.jobs import FINAL, JobState
from lepton_rl.node.ledger import Reservation
from lepton_rl.node.lifecycle import GpuState
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace
from tests.fake_nvml import FakeNvml
from tests.node.conftest import shell, until
from tests.node.live import PATIENT, LiveNode

RESTARTABLE = (
    "trap 'echo saved > ckpt.$LEPTON_JOB_ID; exit 0' USR1; test -f ckpt.$LEPTON_JOB_ID && echo resumed; echo ready; "
    "while :; do sleep 0.02; done"
)
EASY = {"name": "fcfs", "blocking": "easy"}


@pytest.fixture
def node(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[LiveNode]:
    """A node with four GPUs that take work."""
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        yield node.ready()


def restart(node: LiveNode, library: Path) -> LiveNode:
    """End a daemon and start the next one on the same state."""
    node.close()
    return LiveNode(node.folder, node.fake, library)


def test_a_job_runs_on_the_gpus_that_it_was_given_and_frees_them(node: LiveNode) -> None:
    job = node.submit("echo $CUDA_VISIBLE_DEVICES; exit 3", gpu_milli=2000)
    assert node.cluster.snapshot().queue.id.tolist() == [job]
    node.cluster.apply(Start(job, (1, 3)))
    assert node.cluster.snapshot().gpus_of(job) == (1, 3)
    found = node.wait_for(job, JobState.FAILED)
    assert found.exit_code == 3
    uuids = node.cluster.hardware.uuids
    assert node.output(job).read_text().split() == [f"{uuids[1]},{uuids[3]}"]
    node.ready()
    assert len(node.cluster.snapshot().jobs) == 0


def test_numpys_numbers_do_as_well_as_pythons(node: LiveNode) -> None:
    job = node.submit(PATIENT)
    node.cluster.apply(Start(np.int64(job), (np.int32(2),)))  # type: ignore[arg-type]
    node.running(job)
    assert node.gpus_of(job) == (2,)
    assert (node.folder / "jobs" / str(job) / "1" / "stdout").exists()


@pytest.mark.parametrize(
    ("action", "why"),
    [
        (Start(99), "neither waiting nor running"),
        (Start(1, (0, 1)), "needs 1 different GPUs"),
        (Start(1, (4,)), "there is no GPU 4"),
        (Start(1, (-1,)), "by its number, not -1"),
        (Preempt(1), "waiting, not running"),
        (Migrate(1, (1,)), "waiting, not running"),
        (SetPowerLimit(0, 300.0), "sets no power limits"),
        (SetPowerLimit(0, 5.0), "outside the range"),
        (SetPowerLimit(0, float("nan")), "no number of watts"),
        ("start everything", "is not an action"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(action: Action, why: str, node: LiveNode) -> None:
    job = node.submit("true")
    assert job == 1
    with pytest.raises(IllegalAction, match=why):
        node.cluster.apply(action)
    assert node.job(job).state is JobState.WAITING
    assert node.journal.holding() == []


def test_a_job_that_no_gpu_here_can_ever_run_is_refused(node: LiveNode) -> None:
    with pytest.raises(JobError, match=r"can ever run a job that asks for 5 GPUs"):
        node.cluster.check(shell("true", gpu_milli=5000))
    with pytest.raises(JobError, match=r"can ever run a job that asks for 1 GPU, 100 GiB of GPU memory"):
        node.cluster.check(shell("true", gpu_memory_mib=100 * 1024))
    with pytest.raises(JobError, match="at least a share of a GPU"):
        node.cluster.check(shell("true", gpu_milli=0))


def test_shares_of_one_gpu_run_side_by_side_and_a_gang_waits_for_whole_ones(node: LiveNode) -> None:
    halves = [node.submit(PATIENT, gpu_milli=500) for _ in range(2)]
    gang = node.submit(PATIENT, gpu_milli=4000)
    for job in halves:
        node.cluster.apply(Start(job, (0,)))
    for job in halves:
        node.running(job)
    assert node.state(0) is GpuState.ALLOCATED
    with pytest.raises(IllegalAction, match=f"job {gang} needs 4 GPUs"):
        node.cluster.apply(Start(gang))
    more = node.submit(PATIENT, gpu_milli=500)
    with pytest.raises(IllegalAction, match=f"job {more} needs 0.5 of GPU 0, 0 is free"):
        node.cluster.apply(Start(more, (0,)))
    node.cluster.cancel(halves[0], "enough")
    node.wait_for(halves[0], JobState.CANCELLED)
    assert node.state(0) is GpuState.ALLOCATED  # by the other half
    node.until(lambda: node.cluster.snapshot().gpu_load[0] == 0.5, "half a free GPU")
    node.cluster.cancel(halves[1], "enough")
    node.ready()
    node.cluster.apply(Start(gang))
    node.running(gang)
    assert node.gpus_of(gang) == (0, 1, 2, 3)


def test_a_preempted_job_saves_itself_waits_and_runs_again_under_its_number(node: LiveNode) -> None:
    job = node.submit(RESTARTABLE, restartable=True, cwd=str(node.folder))
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    node.cluster.apply(Preempt(job))
    assert node.cluster.snapshot().queue.id.tolist() == [job]
    node.wait_for(job, JobState.WAITING)
    node.ready()
    node.cluster.apply(Start(job, (3,)))
    node.running(job)
    assert (node.job(job).run, node.gpus_of(job, 1), node.gpus_of(job, 2)) == (2, (0,), (3,))
    assert "resumed" in node.output(job).read_text()
    assert node.cluster.snapshot().service[0] > 0.0


def test_a_job_is_moved_with_its_number_even_onto_a_gpu_of_its_own(node: LiveNode) -> None:
    job = node.submit(RESTARTABLE, restartable=True, cwd=str(node.folder), gpu_milli=2000)
    node.cluster.apply(Start(job, (0, 1)))
    node.running(job)
    node.cluster.apply(Migrate(job, (1, 2)))
    other = node.submit("true")
    node.cluster.decide()
    with pytest.raises(IllegalAction, match="GPU 2 is down"):  # it is kept for the one that moves
        node.cluster.apply(Start(other, (2,)))
    node.until(lambda: node.job(job).run == 2, "the second run")
    node.running(job)
    assert node.gpus_of(job) == (1, 2)
    assert "resumed" in node.output(job).read_text()
    assert node.job(other).state is JobState.WAITING


def test_a_moved_job_whose_new_gpu_falls_ill_waits_like_others(node: LiveNode) -> None:
    slow = "trap 'until test -e go; do sleep 0.02; done; exit 0' USR1; echo ready; while :; do sleep 0.02; done"
    job = node.submit(slow, restartable=True, cwd=str(node.folder))
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    node.cluster.apply(Migrate(job, (1,)))
    node.fake.lose(1)
    node.until(lambda: node.state(1) is GpuState.LOST, "a lost GPU")
    (node.folder / "go").touch()
    node.wait_for(job, JobState.WAITING)
    node.until(lambda: job in node.cluster.snapshot().queue.id, "the job in the queue")
    assert node.job(job).run == 1


def test_a_move_that_cannot_be_written_keeps_no_gpu(node: LiveNode) -> None:
    job = node.submit(RESTARTABLE, restartable=True, cwd=str(node.folder))
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(JournalFull):
            node.cluster.apply(Migrate(job, (2,)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert node.cluster.state.unavailable() == []
    node.cluster.apply(Migrate(job, (2,)))
    node.until(lambda: node.job(job).run == 2, "the second run")
    node.running(job)
    assert node.gpus_of(job) == (2,)


@pytest.mark.parametrize("action", [Preempt, Migrate])
def test_a_job_that_is_not_restartable_is_never_stopped(action: Callable[[int], Action], node: LiveNode) -> None:
    job = node.submit(PATIENT)
    node.cluster.apply(Start(job))
    node.running(job)
    with pytest.raises(IllegalAction, match=f"the policy wants to stop job {job}, which is not declared restartable"):
        node.cluster.apply(action(job))
    assert node.job(job).state is JobState.RUNNING


def test_what_a_preempted_job_has_not_left_is_not_given_away(node: LiveNode) -> None:
    slow = "trap 'sleep 0.3; exit 0' USR1; echo ready; while :; do sleep 0.02; done"
    first = node.submit(slow, restartable=True)
    second = node.submit("echo $LEPTON_JOB_ID >> order", cwd=str(node.folder), restartable=True)
    node.cluster.apply(Start(first, (0,)))
    node.running(first)
    node.cluster.apply(Preempt(first))
    node.cluster.apply(Start(second, (0,)))  # legal on paper: put off until the GPU is left
    node.cluster.apply(Start(first, (1,)))  # and so is this
    node.cluster.apply(Preempt(second))  # which has not begun
    assert node.job(second).state is JobState.WAITING
    node.wait_for(first, JobState.WAITING)
    assert node.job(first).run == 1
    node.ready()
    node.cluster.apply(Start(second, (0,)))
    node.wait_for(second, JobState.DONE)


def test_cancelling_waiting_running_and_ended_jobs(node: LiveNode) -> None:
    waits, runs = node.submit(PATIENT), node.submit(PATIENT)
    assert node.cluster.cancel(waits, "enough") is JobState.CANCELLED
    node.cluster.apply(Start(runs))
    node.running(runs)
    assert node.cluster.cancel(runs, "enough") is JobState.STOPPING
    assert node.wait_for(runs, JobState.CANCELLED).reason == "enough"
    with pytest.raises(IllegalAction, match=f"job {runs} is cancelled already"):
        node.cluster.cancel(runs, "again")
    with pytest.raises(JobError, match="there is no job 77"):
        node.cluster.cancel(77, "unknown")


def test_a_moving_job_can_be_cancelled_and_its_gpus_come_free(node: LiveNode) -> None:
    job = node.submit(RESTARTABLE, restartable=True, cwd=str(node.folder))
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    node.cluster.apply(Migrate(job, (1,)))
    node.cluster.cancel(job, "enough")
    node.wait_for(job, JobState.CANCELLED)
    node.ready()
    assert node.cluster.snapshot().free_gpus == 4


def test_a_drained_gpu_takes_no_work_until_it_is_resumed_by_whichever_daemon(
    node: LiveNode, fake_library: Path
) -> None:
    uuid = node.cluster.hardware.uuids[0]
    running = node.submit(PATIENT)
    node.cluster.apply(Start(running, (0,)))
    node.running(running)
    node.cluster.drain(uuid, "the fan is loud")
    assert (node.state(0), node.reason(0)) == (GpuState.DRAINED, "the fan is loud")
    assert node.job(running).state is JobState.RUNNING
    node.fake.inject_xid(0, 79)
    node.until(lambda: "XID 79" in node.reason(0), "the XID in the reason")
    node.cluster.cancel(running, "enough")
    node.wait_for(running, JobState.CANCELLED)
    with restart(node, fake_library) as later:
        later.until(lambda: later.state(1) is GpuState.AVAILABLE, "the other GPUs")
        assert (later.state(0), later.reason(0)) == (GpuState.DRAINED, "the fan is loud")
        job = later.submit("true")
        with pytest.raises(IllegalAction, match="GPU 0 is down"):
            later.cluster.apply(Start(job, (0,)))
        later.cluster.resume(uuid)
        later.ready()
        later.cluster.apply(Start(job, (0,)))
        later.wait_for(job, JobState.DONE)


def test_a_strangers_process_keeps_jobs_off_its_gpu(node: LiveNode) -> None:
    job = node.submit("true")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        node.fake.add_process(1, stranger.pid, 3 << 30)
        node.until(lambda: node.state(1) is GpuState.FOREIGN, "a foreign process")
        assert str(stranger.pid) in node.reason(1)
        assert node.cluster.snapshot().free_gpus == 3
        assert any("GPU 1 is foreign" in line for line in node.cluster.state.unavailable())
        stranger.communicate(b"\n")
    node.ready()
    node.cluster.apply(Start(job, (1,)))
    node.wait_for(job, JobState.DONE)


def test_a_jobs_own_processes_are_no_strangers_even_without_its_variables(node: LiveNode) -> None:
    job = node.submit("env -i sleep 1000 & echo $! > pid; echo ready; wait", cwd=str(node.folder))
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    pid = int((node.folder / "pid").read_text())
    node.until(lambda: Path(f"/proc/{pid}/environ").read_bytes() == b"", "a child without variables")
    node.fake.add_process(0, pid, 7 << 30)
    seen = node.telemetry.refresh()
    assert [process.pid for process in seen.device(node.fake.uuid(0)).processes or ()] == [pid]
    node.turn()
    assert node.state(0) is GpuState.ALLOCATED
    node.cluster.cancel(job, "enough")
    node.wait_for(job, JobState.CANCELLED)
    node.ready()
    assert node.journal.run(job).peak_gpu_memory_mib == 7 * 1024


def test_an_ended_jobs_gpu_is_releasing_until_its_memory_is_free(node: LiveNode, fake_library: Path) -> None:
    job = node.submit("true")
    node.cluster.apply(Start(job, (2,)))
    node.fake.set(2, memory_other_bytes=5 << 30)
    node.wait_for(job, JobState.DONE)
    node.until(lambda: "5120 MiB" in node.reason(2), "the reason")
    assert node.state(2) is GpuState.RELEASING
    other = node.submit("true")
    with pytest.raises(IllegalAction, match="GPU 2 is down"):
        node.cluster.apply(Start(other, (2,)))
    node.fake.set(2, memory_other_bytes=0)
    node.ready()


def test_a_restarted_daemon_still_waits_for_the_memory_to_be_free(node: LiveNode, fake_library: Path) -> None:
    job = node.submit("true")
    node.cluster.apply(Start(job, (2,)))
    node.fake.set(2, memory_other_bytes=5 << 30)
    node.wait_for(job, JobState.DONE)
    node.until(lambda: node.state(2) is GpuState.RELEASING, "a releasing GPU")
    with restart(node, fake_library) as later:
        later.until(lambda: "5120 MiB" in later.reason(2), "the reason")
        node.fake.set(2, memory_other_bytes=0)
        later.ready()


@pytest.mark.parametrize(
    ("befall", "state", "reason"),
    [
        (lambda fake: fake.lose(0), GpuState.LOST, "fallen off the bus"),
        (lambda fake: fake.inject_xid(0, 95), GpuState.UNHEALTHY, "XID 95"),
        (lambda fake: fake.set(0, ecc_uncorrected=3), GpuState.UNHEALTHY, "3 uncorrectable memory errors"),
    ],
)
def test_a_gpu_that_falls_ill_under_a_job_takes_no_new_work_and_says_why(
    befall: Callable[[FakeNvml], None], state: GpuState, reason: str, node: LiveNode
) -> None:
    job, other = node.submit(PATIENT), node.submit("true")
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    befall(node.fake)
    node.until(lambda: node.state(0) is state, "the state")
    assert reason in node.reason(0)
    assert node.job(job).state is JobState.RUNNING  # what becomes of it is its own affair
    node.cluster.cancel(job, "it hangs")
    node.wait_for(job, JobState.CANCELLED)
    assert node.state(0) is state
    with pytest.raises(IllegalAction, match="GPU 0 is down"):
        node.cluster.apply(Start(other, (0,)))
    node.cluster.apply(Start(other))
    node.wait_for(other, JobState.DONE)
    assert node.gpus_of(other) == (1,)


def test_an_application_fault_costs_the_gpu_nothing(node: LiveNode) -> None:
    node.fake.inject_xid(0, 31)
    node.until(lambda: any(event.xid == 31 for event in node.telemetry.latest().events), "the event")
    node.turn()
    assert node.state(0) is GpuState.AVAILABLE


def test_a_gpu_that_is_not_what_it_says_is_not_accepted(
    tmp_path: Path, four_gpus: FakeNvml, fake_library: Path
) -> None:
    four_gpus.set(1, ecc_uncorrected=2)
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        node.until(lambda: node.state(0) is GpuState.AVAILABLE, "the good GPU")
        assert node.state(1) is GpuState.UNVERIFIED
        assert "2 uncorrectable memory errors" in node.reason(1)
        four_gpus.set(1, ecc_uncorrected=0)
        node.ready()


def test_a_job_that_begins_later_waits_for_its_time(node: LiveNode) -> None:
    node.under(make_policy(EASY), make_policy(EASY))
    begin = time.time() + 2.0
    job = node.submit("true", begin_time=begin)
    assert job not in node.cluster.snapshot().queue.id
    node.wait_for(job, JobState.DONE)
    started = node.journal.run(job).started_time
    assert started is not None
    assert started >= begin


def test_a_time_to_begin_that_passed_while_the_node_was_held_up_is_not_missed(node: LiveNode) -> None:
    begin = time.time() + 0.2
    job = node.submit("true", begin_time=begin)
    assert job not in node.cluster.snapshot().queue.id
    time.sleep(begin + 2.2 - time.time())  # a disk that does not answer, say
    node.cluster.tick()
    assert job in node.cluster.snapshot().queue.id


def test_gpus_with_a_reservation_ahead_take_no_job_that_would_run_into_it(node: LiveNode) -> None:
    now, uuids = time.time(), node.cluster.hardware.uuids
    ahead = Reservation(
        uid=0, user="ada", project="", gpu_uuids=uuids[2:], begin_time=now + 3600.0, end_time=now + 7200.0
    )
    number = node.journal.ledger.reserve(ahead)
    long = node.submit("true", requested_s=5000.0)
    node.cluster.decide()
    assert node.cluster.snapshot().free_gpus == 2
    assert any("GPU 3 is reserved from " in line for line in node.cluster.state.unavailable(node.job(long)))
    node.cluster.cancel(long, "enough")
    short = node.submit("true", requested_s=60.0, gpu_milli=4000)
    assert node.cluster.snapshot().free_gpus == 4
    node.cluster.apply(Start(short))
    node.wait_for(short, JobState.DONE)
    node.journal.ledger.cancel_reservation(number, time.time())


def test_a_long_job_that_waits_for_a_reservation_holds_up_no_short_one(node: LiveNode) -> None:
    guard = node.under(make_policy(EASY), make_policy(EASY))
    now, uuids = time.time(), node.cluster.hardware.uuids
    node.journal.ledger.reserve(
        Reservation(uid=0, user="ada", project="", gpu_uuids=uuids, begin_time=now + 3600.0, end_time=now + 7200.0)
    )
    long, unsaid = node.submit("true", requested_s=7200.0), node.submit("true")
    short = node.submit("true", requested_s=5.0)
    node.wait_for(short, JobState.DONE)
    assert [node.job(job).state for job in (long, unsaid)] == [JobState.WAITING] * 2
    assert sum(count for name, count in guard.counts.items() if name.startswith("fallback")) == 0
    why = [explain(node.job(job), node.cluster, guard)["unavailable"][-1] for job in (long, unsaid)]
    clock = node.cluster.journal.ledger.reservations(now)[0].begin_time
    begin = time.strftime("%H:%M", time.localtime(clock))
    assert why[0].endswith(f"{begin} for ada: this job asks for 2 h and would run into it")
    assert why[1].endswith(f"{begin} for ada: this job asks for no --time, which counts as 1 d, and would run into it")


def test_short_jobs_leave_the_other_gpus_to_a_long_one(node: LiveNode) -> None:
    node.under(make_policy("fcfs"), make_policy("fcfs"))
    now, uuids = time.time(), node.cluster.hardware.uuids
    node.journal.ledger.reserve(
        Reservation(uid=0, user="ada", project="", gpu_uuids=uuids[2:], begin_time=now + 3600.0, end_time=now + 7200.0)
    )
    runs = node.submit(PATIENT, requested_s=7200.0)
    node.running(runs)
    long = node.submit(PATIENT, gpu_milli=2000, requested_s=7200.0)  # one of its two GPUs is in use
    short = [node.submit(PATIENT, requested_s=5.0) for _ in range(4)]
    for job in short[:2]:
        node.running(job)
    assert sorted(gpu for job in short[:2] for gpu in node.gpus_of(job)) == [2, 3]
    assert [node.job(job).state for job in (long, *short[2:])] == [JobState.WAITING] * 3
    node.cluster.cancel(runs, "enough")
    node.running(long)
    assert node.gpus_of(long) == (0, 1)


def test_a_short_job_that_starves_goes_before_long_ones(node: LiveNode) -> None:
    fcfs = make_policy({"name": "fcfs", "blocking": "skip"})
    node.under(fcfs, make_policy(EASY), GuardRules(starving_floor_s=0.0, starving_factor=0.0))
    now, uuids = time.time(), node.cluster.hardware.uuids
    node.journal.ledger.reserve(
        Reservation(uid=0, user="ada", project="", gpu_uuids=uuids[2:], begin_time=now + 3600.0, end_time=now + 7200.0)
    )
    short = node.submit("true", requested_s=5.0, gpu_milli=3000)
    node.submit(PATIENT, requested_s=7200.0)
    node.wait_for(short, JobState.DONE)


class IntoReservations:
    """Starts every job on the last GPU."""

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Start the first job that waits."""
        return [Start(int(job), (3,)) for job in snapshot.queue.id[:1]]


def test_a_policy_that_would_run_into_a_reservation_is_refused(node: LiveNode) -> None:
    now, uuids = time.time(), node.cluster.hardware.uuids
    job = node.submit("true", requested_s=7200.0)
    seen = node.cluster.snapshot()
    node.journal.ledger.reserve(
        Reservation(uid=0, user="ada", project="", gpu_uuids=uuids[3:], begin_time=now + 3600.0, end_time=now + 7200.0)
    )
    node.cluster.decide()
    guard = node.under(IntoReservations(), make_policy(EASY))
    assert list(guard.decide(seen)) == [Start(job, (0,))]
    assert guard.counts["fallback_illegal"] == 1
    with pytest.raises(IllegalAction, match=f"job {job}: GPU 3 is reserved from .* would run into it"):
        node.cluster.steps.allowance().check(Start(job, (3,)), seen.after(Start(job, (3,))), "it")


def test_a_reserved_gpu_is_kept_until_the_reservation_ends(node: LiveNode) -> None:
    now, uuids = time.time(), node.cluster.hardware.uuids
    short = Reservation(uid=0, user="ada", project="", gpu_uuids=uuids[3:], begin_time=now, end_time=now + 1.5)
    node.journal.ledger.reserve(short)
    node.cluster.look()
    assert (node.state(3), node.reason(3)) == (GpuState.RESERVED, "reserved for ada until its end")
    assert node.cluster.snapshot().free_gpus == 3
    node.ready()
    assert time.time() >= now + 1.5


def test_a_reserved_gpu_runs_the_jobs_of_whom_it_is_reserved_for_and_no_other(node: LiveNode) -> None:
    guard = node.under(make_policy(EASY), make_policy(EASY))
    now, uuids = time.time(), node.cluster.hardware.uuids
    theirs = Reservation(uid=0, user="ada", project="", gpu_uuids=uuids[2:], begin_time=now, end_time=now + 3600.0)
    node.journal.ledger.reserve(theirs)
    node.cluster.look()
    others = [node.submit("true", user="bob", gpu_milli=milli) for milli in (3000, 500)]
    ada = [node.submit("true", user="ada", gpu_milli=milli) for milli in (2000, 3000)]

    def close_when_done() -> None:
        if all(node.job(job).state is JobState.DONE for job in (others[1], ada[0])):
            node.cluster.close()

    node.cluster.on_change = close_when_done
    decide_for_ever(node.cluster, guard)
    assert node.gpus_of(ada[0]) == (2, 3)
    assert set(node.gpus_of(others[1])) <= {0, 1}
    assert [node.job(job).state for job in (others[0], ada[1])] == [JobState.WAITING] * 2


def test_energy_is_metered_for_each_run(node: LiveNode) -> None:
    node.fake.set(0, power_mw=300_000)
    halves = [node.submit(PATIENT, gpu_milli=milli) for milli in (250, 750)]
    for job in halves:
        node.cluster.apply(Start(job, (0,)))
    for job in halves:
        node.running(job)
    before = node.fake.energy_mj(0)
    node.until(lambda: node.fake.energy_mj(0) > before + 300_000, "a second at 300 W")
    for job in halves:
        node.cluster.cancel(job, "enough")
        node.wait_for(job, JobState.CANCELLED)
    drawn = node.fake.energy_mj(0) - before
    small, large = (node.journal.run(job).energy_mj or 0 for job in halves)
    assert 0.5 * drawn < small + large < 1.5 * drawn
    assert 0.2 < small / (small + large) < 0.4  # a quarter, but for the beginning and the end


def test_how_busy_a_run_keeps_the_gpus_that_it_has_to_itself(node: LiveNode) -> None:
    node.fake.set(0, utilisation_percent=20)
    node.fake.set(1, utilisation_percent=60)
    node.fake.set(2, utilisation_percent=90)
    last = node.fake.uuid(2)
    node.until(lambda: node.telemetry.refresh().device(last).filtered.utilisation == 0.9, "the filter to follow")
    alone = node.submit(PATIENT, gpu_milli=2000)
    halves = [node.submit(PATIENT, gpu_milli=500) for _ in range(2)]
    node.cluster.apply(Start(alone, (0, 1)))
    for job in halves:
        node.cluster.apply(Start(job, (2,)))
    for job in (alone, *halves):
        node.running(job)

    def samples() -> int:
        node.cluster.gpus.write_use()
        return node.journal.run(alone).gpu_samples or 0

    node.until(lambda: samples() >= 8, "eight readings")
    assert node.journal.run(alone).gpu_utilisation == pytest.approx(0.4, abs=0.05)
    # Of a GPU that two share, nobody can say: the first of them may have had it alone for a moment.
    assert node.journal.run(halves[1]).gpu_utilisation is None


def test_what_a_run_has_used_is_not_lost_with_the_daemon(node: LiveNode, fake_library: Path) -> None:
    job = node.submit(PATIENT)
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    before = node.fake.energy_mj(0)
    node.until(lambda: node.fake.energy_mj(0) > before + 20_000, "some energy")
    with restart(node, fake_library) as later:
        used = later.journal.run(job).energy_mj or 0
        assert used > 0
        later.cluster.cancel(job, "enough")
        later.wait_for(job, JobState.CANCELLED)
        assert (later.journal.run(job).energy_mj or 0) >= used


def test_the_next_daemon_finds_what_runs_and_what_waits(node: LiveNode, fake_library: Path) -> None:
    runs, waits = node.submit(PATIENT, gpu_milli=2000), node.submit("true")
    node.cluster.apply(Start(runs, (1, 2)))
    node.running(runs)
    with restart(node, fake_library) as later:
        snapshot = later.cluster.snapshot()
        assert (snapshot.running.id.tolist(), snapshot.queue.id.tolist()) == ([runs], [waits])
        assert snapshot.gpus_of(runs) == (1, 2)
        later.until(lambda: later.state(0) is GpuState.AVAILABLE, "a free GPU")
        later.cluster.apply(Start(waits, (0,)))
        later.wait_for(waits, JobState.DONE)
        later.cluster.cancel(runs, "enough")
        later.wait_for(runs, JobState.CANCELLED)


def test_a_run_on_a_gpu_that_is_gone_does_not_stop_the_node(node: LiveNode, fake_library: Path) -> None:
    runs = node.submit(PATIENT, gpu_milli=2000)
    node.cluster.apply(Start(runs, (2, 3)))
    node.running(runs)
    node.close()
    with FakeNvml(node.fake.path, gpus=3) as fewer, LiveNode(node.folder, fewer, fake_library) as later:
        job = later.submit("true")
        later.until(lambda: later.state(0) is GpuState.AVAILABLE, "a free GPU")
        assert later.cluster.snapshot().free_gpus == 2  # the third is in use by the run
        later.cluster.apply(Start(job))
        later.wait_for(job, JobState.DONE)
        later.cluster.cancel(runs, "enough")
        later.wait_for(runs, JobState.CANCELLED)


def test_the_loop_of_policy_and_cluster_ends_when_the_daemon_does(node: LiveNode) -> None:
    guard = node.under(make_policy(EASY), make_policy(EASY))
    jobs = [node.submit("true") for _ in range(6)]

    def close_when_done() -> None:
        if all(node.job(job).state is JobState.DONE for job in jobs):
            node.cluster.close()

    node.cluster.on_change = close_when_done
    decide_for_ever(node.cluster, guard)
    assert [node.job(job).state for job in jobs] == [JobState.DONE] * 6


def test_a_node_explains_why_a_job_waits(node: LiveNode) -> None:
    guard = node.under(make_policy(EASY), make_policy(EASY))
    runs = node.submit(PATIENT, gpu_milli=3000, requested_s=100.0)
    node.running(runs)
    waits = node.submit("true", gpu_milli=2000, requested_s=50.0)
    node.fake.lose(3)
    node.until(lambda: node.state(3) is GpuState.LOST, "a lost GPU")
    found = explain(node.job(waits), node.cluster, guard)
    assert "needs 2 GPUs" in found["why"]
    assert f"job {runs} has ended, in about" in found["starts_when"]
    assert found["unavailable"] == [
        "GPU 3 is lost: the GPU has fallen off the bus; it is out until the machine reboots"
    ]
    assert explain(node.job(runs), node.cluster, guard)["why"] == "it is running on its run 1"


def sizes_and_times() -> list[tuple[int, float]]:
    """Return GPUs and requested seconds of jobs among which order and blocking matter."""
    return [(2, 400.0), (3, 300.0), (1, 90.0), (4, 50.0), (1, 500.0), (2, 20.0), (1, 70.0), (3, 10.0)]


@pytest.mark.parametrize(
    "policy", [{"name": "sjf"}, {"name": "fcfs"}, EASY, {"name": "saf", "blocking": "skip"}], ids=str
)
def test_a_heuristic_starts_jobs_in_the_same_order_as_in_the_simulator(policy: dict[str, str], node: LiveNode) -> None:
    jobs = sizes_and_times()
    columns = {"submit_time": [0.0] * len(jobs), "run_time": [time for _, time in jobs]}
    columns |= {"requested_time": [time for _, time in jobs], "gpus": [float(gpus) for gpus, _ in jobs]}
    simulated = SimulatedCluster(Trace.from_columns(columns, name="same"), node.cluster.hardware.cluster)
    heuristic = make_policy(policy)
    expected: list[tuple[int, tuple[int, ...]]] = []
    assert simulated.advance()
    for action in heuristic.decide(simulated.snapshot()):
        assert isinstance(action, Start)
        simulated.apply(action)
        expected.append((action.job, simulated.gpus_of(action.job)))
    numbers = [node.submit(PATIENT, gpu_milli=1000 * gpus, requested_s=seconds) for gpus, seconds in jobs]
    started = []
    for action in heuristic.decide(node.cluster.snapshot()):
        assert isinstance(action, Start)
        node.cluster.apply(action)
        started.append((numbers.index(action.job), node.gpus_of(action.job)))
    assert started == expected
    assert len(started) > 0


def test_the_whole_order_of_one_gpus_jobs_is_the_simulators(node: LiveNode) -> None:
    requested = [50.0, 10.0, 40.0, 30.0, 20.0]
    columns = {"submit_time": [0.0] * 5, "run_time": requested, "requested_time": requested, "gpus": [4.0] * 5}
    simulated = SimulatedCluster(Trace.from_columns(columns, name="same"), node.cluster.hardware.cluster)
    heuristic, expected = make_policy("sjf"), []
    while simulated.advance():
        for action in heuristic.decide(simulated.snapshot()):
            assert isinstance(action, Start)
            simulated.apply(action)
            expected.append(action.job)
    numbers = [node.submit("true", gpu_milli=4000, requested_s=seconds) for seconds in requested]
    node.under(heuristic, make_policy(EASY))
    node.until(lambda: all(node.job(job).state in FINAL for job in numbers), "the end of all")
    order = sorted(numbers, key=lambda job: node.journal.run(job).starting_time)
    assert [numbers.index(job) for job in order] == expected


class Stubborn:
    """A policy that always wants what cannot be."""

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Start a job that is not there."""
        return [Start(12_345)]


def test_jobs_run_whatever_the_policy_wants(node: LiveNode) -> None:
    guard = node.under(Stubborn(), make_policy(EASY))
    job = node.submit("true")
    node.wait_for(job, JobState.DONE)
    assert guard.counts["fallback_illegal"] > 0


def test_rules_reach_the_policy(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    rules = NodeRules(restart_cost=12.0, quantum=34.0, default_time_s=56.0)
    with LiveNode(tmp_path, four_gpus, fake_library, rules) as node:
        node.submit("true")
        snapshot = node.cluster.snapshot()
        assert (snapshot.restart_cost, snapshot.quantum, snapshot.queue.requested_time.tolist()) == (12.0, 34.0, [56.0])


def test_a_full_disk_stops_no_job_and_its_end_is_written_once_there_is_room(node: LiveNode) -> None:
    os.mkfifo(node.folder / "fifo")
    job = node.submit("read line < fifo", cwd=str(node.folder))
    node.cluster.apply(Start(job))
    node.wait_for(job, JobState.RUNNING)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        (node.folder / "fifo").write_text("go\n")
        ended = node.folder / "jobs" / str(job) / "1" / "exit.json"
        node.until(ended.exists, "the supervisor's last word")
        for _ in range(20):
            node.turn()
        assert node.job(job).state is JobState.RUNNING
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    node.wait_for(job, JobState.DONE)


def age_of_list(node: LiveNode) -> float:
    """Return how many seconds ago the driver listed processes."""
    listed_at = node.telemetry.latest().devices[0].processes_at
    assert listed_at is not None
    return time.monotonic() - listed_at


def test_a_stranger_that_came_since_the_last_look_is_seen_before_a_start(
    tmp_path: Path, four_gpus: FakeNvml, fake_library: Path
) -> None:
    with LiveNode(tmp_path, four_gpus, fake_library, telemetry_s=3600.0) as node:
        node.ready()
        job = node.submit("true")
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
            four_gpus.add_process(0, stranger.pid, 3 << 30)
            until(lambda: age_of_list(node) > PROCESSES_AGE_S, "a list of processes that is old")
            with pytest.raises(IllegalAction, match=rf"GPU 0 is foreign now: process {stranger.pid} of .+ uses it"):
                node.cluster.apply(Start(job, (0,)))
            stranger.communicate(b"\n")
        assert node.job(job).state is JobState.WAITING
        node.cluster.apply(Start(job, (1,)))
        node.wait_for(job, JobState.DONE)


def test_a_node_answers_between_the_starts_of_one_decision(node: LiveNode) -> None:
    guard = node.under(make_policy(EASY), make_policy(EASY))
    jobs = [node.submit("true", gpu_milli=100) for _ in range(12)]
    begun: list[int] = []

    async def ask() -> None:
        """See how many jobs have been started each time that the loop turns, until all have been."""
        while len(begun) == 0 or begun[-1] < len(jobs):
            begun.append(node.journal.runs_begun())
            await asyncio.sleep(0)
        node.cluster.close()

    asking = node.cluster.loop.create_task(ask())
    decide_for_ever(node.cluster, guard)
    assert asking.done()
    assert set(begun) >= set(range(len(jobs) + 1))


def test_a_daemon_that_is_told_to_end_starts_no_more_of_a_decision(node: LiveNode) -> None:
    guard = node.under(make_policy(EASY), make_policy(EASY))
    jobs = [node.submit("true", gpu_milli=100) for _ in range(12)]
    guard.on_verdict = lambda verdict, snapshot: node.cluster.close()
    decide_for_ever(node.cluster, guard)
    assert [node.job(job).state for job in jobs[1:]] == [JobState.WAITING] * 11
