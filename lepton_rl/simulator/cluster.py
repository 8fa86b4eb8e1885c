"""A simulated cluster behind the `Cluster` protocol: the face for policies written in Python."""

from dataclasses import replace

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Migrate, Preempt, Start
from lepton_rl.core.allocation import held_gpus
from lepton_rl.core.arrays import Floats
from lepton_rl.core.carrying_out import check_is_action, check_quantum, forget_rates, limit_power, move_gpus, take_gpus
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.marks import list_job, unlist_job
from lepton_rl.core.metrics import Outcome
from lepton_rl.core.placement import Placement
from lepton_rl.core.progress import begin_run, end_run
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import IllegalAction, counted
from lepton_rl.simulator.ends import remove_end
from lepton_rl.simulator.events import forget_true_end, move_to_next_event, set_true_end
from lepton_rl.simulator.heat import temperatures
from lepton_rl.simulator.rates import change_rates_now, forget_changes
from lepton_rl.simulator.rules import Rule, Timing
from lepton_rl.simulator.state import build_state, outcome_of
from lepton_rl.simulator.waiting import find, insert, remove
from lepton_rl.workloads import Trace


class SimulatedCluster:
    """Runs a trace, event by event. Jobs are named by their row in the trace (0 is the first submitted).

    Args:
        trace: The workload; times in seconds.
        cluster: The machine.
        placement: What `Start` without GPUs uses.
        timing: Preemption cost, quantum and timer.

    Raises:
        TraceError: a job of the trace can never run on this cluster.
    """

    def __init__(
        self,
        trace: Trace,
        cluster: ClusterSpec,
        placement: Placement = Placement.FIRST,
        timing: Timing | None = None,
    ) -> None:
        self.trace = trace
        self.placement = placement
        self.timing = timing or Timing()
        # The queue's own order is submission: policies bring their own.
        self._state = build_state(trace, cluster, Rule(placement=placement), self.timing)
        self.cluster = self._state.cluster
        self._migrations = np.zeros(len(trace), np.int64)

    @property
    def time(self) -> float:
        """Simulated time, seconds."""
        return float(self._state.clock[L.NOW])

    def advance(self) -> bool:
        """Move to the next event; return False when no job is waiting or running and none will come.

        Raises:
            IllegalAction: jobs wait on an idle cluster and nothing will ever happen again.
        """
        s = self._state
        self._change_rates()
        moved = move_to_next_event(
            s.jobs, s.truth, s.queue, s.run_end, s.run_job, s.gpus[0], s.nodes[0], s.bits[0], s.totals[0],
            s.hw, s.clock, s.counts, s.rules, s.settings,
        )  # fmt: skip
        if not moved and s.counts[L.BACK] > s.counts[L.FRONT]:
            waiting = int(s.counts[L.BACK] - s.counts[L.FRONT])
            raise IllegalAction(
                f"the policy leaves {counted(waiting, 'job')} waiting for ever on an idle cluster: it must start one"
            )
        return bool(moved)

    def snapshot(self) -> Snapshot:
        """Return what a scheduler can know now; later changes of the cluster do not reach it."""
        s = self._state
        self._change_rates()
        count = int(s.counts[L.RUNNING])
        running = np.sort(s.run_job[L.TRUE_ENDS, :count])
        waiting = s.queue[s.counts[L.FRONT] : s.counts[L.BACK]]
        jobs = s.jobs[np.concatenate((running, waiting))]
        arrays = (jobs, s.gpus[0].copy(), s.nodes[0].copy(), s.bits[0].copy(), s.totals[0].copy())
        arrays[-1][L.TOUCHED : L.TOTAL_COLUMNS] = -1
        if s.hw is not None:  # rows are others here
            arrays[0][:, [L.NEXT_SHARE, L.ON_GPU]] = -1.0
            forget_rates(arrays[0][count:])
            arrays[1][:, [L.RATED, L.FIRST_JOB]] = -1
        for array in arrays:
            array.setflags(write=False)
        jobs, gpus, nodes, bits, totals = arrays
        return Snapshot(
            time=self.time,
            cluster=self.cluster,
            placement=self.placement,
            restart_cost=self.timing.preemption_cost,
            quantum=self.timing.quantum,
            jobs=jobs,
            running_count=count,
            gpus=gpus,
            nodes=nodes,
            bits=bits,
            totals=totals,
            hw=s.hw,
            migration_cost=self.timing.migration_cost,
            temperatures=self._temperatures(),
        )

    def _temperatures(self) -> Floats | None:
        s = self._state
        if s.hw is None or len(s.hw.heat) == 0:
            return None
        degrees = np.empty(self.cluster.gpus)
        temperatures(s.gpus[0], s.nodes[0], s.hw, s.clock, s.clock[L.NOW], degrees)
        degrees.setflags(write=False)
        return degrees

    def apply(self, action: Action) -> None:
        """Carry the action out now.

        Raises:
            IllegalAction: it is not possible; nothing has changed.
        """
        check_is_action(action)
        if isinstance(action, Start):
            self._start(action)
        elif isinstance(action, Preempt):
            self._preempt(action)
        elif isinstance(action, Migrate):
            self._migrate(action)
        else:
            s = self._state
            limit_power(action, self.cluster, s.gpus[0], s.nodes[0], s.totals[0], s.hw)

    def _change_rates(self) -> None:
        """Let rates follow what was decided at this instant, once, as in a run without Python."""
        s = self._state
        if s.hw is not None and s.totals[0, L.STIRRED_GPUS] > 0:
            change_rates_now(
                s.jobs, s.truth, s.run_end, s.run_job, s.gpus[0], s.nodes[0], s.totals[0], s.hw, s.clock, s.counts,
                s.rules,
            )  # fmt: skip
            forget_changes(s.truth, s.run_job, s.hw, s.counts)  # nobody looks, and one instant may have any number

    def outcome(self) -> Outcome:
        """Return the record of the run; complete once `advance` has returned False."""
        return replace(outcome_of(self.trace, self._state), migrations=self._migrations.copy())

    def gpus_of(self, job: int) -> tuple[int, ...]:
        """Return the GPUs that a running job holds, in the order taken."""
        s = self._state
        self._check_known(job)
        if s.jobs[job, L.FIRST_GPU] < 0:
            raise IllegalAction(f"job {job} is not running")
        out = np.empty(self.cluster.gpus, np.int64)
        return tuple(out[: held_gpus(s.jobs, job, s.gpus[0], out)].tolist())

    def _check_known(self, job: int) -> None:
        if not isinstance(job, int | np.integer):
            raise IllegalAction(f"an action names its job by number, not {job!r}")
        if not 0 <= job < self._state.counts[L.ARRIVED]:
            raise IllegalAction(f"no job {job} has been submitted")
        if not np.isnan(self._state.truth[job, L.FINISH]):
            raise IllegalAction(f"job {job} has finished")
        if self._state.hw is not None and self._state.jobs[job, L.UNMET] > 0:
            raise IllegalAction(f"job {job} waits for jobs that it comes after to finish")

    def _start(self, action: Start) -> None:
        s = self._state
        job = action.job
        self._check_known(job)
        if s.jobs[job, L.FIRST_GPU] >= 0:
            raise IllegalAction(f"job {job} is running already")
        take_gpus(action, s.jobs, job, self.placement, s.gpus[0], s.nodes[0], s.bits[0], s.totals[0], s.hw)
        begin_run(s.jobs, job, s.clock[L.NOW], s.hw)
        remove(s.queue, s.counts, find(s.jobs, s.queue, s.counts, job))
        set_true_end(s.jobs, s.truth, job, s.gpus[0], s.hw, s.run_end, s.run_job, s.counts[L.RUNNING], s.clock)
        s.counts[L.RUNNING] += 1

    def _check_running(self, action: Preempt | Migrate) -> None:
        s = self._state
        self._check_known(action.job)
        if s.jobs[action.job, L.FIRST_GPU] < 0:
            raise IllegalAction(f"job {action.job} is waiting, not running")
        check_quantum(action, s.clock[L.NOW] - s.jobs[action.job, L.START], self.timing.quantum)

    def _preempt(self, action: Preempt) -> None:
        s = self._state
        job = action.job
        self._check_running(action)
        forget_true_end(
            s.jobs, s.truth, job, s.gpus[0], s.hw, s.run_end, s.run_job, s.counts[L.RUNNING], s.clock, s.settings
        )
        s.counts[L.RUNNING] -= 1
        end_run(
            s.jobs, job, self.timing.preemption_cost, s.clock[L.NOW], s.gpus[0], s.nodes[0], s.bits[0], s.totals[0],
            s.hw,
        )  # fmt: skip
        insert(s.jobs, s.queue, s.counts, job)

    def _migrate(self, action: Migrate) -> None:
        s = self._state
        job = action.job
        self._check_running(action)
        unlist_job(s.jobs, job, s.gpus[0], s.hw)
        try:
            service = move_gpus(
                action, s.jobs, job, self.placement, s.gpus[0], s.nodes[0], s.bits[0], s.totals[0], s.hw,
                s.clock[L.NOW], self.timing.migration_cost,
            )  # fmt: skip
        except IllegalAction:
            list_job(s.jobs, job, s.gpus[0], s.hw)
            raise
        s.truth[job, L.REMAINING] += self.timing.migration_cost - service
        running = s.counts[L.RUNNING]
        remove_end(s.run_end, s.run_job, running, job)
        set_true_end(s.jobs, s.truth, job, s.gpus[0], s.hw, s.run_end, s.run_job, running - 1, s.clock)
        self._migrations[job] += 1
