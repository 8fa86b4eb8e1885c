"""A snapshot as a learner decides on it: compiled encoding of what a scheduler sees, the same that environments use."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.allocation import copy_allocation, held_gpus
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64, Singles, Words
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit
from lepton_rl.core.machine import clock_columns, empty_cluster, power_levels_w
from lepton_rl.core.marks import list_job
from lepton_rl.core.placement import CONSOLIDATED
from lepton_rl.core.progress import predicted_end
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.envs.batch_kernel import SHOWN, TALLY_COLUMNS, observe
from lepton_rl.envs.choices import place_as_chosen, write_choices
from lepton_rl.envs.codec import Codec, as_observation, idle_share, node_entries, node_groups
from lepton_rl.envs.features import (
    CHANGING_COLUMNS,
    CONTEXT_FEATURES,
    STATIC_INPUTS,
    STATIC_LOGARITHMS,
    UNKNOWN_TIME,
    static_features,
)
from lepton_rl.envs.stopping import show_running, stop_job
from lepton_rl.envs.window import STATIC_COLUMNS, fact_columns
from lepton_rl.simulator.ends import add_prediction
from lepton_rl.simulator.heat import take_temperatures
from lepton_rl.simulator.rates import change_rates, forget_changes
from lepton_rl.simulator.scores import score
from lepton_rl.simulator.starting import book
from lepton_rl.simulator.waiting import fill, insert, remove


class Decision:
    """The decisions of one instant: observe, start a job, or stop one, observe again.

    Its arrays are room for snapshots of one cluster; a policy shows it one after the other.

    Attributes:
        observation: What the learner sees now; overwritten by `start` and `show`.
        wait_action: The action that waits for the next event.
    """

    def __init__(self, codec: Codec, cluster: ClusterSpec, capacity: int, preferences: Singles | None = None) -> None:
        """Make room for snapshots with at most `capacity` jobs; without `preferences` equal ones are shown."""
        window, gpus = codec.window, cluster.gpus
        self._choices = codec.choices(cluster)
        self.wait_action = codec.wait_action(cluster)
        self._codec = codec
        self._cluster = cluster
        self._capacity = capacity
        columns = L.ASKS + len(cluster.resources) if cluster.groups else L.JOB_COLUMNS
        self._jobs = np.empty((capacity, columns))
        self._queue = np.empty(capacity, np.int32)
        self._counts = np.zeros(L.COUNT_COLUMNS, np.int64)
        rows = np.empty((window, len(codec.feature_names)), np.float32)
        context = np.zeros(len(CONTEXT_FEATURES), np.float32)
        machine = np.empty((len(node_entries(cluster)), node_groups(cluster.nodes)), np.float32)
        mask = np.empty(window + 1, np.bool_)
        valid = mask if self.wait_action == window else np.zeros(self.wait_action + 1, np.bool_)
        hw = codec.hardware(cluster)
        rules, settings = codec.arrays(whole_gpus=True)
        seen = codec.told_apart(cluster)
        allocation = empty_cluster(seen)
        self._gpus, self._nodes = allocation[:2]
        self._groups = None if seen is cluster else _Groups(cluster, allocation[1][:, L.TYPE].copy())
        self._level_watts = power_levels_w(cluster, codec.power_levels)
        self._state = (
            self._jobs, np.zeros((capacity, L.TRUTH_COLUMNS if hw is None else L.DETAILED_TRUTH_COLUMNS)),
            np.empty((capacity, STATIC_COLUMNS), np.float32), self._queue, np.empty((2, capacity)),
            np.empty((L.RUN_ROWS if hw is None else L.DETAILED_RUN_ROWS, capacity), np.int32),
            *allocation, hw, np.zeros(clock_columns(cluster)), self._counts, rules.copy(),
            np.zeros(TALLY_COLUMNS), codec.full, codec.stoppable > 0, idle_share(cluster), np.empty(capacity),
            np.empty(window, np.int32),
            np.empty((window, fact_columns(codec.full, hw is not None))),
            np.empty((CHANGING_COLUMNS, window), np.float32), rows, context, machine, mask, codec.key == "fcfs",
            np.empty((STATIC_INPUTS, window)),
            np.empty((STATIC_LOGARITHMS, window), np.float32), self._choices, valid,
        )  # fmt: skip
        self._settings = settings.copy()
        running = np.zeros(codec.shapes(cluster).get("running", (0, 0)), np.float32)
        self._running = _Running(np.zeros(codec.stoppable, np.int32), running, mask, valid)
        self._snapshot: Snapshot | None = None
        self._keys = np.empty(capacity)
        self._held = np.empty(gpus, np.int64)
        self._fitting = 0
        self._no_degrees = np.zeros(gpus)
        self.observation = as_observation(codec, machine, rows, context, running, valid)
        if codec.preferences:
            equal = np.full(codec.preferences, 1.0 / codec.preferences, np.float32)
            self.observation["preferences"] = equal if preferences is None else preferences

    @classmethod
    def of(cls, codec: Codec, snapshot: Snapshot) -> Self:
        """Show a snapshot to a learner; the decision goes on until it waits."""
        return cls(codec, snapshot.cluster, len(snapshot.jobs)).show(snapshot)

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether there is room for this snapshot."""
        same = snapshot.cluster is self._cluster or snapshot.cluster == self._cluster
        return same and len(snapshot.jobs) <= self._capacity

    def show(self, snapshot: Snapshot) -> Self:
        """Observe a snapshot for which there is room."""
        jobs, nodes = snapshot.jobs, snapshot.nodes
        if self._groups is not None:
            jobs, nodes = self._groups.told_apart(jobs, nodes)
        if self._codec.stoppable:  # a job that is stopped goes among the others by its number, too
            jobs = jobs[np.argsort(jobs[:, L.ID], kind="stable")]
            jobs.setflags(write=False)
            self._settings[[L.PREEMPTION_COST, L.QUANTUM]] = snapshot.restart_cost, snapshot.quantum
        self._fitting = _open(
            jobs, snapshot.running_count, snapshot.time, snapshot.gpus, nodes, snapshot.bits, snapshot.totals,
            self._no_degrees if snapshot.temperatures is None else snapshot.temperatures,
            self._settings, self._keys, *self._state,
        )  # fmt: skip
        if self._codec.stoppable:
            self._snapshot = snapshot
            self._show_running(snapshot)
        return self

    def _show_running(self, snapshot: Snapshot) -> None:
        (
            jobs, _, _, _, _, run_job, gpus, nodes, _, totals, hw, clock, counts, rules, *_,
        ) = self._state  # fmt: skip
        pinned = np.zeros(0, np.bool_)
        if snapshot.pinned:
            pinned = np.isin(jobs[: len(snapshot.jobs), L.ID], list(snapshot.pinned))
        show_running(
            self._choices, jobs, run_job, gpus, nodes, totals, hw, clock, counts, rules, self._settings,
            snapshot.migration_cost, pinned, self._running.mask, self._running.listed, self._running.rows,
            self._running.valid,
        )  # fmt: skip

    @property
    def is_due(self) -> bool:
        """Whether any visible job could start, or a running one be stopped or moved where actions can do that."""
        return self._fitting > 0 or bool(self._running.valid[:-1].any())

    @property
    def visible(self) -> NDArray[np.int64]:
        """Ids of the visible jobs, in slot order."""
        front, back = self._counts[L.FRONT], self._counts[L.BACK]
        rows = self._queue[front : min(front + self._codec.window, back)]
        ids: NDArray[np.int64] = self._jobs[rows, L.ID].astype(np.int64)
        return ids

    def shown(self, entry: str) -> int:
        """Return how many rows of an entry of the observation say something; the others are zero."""
        if entry == "queue":
            return len(self.visible)
        if entry == "running":
            return min(int(self._counts[L.RUNNING]), self._codec.stoppable)
        return len(self.observation[entry])

    def start(self, slot: int, choice: int = 0) -> Start:
        """Start the fitting job in this slot, observe anew and return the action."""
        job, count, self._fitting = _start_and_look_again(slot, choice, self._held, *self._state)
        return Start(job, tuple(self._held[:count].tolist()))

    def act(self, action: int) -> list[Action]:
        """Carry a valid action other than waiting out, observe anew and return what a cluster is to do."""
        slot, choice = divmod(action, self._choices)
        if self._snapshot is not None:
            return [self._act_on(self._snapshot, slot, choice)]
        before = self._gpus[:, L.LIMIT].copy() if self._codec.actions == "power" else None
        started = self.start(slot, choice)
        actions: list[Action] = [started]
        if before is not None:
            for gpu in started.gpus or ():
                if self._gpus[gpu, L.LIMIT] != before[gpu]:
                    watts = self._level_watts[self._nodes[self._gpus[gpu, L.NODE], L.TYPE], choice]
                    actions.append(SetPowerLimit(gpu, float(watts)))
        return actions

    def _act_on(self, snapshot: Snapshot, slot: int, choice: int) -> Action:
        """Do so where running jobs can be stopped."""
        action: Action
        if slot < self._codec.window:
            action = self.start(slot, choice)
        else:
            row = int(self._running.listed[slot - self._codec.window])
            job = int(self._jobs[row, L.ID])
            count, self._fitting = _stop_and_look_again(
                row, choice, snapshot.migration_cost, self._settings, self._held, *self._state
            )
            action = Preempt(job) if choice == 0 else Migrate(job, tuple(self._held[:count].tolist()))
        self._show_running(snapshot)
        return action


@dataclass(frozen=True, eq=False)
class _Running:
    """Running jobs that actions can stop: their rows among the jobs, what is shown of them, and the valid actions."""

    listed: Ints32
    rows: Singles
    mask: Bools
    valid: Bools


class _Groups:
    """Groups of nodes with one type of GPU, as actions tell them apart: a type of its own for each."""

    def __init__(self, cluster: ClusterSpec, group_of_node: Ints32) -> None:
        self._group_of_node = group_of_node
        names = [kind.name for kind in cluster.types]
        self._types = np.array([names.index(group.limited_gpu.name) for group in cluster.groups])

    def told_apart(self, jobs: Floats, nodes: Ints32) -> tuple[Floats, Ints32]:
        """Return a snapshot's jobs and nodes with the groups in the place of their types."""
        jobs, nodes = jobs.copy(), nodes.copy()
        nodes[:, L.TYPE] = self._group_of_node
        bits = jobs[:, L.TYPES].astype(np.int64)
        suits = (bits[:, None] >> self._types) & 1
        jobs[:, L.TYPES] = (suits << np.arange(len(self._types))).sum(axis=1)
        for array in (jobs, nodes):
            array.setflags(write=False)  # as a snapshot's are
        return jobs, nodes


@njit
def _open(
    given_jobs: Floats, running: int, now: float, given_gpus: Ints32, given_nodes: Ints32, given_bits: Words,
    given_totals: Ints64, degrees: Floats, settings: Floats, keys: Floats, jobs: Floats, truth: Floats,
    static: Singles, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, tally: Floats, full: bool,
    told_left: bool, idle: float, free_after: Floats, shown: Ints32, facts: Floats, changing: Singles, rows: Singles,
    context: Singles, machine: Singles, mask: Bools, key_is_time: bool, inputs: Floats, logarithms: Singles,
    choices: int, valid: Bools,
) -> int:  # fmt: skip
    """Copy a snapshot's state, rebuild queue and predicted ends from it and observe. Running jobs come first, but where
    they can be stopped (`told_left`): there all are in order of their numbers.

    Returns how many visible jobs fit.
    """
    total = given_jobs.shape[0]
    copy_allocation(given_gpus.shape[1], given_gpus, given_nodes, given_bits, given_totals, gpus, nodes, bits, totals)
    totals[L.TOUCHED] = -1
    clock[L.NOW] = now
    clock[L.TIMER] = np.inf
    if hw is not None and hw.heat.shape[0] > 0:
        take_temperatures(degrees, gpus, nodes, totals, hw, clock)
    if hw is not None:
        for gpu in range(gpus.shape[0]):
            gpus[gpu, L.RATED] = gpus[gpu, L.KEPT]
    counts[L.FRONT] = 0
    counts[L.BACK] = 0
    counts[L.RUNNING] = running
    placed = 0
    counts[L.ARRIVED] = total
    rules[L.COUNTED] = hw is None and rules[L.PLACEMENT] != CONSOLIDATED
    for job in range(total):
        for column in range(jobs.shape[1]):
            jobs[job, column] = given_jobs[job, column]
        if np.isnan(jobs[job, L.REQUESTED]):
            jobs[job, L.REQUESTED] = UNKNOWN_TIME
            jobs[job, L.PREDICTED] = UNKNOWN_TIME - jobs[job, L.ATTAINED]
        if jobs[job, L.GPUS] < L.MILLI:
            rules[L.COUNTED] = 0
        if jobs[job, L.FIRST_GPU] >= 0:
            list_job(jobs, job, gpus, hw)  # a snapshot names jobs by its own rows
            run_end[L.TRUE_ENDS, placed] = np.inf  # unknown here, and no feature reads it
            run_job[L.TRUE_ENDS, placed] = job
            if hw is not None:
                truth[job, L.REMAINING] = np.inf
            if rules[L.PREDICTS]:
                add_prediction(jobs, run_end, run_job, placed, predicted_end(jobs, job, hw), job)
            placed += 1
        else:
            jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, now)
            if told_left:
                insert(jobs, queue, counts, job)
    if not told_left:
        fill(jobs, running, total, keys, queue, counts)
    visible = min(rows.shape[0], total - running)
    static_features(
        jobs, queue, 0, visible, gpus.shape[0], totals[L.GPU_MEMORY], key_is_time, inputs, logarithms, static
    )
    tally[SHOWN] = 0
    for place_in_window in range(visible, rows.shape[0]):
        mask[place_in_window] = False
        for feature in range(rows.shape[1]):
            rows[place_in_window, feature] = 0.0
    fitting = observe(
        jobs, static, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, tally, full,
        told_left, idle, free_after, shown, facts, changing, rows, context, machine, mask,
    )  # fmt: skip
    if choices > 1 or told_left:
        write_choices(choices, jobs, queue, gpus, nodes, totals, hw, counts, rules, mask, valid)
    return fitting


@njit
def _start_and_look_again(
    slot: int, choice: int, held: Ints64, jobs: Floats, truth: Floats, static: Singles, queue: Ints32,
    run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware,
    clock: Floats, counts: Ints64, rules: Ints64, tally: Floats, full: bool, told_left: bool, idle: float,
    free_after: Floats, shown: Ints32, facts: Floats, changing: Singles, rows: Singles, context: Singles,
    machine: Singles, mask: Bools, key_is_time: bool, inputs: Floats, logarithms: Singles, choices: int, valid: Bools,
) -> tuple[int, int, int]:  # fmt: skip
    """Start the fitting job in this slot and observe; return (its id, GPUs written to `held`, jobs that fit now)."""
    position = counts[L.FRONT] + slot
    job = queue[position]
    if hw is not None:
        jobs[job, L.CHOICE] = choice
    place_as_chosen(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw)
    remove(queue, counts, position)
    list_job(jobs, job, gpus, hw)
    running = counts[L.RUNNING]
    run_end[L.TRUE_ENDS, running] = np.inf
    run_job[L.TRUE_ENDS, running] = job
    if hw is not None:
        truth[job, L.REMAINING] = np.inf
    book(jobs, job, hw, run_end, run_job, clock, counts, rules)
    change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
    forget_changes(truth, run_job, hw, counts)
    count = held_gpus(jobs, job, gpus, held)
    last = counts[L.FRONT] + rows.shape[0] - 1
    if last < counts[L.BACK]:  # the job that has moved into the window has no static features yet
        static_features(
            jobs, queue, last, 1, gpus.shape[0], totals[L.GPU_MEMORY], key_is_time, inputs, logarithms, static
        )
    fitting = observe(
        jobs, static, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, tally, full,
        told_left, idle, free_after, shown, facts, changing, rows, context, machine, mask,
    )  # fmt: skip
    if choices > 1 or told_left:
        write_choices(choices, jobs, queue, gpus, nodes, totals, hw, counts, rules, mask, valid)
    return int(jobs[job, L.ID]), count, fitting


@njit
def _stop_and_look_again(
    row: int, choice: int, migration_cost: float, settings: Floats, held: Ints64, jobs: Floats, truth: Floats,
    static: Singles, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, tally: Floats, full: bool,
    told_left: bool, idle: float, free_after: Floats, shown: Ints32, facts: Floats, changing: Singles, rows: Singles,
    context: Singles, machine: Singles, mask: Bools, key_is_time: bool, inputs: Floats, logarithms: Singles,
    choices: int, valid: Bools,
) -> tuple[int, int]:  # fmt: skip
    """Preempt or move the job in this row and observe; return (GPUs written to `held`, jobs that fit now)."""
    if hw is None:
        return 0, 0
    stop_job(
        choice, migration_cost, jobs, truth, row, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock,
        counts, rules, settings,
    )  # fmt: skip
    forget_changes(truth, run_job, hw, counts)
    count = held_gpus(jobs, row, gpus, held) if choice > 0 else 0
    visible = min(rows.shape[0], counts[L.BACK] - counts[L.FRONT])
    static_features(
        jobs, queue, counts[L.FRONT], visible, gpus.shape[0], totals[L.GPU_MEMORY], key_is_time, inputs, logarithms,
        static,
    )  # fmt: skip
    fitting = observe(
        jobs, static, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, tally, full,
        told_left, idle, free_after, shown, facts, changing, rows, context, machine, mask,
    )  # fmt: skip
    write_choices(choices, jobs, queue, gpus, nodes, totals, hw, counts, rules, mask, valid)
    return count, fitting
