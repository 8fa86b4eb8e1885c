"""Many environments as one set of arrays: the engine behind every face of the environment."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Singles
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.machine import clock_columns, empty_cluster
from lepton_rl.core.metrics import Outcome, mean_power_w
from lepton_rl.core.physics import mean_utilization
from lepton_rl.envs.arena import Arena
from lepton_rl.envs.batch_kernel import (
    ENERGY_BUSY,
    ENERGY_IDLE,
    INVALID,
    MIGRATION_COST,
    PRICE_COLUMNS,
    RETURN,
    SCALE,
    STEPS,
    SUBMISSION,
    TALLY_COLUMNS,
    WAITING,
    WAITING_RATE,
    decision_is_due,
    move_to_decision,
    observe,
    show_all_running,
    step_all,
    stop_all,
    summarize,
)
from lepton_rl.envs.choices import note_choices, write_all_choices, write_choices
from lepton_rl.envs.codec import NO_COSTS, Codec, Observation, as_observation, as_preferences, idle_share, node_entries
from lepton_rl.envs.episodes import Episodes
from lepton_rl.envs.features import CHANGING_COLUMNS, CONTEXT_FEATURES
from lepton_rl.envs.objective import Objective
from lepton_rl.envs.stopping import show_running
from lepton_rl.envs.tables import episode_tables
from lepton_rl.envs.view import EnvironmentView, view_of
from lepton_rl.envs.window import STATIC_COLUMNS, fact_columns
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import Blocking, Rule, Timing, run_trace
from lepton_rl.simulator.events import count_unmet, warm_up
from lepton_rl.simulator.heat import start_cold
from lepton_rl.simulator.jobs import cluster_for, with_followers
from lepton_rl.simulator.state import disturbed, metered, most_that_run
from lepton_rl.workloads import Trace


class EnvironmentBatch:
    """`count` environments with the same cluster, codec and objective, and their own episodes.

    Rewards are minus the objective's cost over the time that passed, divided by `scale`: 1, or with
    `relative_to_heuristic` the cost that the window's key order with head-of-line blocking has on the same jobs.
    `timing` says what actions that stop running jobs cost. The arrays of an observation are overwritten by the next
    step.
    """

    def __init__(
        self,
        episodes: Episodes,
        cluster: ClusterSpec,
        codec: Codec,
        objective: Objective,
        count: int = 1,
        relative_to_heuristic: bool = False,
        timing: Timing = NO_COSTS,
    ) -> None:
        if count < 1:
            raise ConfigError(f"a batch needs 1 environment or more, not {count}")
        self.episodes = episodes
        cluster = self.cluster = cluster_for(episodes.traces, cluster)
        self.codec = codec
        self.objective = objective
        self.count = count
        self.relative_to_heuristic = relative_to_heuristic
        whole = all(bool((trace.gpus >= 1).all()) for trace in episodes.traces)
        self._choices = codec.choices(cluster)
        self._seen_cluster = codec.told_apart(cluster)
        self._timing = timing
        if codec.preferences not in (0, len(objective.components)):
            raise ConfigError(
                f"the codec shows preferences among {codec.preferences} components, the objective has "
                f"{len(objective.components)}: {', '.join(objective.components)}"
            )
        self._hw = with_followers(codec.hardware(cluster), episodes.traces)
        self._first_rows = np.cumsum([0, *(len(trace) for trace in episodes.traces)])
        self._rules, self._settings = codec.arrays(whole and self._hw is None, timing)
        self._warmup_rules = self._rules.copy()
        self._warmup_rules[L.BLOCKING] = Blocking.HEAD
        self._tables = [episode_tables(trace, cluster, codec, objective, episodes.jobs) for trace in episodes.traces]
        self._allocate(whole)
        self.windows = np.zeros((count, 2), np.int64)
        """(trace, first job) of each environment's episode."""

    def _allocate(self, whole: bool) -> None:
        count, length, cluster, codec = self.count, self.episodes.length, self.cluster, self.codec
        self._most_running = most_that_run(length, whole, cluster)
        self._empty = empty_cluster(self._seen_cluster)
        gpus, nodes, bits, totals = self._empty
        window, groups = codec.window, codec.shapes(cluster)["load"][0]
        room = Arena()
        self._jobs = room.zeros((count, length, self._tables[0].jobs.shape[1]), np.float64)
        self._truth = room.zeros((count, length, self._tables[0].truth.shape[1]), np.float64)
        self._prices = room.zeros((count, length, PRICE_COLUMNS), np.float64)
        self._static = room.zeros((count, length, STATIC_COLUMNS), np.float32)
        self._queue = room.zeros((count, length), np.int32)
        self._run_end = room.zeros((count, 2, self._most_running), np.float64)
        rows = L.RUN_ROWS if self._hw is None else L.DETAILED_RUN_ROWS
        self._run_job = room.zeros((count, rows, self._most_running), np.int32)
        self._gpus = room.zeros((count, *gpus.shape), np.int32)
        self._nodes = room.zeros((count, *nodes.shape), np.int32)
        self._bits = room.zeros((count, *bits.shape), np.uint64)
        self._totals = room.zeros((count, *totals.shape), np.int64)
        self._clock = room.zeros((count, clock_columns(cluster)), np.float64)
        self._clock[:, L.TIMER] = np.inf
        self._counts = room.zeros((count, L.COUNT_COLUMNS), np.int64)
        self._tally = room.zeros((count, TALLY_COLUMNS), np.float64)
        self._free_after = room.zeros((max(self._most_running, 1),), np.float64)
        self._facts = room.zeros((count, window, fact_columns(codec.full, self._hw is not None)), np.float64)
        self._shown = room.zeros((count, window), np.int32)
        self._changing = room.zeros((CHANGING_COLUMNS, window), np.float32)
        self._rows = room.zeros((count, window, len(codec.feature_names)), np.float32)
        self._context = room.zeros((count, len(CONTEXT_FEATURES)), np.float32)
        self._machine = room.zeros((count, len(node_entries(cluster)), groups), np.float32)
        self._mask = room.zeros((count, window + 1), np.bool_)
        self._listed = room.zeros((count, codec.stoppable), np.int32)
        running_shape = codec.shapes(cluster).get("running", (0, 0))
        self._running = room.zeros((count, *running_shape), np.float32)
        self._pinned = np.zeros(0, np.bool_)
        if self._is_wide:
            self._valid = room.zeros((count, codec.wait_action(cluster) + 1), np.bool_)
            self._slots = room.zeros((count,), np.int64)
        self._observation = as_observation(codec, self._machine, self._rows, self._context, self._running, self.masks)
        if codec.preferences:
            self._preferences = np.full((count, codec.preferences), 1.0 / codec.preferences, np.float32)
            self._observation["preferences"] = self._preferences
        self.rewards = np.zeros(count)
        self.terminated = np.zeros(count, np.bool_)
        self._idle_share = idle_share(cluster)

    @property
    def state_bytes(self) -> int:
        """Memory that the environments take (the traces not counted)."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    @property
    def _is_wide(self) -> bool:
        """Whether there are more actions than starting the job of a slot, and waiting."""
        return self._choices > 1 or self.codec.stoppable > 0

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Valid actions, shape (count, actions)."""
        return self._valid if self._is_wide else self._mask

    def observation(self) -> Observation:
        """Return the present observation of all environments: views, overwritten by the next step."""
        return dict(self._observation)

    def remaining(self) -> Singles:
        """Return the part of each episode's jobs that are yet to come, shape (count, 1)."""
        part = 1.0 - self._counts[:, L.ARRIVED] / self.episodes.length
        return part[:, None].astype(np.float32)

    def observation_of(self, env: int) -> Observation:
        """Return a copy of one environment's observation."""
        return {name: array[env].copy() for name, array in self.observation().items()}

    def draw_preferences(self, rng: np.random.Generator) -> Singles | None:
        """Return a uniformly random point of what preferences may be; None where the codec shows none."""
        return rng.dirichlet(np.ones(self.codec.preferences)).astype(np.float32) if self.codec.preferences else None

    def checked_preferences(self, preferences: object) -> Singles:
        """Return preferences that somebody names as parts of 1, in the order of `objective.components`.

        Raises:
            ConfigError: there is not one for each component, or the environment has none.
        """
        if not self.codec.preferences:
            raise ConfigError("this environment has no preferences; make it with preferences=True")
        return as_preferences(preferences, self.codec.preferences)

    def objective_of(self, env: int) -> Objective:
        """Return what an environment's present episode minimises."""
        return self.objective.preferring(self._preferences[env]) if self.codec.preferences else self.objective

    def reset(self, env: int, window: tuple[int, int], preferences: Singles | None = None) -> None:
        """Begin the episode `window` (trace, first job) in one environment and show its first decision.

        Without `preferences`, where the codec shows them, all components of the objective weigh as it says.
        """
        trace_index, first = window
        tables = self._tables[trace_index]
        last = first + self.episodes.length
        warmup = self.episodes.warmup
        self.windows[env] = window
        self._jobs[env] = tables.jobs[first:last]
        self._jobs[env, :, L.ID] -= first
        self._truth[env] = tables.truth[first:last]
        self._prices[env] = tables.prices[first:last]
        objective = self.objective
        if self.codec.preferences:
            self._preferences[env] = 1.0 / self.codec.preferences if preferences is None else preferences
            run = tables.trace.run_time[first:last]
            objective = self.objective_of(env)
            self._prices[env] = objective.prices(run, self.episodes.jobs)
        self._prices[env, :warmup] = 0.0
        self._static[env] = tables.static[first:last]
        self._gpus[env], self._nodes[env], self._bits[env], self._totals[env] = self._empty
        self._totals[env, L.TOUCHED] = -1  # the whole table must be shown anew
        self._clock[env] = 0.0
        self._clock[env, L.NOW] = tables.trace.submit_time[first]
        self._clock[env, L.TIMER] = np.inf
        self._counts[env] = 0
        self._counts[env, L.HEAD] = -1
        self._counts[env, L.BASE] = self._first_rows[trace_index] + first
        if self._hw is not None:
            count_unmet(self._jobs[env], self._hw, self._counts[env])
            start_cold(self._gpus[env], self._nodes[env], self._hw, self._clock[env])
        self._rows[env] = 0.0
        self._mask[env] = False
        tally = self._tally[env]
        tally[:] = 0.0
        tally[ENERGY_IDLE], tally[ENERGY_BUSY] = objective.energy_rates(self.cluster, self.episodes.jobs)
        tally[SCALE] = 1.0
        tally[MIGRATION_COST] = self._timing.migration_cost
        if self.relative_to_heuristic:
            # A heuristic without cost (nothing ever waited) leaves rewards as they are.
            tally[SCALE] = self._heuristic_cost(tables.trace.window(first, self.episodes.length), objective) or 1.0
        jobs, truth, queue = self._jobs[env], self._truth[env], self._queue[env]
        run_end, run_job = self._run_end[env], self._run_job[env]
        gpus, nodes, bits, totals = self._gpus[env], self._nodes[env], self._bits[env], self._totals[env]
        clock, counts = self._clock[env], self._counts[env]
        warmup_cost = 0.0
        if warmup:
            ahead_gpus, ahead_nodes, ahead_bits, ahead_totals = self._empty
            warm_up(
                jobs, truth, queue, run_end, run_job, gpus, nodes, bits, totals, self._hw, clock, counts,
                ahead_gpus.copy(), ahead_nodes.copy(), ahead_bits.copy(), ahead_totals.copy(),
                np.empty(self._most_running, np.int32), warmup, self._warmup_rules, self._settings,
            )  # fmt: skip
            waiting = self._queue[env, self._counts[env, L.FRONT] : self._counts[env, L.BACK]]
            tally[WAITING_RATE] = self._prices[env, waiting, WAITING].sum()
            warmup_cost = (
                self._prices[env, : counts[L.ARRIVED], SUBMISSION].sum()
                + tally[ENERGY_IDLE] * (clock[L.NOW] - tables.trace.submit_time[first])
                + tally[ENERGY_BUSY] * clock[L.BUSY_INTEGRAL if self._hw is None else L.ENERGY]
            )
        due, cost = (
            decision_is_due(
                jobs, queue, run_job, gpus, nodes, totals, self._hw, clock, counts, self._rules, self._settings, tally,
                self._listed[env], self._choices, self.codec.window,
            ),
            0.0,
        )  # fmt: skip
        if not due:
            due, cost = move_to_decision(
            jobs, truth, self._prices[env], queue, run_end, run_job, gpus, nodes, bits, totals, self._hw, clock,
            counts, self._rules, self._settings, tally, self._listed[env], self._choices, self.codec.window, False,
        )  # fmt: skip
        tally[RETURN] = 0.0 - (warmup_cost + cost) / tally[SCALE]
        assert due, "an episode begins with a job that fits the empty cluster"
        observe(
            jobs, self._static[env], queue, run_end, run_job, gpus, nodes, bits, totals, self._hw, clock, counts,
            self._rules, tally, self.codec.full, self.codec.stoppable > 0, self._idle_share, self._free_after,
            self._shown[env], self._facts[env], self._changing, self._rows[env], self._context[env],
            self._machine[env], self._mask[env],
        )  # fmt: skip
        if self._is_wide:
            write_choices(
                self._choices, jobs, queue, gpus, nodes, totals, self._hw, counts, self._rules, self._mask[env],
                self._valid[env],
            )  # fmt: skip
        if self.codec.stoppable:
            show_running(
                self._choices, jobs, run_job, gpus, nodes, totals, self._hw, clock, counts, self._rules,
                self._settings, tally[MIGRATION_COST], self._pinned, self._mask[env], self._listed[env],
                self._running[env], self._valid[env],
            )  # fmt: skip

    def _heuristic_cost(self, trace: Trace, objective: Objective) -> float:
        rule = Rule(self.codec.rule.order, Blocking.HEAD, self.codec.rule.placement)
        known = trace if trace.requested != "absent" else trace.with_requested("exact")
        return objective.cost(run_trace(known, self.cluster, rule), self.episodes.warmup)

    def step(self, actions: NDArray[np.int64]) -> int:
        """Apply one action to each environment; fill `rewards` and `terminated`; return how many ended.

        An action that is not valid waits for the next event. An ended environment must be reset before
        the next step.
        """
        if not self._is_wide:
            return self._step_slots(actions)
        window, stoppable = self.codec.window, self.codec.stoppable
        note_choices(actions, self._choices, window, self._valid, self._jobs, self._queue, self._counts, self._slots)
        if stoppable:
            stop_all(
                actions, self._choices, self._jobs, self._truth, self._prices, self._queue, self._run_end,
                self._run_job, self._gpus, self._nodes, self._bits, self._totals, self._hw, self._clock, self._counts,
                self._rules, self._settings, self._tally, window, self._listed, self._valid, self._slots,
            )  # fmt: skip
        ended = self._step_slots(self._slots)
        write_all_choices(
            self._choices, self._jobs, self._queue, self._gpus, self._nodes, self._totals, self._hw, self._counts,
            self._rules, self._mask, self._valid,
        )  # fmt: skip
        if stoppable:
            show_all_running(
                self._choices, self._jobs, self._run_job, self._gpus, self._nodes, self._totals, self._hw,
                self._clock, self._counts, self._rules, self._settings, self._tally, self._pinned, self._mask,
                self._listed, self._running, self._valid,
            )  # fmt: skip
        return ended

    def _step_slots(self, slots: NDArray[np.int64]) -> int:
        return int(
            step_all(
                slots, self._jobs, self._truth, self._prices, self._static, self._queue, self._run_end,
                self._run_job, self._gpus, self._nodes, self._bits, self._totals, self._hw, self._clock, self._counts,
                self._rules, self._settings, self._tally, self._listed, self._choices, self.codec.full,
                self._idle_share, self._free_after,
                self._shown, self._facts, self._changing, self._rows, self._context, self._machine, self._mask,
                self.rewards, self.terminated,
            )
        )  # fmt: skip

    def outcome(self, env: int) -> Outcome:
        """Return the record of an environment's episode; complete once it has ended."""
        index, first = (int(value) for value in self.windows[env])
        trace, jobs = self._tables[index].trace, slice(first, first + self.episodes.length)
        return Outcome(
            cluster=self.cluster,
            submit=trace.submit_time[jobs],
            run=trace.run_time[jobs],
            gpus=trace.gpus[jobs],
            first_start=self._truth[env, :, L.FIRST_START].copy(),
            finish=self._truth[env, :, L.FINISH].copy(),
            preemptions=self._truth[env, :, L.PREEMPTIONS].astype(np.int64),
            groups=trace.user[jobs] if (trace.user[jobs] >= 0).any() else trace.queue[jobs],
            busy_gpu_seconds=float(self._clock[env, L.BUSY_INTEGRAL]) / L.MILLI,
            deadline=trace.deadline[jobs],
            stranded_gpu_seconds=float(self._clock[env, L.STRANDED_INTEGRAL]) / L.MILLI,
            metered=metered(self._clock[env], self.cluster),
            disturbed=disturbed(self._truth[env], self.cluster),
            migrations=self._truth[env, :, L.MIGRATIONS].astype(np.int64) if self.codec.stoppable else None,
        )

    def episode_info(self, env: int) -> dict[str, Any]:
        """Return what an ended episode was worth: return, steps, invalid actions and the real metrics."""
        mean_jct, slowdown, makespan = summarize(self._jobs[env], self._truth[env], self.episodes.warmup)
        clock = self._clock[env]
        utilization = mean_utilization(float(clock[L.BUSY_INTEGRAL]) / L.MILLI, self.cluster.gpus, makespan)
        meter = metered(clock, self.cluster)
        return {
            "return": float(self._tally[env, RETURN]),
            "length": int(self._tally[env, STEPS]),
            "invalid_actions": int(self._tally[env, INVALID]),
            "mean_jct": mean_jct,
            "mean_bounded_slowdown": slowdown,
            "utilization": utilization,
            "mean_power_w": mean_power_w(self.cluster, utilization, makespan, meter),
        }

    def briefs(self) -> dict[str, NDArray[Any]]:
        """Return time (s), return so far and invalid actions of the environments, shape (count,) each."""
        return {
            "time": self._clock[:, L.NOW].copy(),
            "return": self._tally[:, RETURN].copy(),
            "invalid_actions": self._tally[:, INVALID].astype(np.int64),
        }

    def brief(self, env: int) -> dict[str, Any]:
        """Return `briefs` of one environment."""
        return {name: array[env].item() for name, array in self.briefs().items()}

    def view(self, env: int) -> EnvironmentView:
        """Return what a picture of one environment shows."""
        visible = self._mask[env, : self.codec.window]
        return view_of(
            self.cluster, self._jobs[env], self._queue[env], self._gpus[env], self._totals[env], self._hw,
            self._clock[env], self._counts[env], visible,
        )  # fmt: skip

    def _state(self) -> dict[str, NDArray[Any]]:
        shared = ("_rules", "_settings", "_warmup_rules", "_pinned")  # they follow from the codec and never change
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return {name: value for name, value in arrays.items() if name not in shared}

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Return a copy of everything that changes from step to step."""
        return {name: value.copy() for name, value in self._state().items()}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from a saved state, bit for bit.

        Raises:
            ConfigError: it is the state of another batch.
        """
        own = self._state()
        if {name: array.shape for name, array in own.items()} != {name: array.shape for name, array in state.items()}:
            raise ConfigError("the saved state belongs to other environments: another version, cluster, codec or count")
        for name, array in own.items():
            array[...] = state[name]
