"""The like-for-like peer: the same environment, written carefully in Python and NumPy.

It is what a good author writes without a compiler: events in a binary heap, the queue as an ordered array of
small integers that NumPy reads without a copy, what does not change computed once for the trace, one NumPy
call for each feature, node figures refreshed only where they changed. Whole GPUs, first-fit placement, basic
features and up to 256 nodes: the rules of the measured rows. A test holds it to the finish times, rewards,
masks and observations of `lepton_rl.envs.SchedulingEnv`.
"""

from array import array
from bisect import bisect_left
from heapq import heappop, heappush
from itertools import islice
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, Objective
from lepton_rl.workloads import Trace

MOST_NODES = 256
QUEUE_FEATURES = 8
HOUR = 3600.0
FLOOR = 10.0  # of the bounded slowdown, seconds
MIB_PER_GIB = 1024

Observation = dict[str, NDArray[Any]]


class PythonSchedulingEnv(gymnasium.Env[Observation, np.int64]):
    """`SchedulingEnv(codec=Codec(window, features="basic"))` in Python; see there for every rule.

    Args:
        trace: Whole GPUs only.
        cluster: At most 256 nodes.
        window: Visible jobs K.
        objective: What is minimised.
        jobs: Counted jobs of an episode.
        warmup: Jobs before them that smallest-area-first with head-of-line blocking runs.
        copy: Return copies of the observation arrays; False returns the arrays that the next step overwrites.
    """

    def __init__(
        self,
        trace: Trace,
        cluster: ClusterSpec,
        window: int = 128,
        objective: Objective | None = None,
        jobs: int = 256,
        warmup: int = 0,
        copy: bool = True,
    ) -> None:
        if cluster.nodes > MOST_NODES:
            raise ValueError(f"the peer shows {MOST_NODES} nodes or fewer, not {cluster.nodes}")
        if (trace.gpus < 1).any():
            raise ValueError("the peer runs whole GPUs only")
        self.trace, self.cluster, self.window = trace, cluster, window
        self.jobs, self.warmup, self.copy = jobs, warmup, copy
        self._prepare(objective or Objective())
        self._allocate()
        codec = Codec(window, features="basic")
        self.observation_space = cast(spaces.Space[Observation], codec.observation_space(cluster))
        self.action_space = codec.action_space(cluster)

    def _prepare(self, objective: Objective) -> None:
        """Compute once for the whole trace what never changes."""
        trace, total = self.trace, self.cluster.gpus
        time, size = np.nan_to_num(trace.requested_time, nan=HOUR), trace.gpus
        self._area = time * size
        static = np.zeros((len(trace), QUEUE_FEATURES), np.float32)
        static[:, 0] = np.log1p(time) / 12.0
        static[:, 1] = np.log1p(size) / np.log1p(total)
        static[:, 2] = np.log1p(self._area) / 18.0
        static[:, 3] = size / total
        self._static = static
        self._prices = objective.prices(trace.run_time, self.jobs)
        self._energy_idle, self._energy_held = objective.energy_rates(self.cluster, self.jobs)
        whole = int(self.cluster.gpu_memory_gib * MIB_PER_GIB)
        figure = np.ceil(np.nan_to_num(trace.gpu_memory_gib, nan=0.0) * MIB_PER_GIB)
        self._mib = np.where(figure > 0, figure, whole).astype(np.int64)
        self._node_mib = whole * self.cluster.gpus_per_node
        self._idle_power = self.cluster.idle_power_w / self.cluster.max_power_w

    def _allocate(self) -> None:
        nodes, window = self.cluster.nodes, self.window
        self._load, self._memory, self._power = (np.zeros(nodes, np.float32) for _ in range(3))
        self._rows = np.zeros((window, QUEUE_FEATURES), np.float32)
        self._mask = np.zeros(window + 1, np.bool_)
        self._rank = np.arange(window, dtype=np.float32) * np.float32(1.0 / window)
        self._work = np.empty(window)
        self._observation: Observation = {
            "load": self._load,
            "memory": self._memory,
            "power": self._power,
            "queue": self._rows,
            "action_mask": self._mask.view(np.int8),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; `options={"first": job}` names its first job, otherwise it is drawn."""
        super().reset(seed=seed)
        length = self.jobs + self.warmup
        first = (options or {}).get("first")
        if first is None:
            first = int(self.np_random.integers(len(self.trace) - length + 1))
        self._begin(slice(first, first + length))
        self._run_warmup()
        self._pass_time(wait=False)
        self._return = -self._cost
        self._steps = 0
        return self._observe(), {"return": self._return}

    def _begin(self, window: slice) -> None:
        """Number the jobs of an episode by their place in the window's order, and empty the cluster."""
        trace = self.trace
        order = np.argsort(self._area[window], kind="stable")
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        prices = self._prices[window].copy()
        prices[: self.warmup] = 0.0
        prices = prices[order]
        self._order = order
        self._arrival_job: list[int] = place.tolist()
        self._arrival_time: list[float] = trace.submit_time[window].tolist()
        self._submit = trace.submit_time[window][order]
        self._size = trace.gpus[window][order]
        self._features = self._static[window][order]
        self._gpus: list[int] = self._size.astype(np.int64).tolist()
        self._run: list[float] = trace.run_time[window][order].tolist()
        self._job_mib: list[int] = self._mib[window][order].tolist()
        self._wait_price: list[float] = prices[:, 0].tolist()
        self._submit_price: list[float] = prices[:, 1].tolist()
        self._refund_price: list[float] = prices[:, 2].tolist()
        self._finish = [float("nan")] * len(order)
        self._queue = array("i")
        self._ends: list[tuple[float, int]] = []
        self._held: dict[int, list[tuple[int, int]]] = {}
        self._free = self.cluster.gpus
        self._node_free = [self.cluster.gpus_per_node] * self.cluster.nodes
        self._node_used = [0] * self.cluster.nodes  # MiB
        self._hint = 0  # no node before this one has a free GPU
        self._touched = set(range(self.cluster.nodes))
        self._arrived = 0
        self._now = self._arrival_time[0]
        self._waiting_rate = 0.0
        self._cost = 0.0
        self._shown = self.window

    def _run_warmup(self) -> None:
        while self._arrived < self.warmup and self._next_event():
            if self._arrived > self.warmup:
                break  # counted jobs came with the last of the warm-up: that instant is the agent's
            while self._queue and self._gpus[self._queue[0]] <= self._free:
                self._start(0)
        self._waiting_rate = sum(self._wait_price[job] for job in self._queue)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Start the job in slot `action`, or wait."""
        self._cost = 0.0
        slot = int(action)
        start = 0 <= slot < self.window and bool(self._mask[slot])
        if start:
            self._start(slot)
        due = self._pass_time(wait=not start and bool(self._ends))
        self._return -= self._cost
        self._steps += 1
        info = {} if due else {"episode_metrics": self._metrics()}
        return self._observe(), -self._cost, not due, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the valid actions, shape (K + 1,)."""
        return self._mask

    def waiting(self) -> int:
        """Return how many jobs wait."""
        return len(self._queue)

    def finish_times(self) -> NDArray[np.float64]:
        """Return the finish of each job of the episode in order of submission, seconds; NaN before it."""
        finish = np.empty(len(self._finish))
        finish[self._order] = self._finish
        return finish

    def _pass_time(self, wait: bool) -> bool:
        """Let time pass until a visible job fits; return False when the episode is over."""
        if not wait and self._something_fits():
            return True
        while self._next_event():
            if self._something_fits():
                return True
        return False

    def _something_fits(self) -> bool:
        free = self._free
        if free == 0:
            return False
        gpus = self._gpus
        return any(gpus[job] <= free for job in islice(self._queue, self.window))

    def _next_event(self) -> bool:
        """Drain all events of the next instant, completions first, and charge the time until it."""
        ends, arrivals, arrived = self._ends, self._arrival_time, self._arrived
        count = len(arrivals)
        if arrived < count:
            time = arrivals[arrived]
            if ends and ends[0][0] < time:
                time = ends[0][0]
        elif ends:
            time = ends[0][0]
        else:
            return False
        held = 1000.0 * (self.cluster.gpus - self._free)
        rate = self._waiting_rate + self._energy_idle + self._energy_held * held
        self._cost += rate * (time - self._now)
        self._now = time
        while ends and ends[0][0] <= time:
            self._release(heappop(ends)[1])
        while arrived < count and arrivals[arrived] <= time:
            job = self._arrival_job[arrived]
            self._queue.insert(bisect_left(self._queue, job), job)
            self._waiting_rate += self._wait_price[job]
            self._cost += self._submit_price[job]
            arrived += 1
        self._arrived = arrived
        return True

    def _start(self, slot: int) -> None:
        job = self._queue.pop(slot)
        left = self._gpus[job]
        self._free -= left
        node, free, held = self._hint, self._node_free, []
        mib, used, touched = self._job_mib[job], self._node_used, self._touched
        while True:
            count = min(free[node], left)
            if count:
                free[node] -= count
                used[node] += mib * count
                touched.add(node)
                held.append((node, count))
                left -= count
                if not left:
                    break
            node += 1
        self._hint = node
        self._held[job] = held
        run = self._run[job]
        heappush(self._ends, (self._now + run, job))
        self._waiting_rate = self._waiting_rate - self._wait_price[job] if self._queue else 0.0
        if run < FLOOR:
            forgiven = min(self._now - float(self._submit[job]), FLOOR - run)
            self._cost -= self._refund_price[job] * forgiven

    def _release(self, job: int) -> None:
        mib = self._job_mib[job]
        held = self._held.pop(job)
        for node, count in held:
            self._node_free[node] += count
            self._node_used[node] -= mib * count
            self._touched.add(node)
        self._hint = min(self._hint, held[0][0])
        self._free += self._gpus[job]
        self._finish[job] = self._now

    def _observe(self) -> Observation:
        """Refresh the observation's arrays where something changed."""
        rows, mask, free = self._rows, self._mask, self._free
        visible = min(len(self._queue), self.window)
        if visible:
            jobs = np.frombuffer(self._queue, np.int32, visible)
            shown = rows[:visible]
            self._features.take(jobs, 0, shown, "clip")
            fits = mask[:visible]
            np.less_equal(self._size.take(jobs), free, out=fits)
            wait = self._work[:visible]
            np.subtract(self._now, self._submit.take(jobs), out=wait)
            np.divide(wait, wait + HOUR, out=shown[:, 4])
            shown[:, 5] = fits
            pressure = np.float32(self.cluster.gpus / (4.0 * (free + 1.0)))
            np.minimum(shown[:, 3] * pressure, np.float32(1.0), out=shown[:, 6])
            shown[:, 7] = self._rank[:visible]
        if visible < self._shown:
            rows[visible : self._shown] = 0.0
            mask[visible : self._shown] = False
        self._shown = visible
        mask[self.window] = bool(self._ends)
        if self._touched:
            self._refresh_nodes()
        if self.copy:
            return {name: values.copy() for name, values in self._observation.items()}
        return self._observation

    def _refresh_nodes(self) -> None:
        per_node, idle = self.cluster.gpus_per_node, self._idle_power
        for node in self._touched:
            load = 1.0 - self._node_free[node] / per_node
            self._load[node] = load
            self._memory[node] = self._node_used[node] / self._node_mib
            self._power[node] = idle + (1.0 - idle) * load
        self._touched.clear()

    def _metrics(self) -> dict[str, float]:
        """Return what an ended episode was worth."""
        counted = self._order >= self.warmup
        run = np.array(self._run)[counted]
        jct = np.array(self._finish)[counted] - self._submit[counted]
        return {
            "return": self._return,
            "length": self._steps,
            "mean_jct": float(jct.mean()),
            "mean_bounded_slowdown": float(np.maximum(1.0, jct / np.maximum(run, FLOOR)).mean()),
        }
