"""What an observation should hold, worked out from a snapshot in plain Python.

The texts FEATURES and CONTEXT_FEATURES are the specification; the reference cluster says whether a job fits.
"""

from math import inf, isnan, log, log1p

from lepton_rl.core import Snapshot
from lepton_rl.envs import Codec
from tests.reference import simulator as reference
from tests.reference.simulator import Job

HOUR = 3600.0


def jobs_of(snapshot: Snapshot) -> tuple[list[Job], list[Job], dict[int, float]]:
    """Waiting jobs in order of submission, running jobs, and the predicted end of each running one."""
    both = []
    ends = {}
    for view in (snapshot.queue, snapshot.running):
        jobs = []
        for place, number in enumerate(view):
            asked = float(view.requested_time[place])
            requested = HOUR if isnan(asked) else asked
            memory = float(view.gpu_memory_gib[place]) or None
            submit, gpus = float(view.submit_time[place]), float(view.gpus[place])
            jobs.append(Job(number, submit, 1.0, requested, gpus, memory))
            ends[number] = float(view.start_time[place]) + requested
        both.append(jobs)
    return both[0], both[1], ends


def reference_cluster(snapshot: Snapshot, running: list[Job]) -> reference.Cluster:
    """The cluster as the reference keeps it."""
    spec = snapshot.cluster
    name: reference.Placement = snapshot.placement.name.lower()  # type: ignore[assignment]
    cluster = reference.Cluster(spec.nodes, spec.gpus_per_node, spec.gpu_memory_gib, name)
    for job in running:
        cluster.take(job, list(snapshot.gpus_of(job.id)))
    return cluster


def in_window_order(waiting: list[Job], key: str) -> list[Job]:
    """The waiting jobs by the window's key, ties by submission."""
    keys = {
        "fcfs": lambda job: job.submit,
        "sjf": lambda job: job.requested,
        "smallest": lambda job: job.gpus,
        "saf": lambda job: job.requested * job.gpus,
    }
    return sorted(waiting, key=keys[key])


def log_time(seconds: float) -> float:
    return log1p(max(seconds, 0.0)) / 12


class Expected:
    """The observation of `codec` on `snapshot` (and the window's job ids), as lists of floats."""

    def __init__(self, codec: Codec, snapshot: Snapshot) -> None:
        spec = snapshot.cluster
        self.gpus = spec.gpus
        self.now = snapshot.time
        self.codec = codec
        waiting, running, self.ends = jobs_of(snapshot)
        self.cluster = reference_cluster(snapshot, running)
        self.ordered = in_window_order(waiting, codec.key)
        self.window = self.ordered[: codec.window]
        self.running = sorted(running, key=lambda job: self.ends[job.id])
        self.fits = [self.cluster.find(job) is not None for job in self.window]
        self.free = sum(share == reference.WHOLE for share in self.cluster.free_share)
        self.shadow, self.spare = self._shadow()
        self.mask = [*self.fits, *[False] * (codec.window - len(self.window)), bool(running)]
        names = codec.feature_names
        self.queue = [[self.feature(name, slot) for name in names] for slot in range(codec.window)]
        self.context = self._context()
        self.load, self.memory, self.power = self._machine(snapshot, running)

    def gpus_at(self, end: float) -> float:
        """GPUs free once all jobs predicted to end by `end` have gone."""
        return self.free + sum(job.gpus for job in self.running if self.ends[job.id] <= end)

    def when_free(self, gpus: float) -> float:
        """The predicted completion by which so many GPUs are free; the last one where they never are."""
        for job in self.running:
            if self.gpus_at(self.ends[job.id]) >= gpus - 1e-9:
                return self.ends[job.id]
        return self.ends[self.running[-1].id]

    def _shadow(self) -> tuple[float, float]:
        """Predicted start of the first job that does not fit, and the GPUs left over then."""
        for job, fits in zip(self.window, self.fits, strict=True):
            if not fits:
                shadow = max(self.when_free(job.gpus), self.now)
                return shadow, self.gpus_at(shadow) - job.gpus
        return inf, float(self.free)

    def feature(self, name: str, slot: int) -> float:
        """One entry of the queue table."""
        if slot >= len(self.window):
            return 0.0
        job, fits = self.window[slot], self.fits[slot]
        wait = self.now - job.submit
        time = job.requested
        left = (self.free - job.gpus) / self.gpus
        beyond = self.now + time - self.shadow
        match name:
            case "time":
                return log1p(time) / 12
            case "gpus":
                return log1p(job.gpus) / log1p(self.gpus)
            case "area":
                return log1p(job.gpus * time) / 18
            case "share":
                return job.gpus / self.gpus
            case "wait":
                return log_time(wait) if self.codec.full else wait / (wait + HOUR)
            case "fits":
                return float(fits)
            case "pressure":
                return min(job.gpus / (self.free + 1), 4) / 4
            case "rank":
                return slot / self.codec.window
            case "memory":
                return (job.memory_gib or 0.0) / self.cluster.gpu_memory_gib
            case "weight":
                return (log(1 / max(time, 10) + 2.5 / 3600) + 8) / 8
            case "key_gap":
                return self.key(job) - self.key(self.window[0])
            case "slowdown":
                return log(max(1.0, (wait + time) / max(time, 10))) / 8
            case "until_fit":
                return 0.0 if fits else log_time(self.when_free(job.gpus) - self.now)
            case "harmless":
                return float(fits and (beyond <= 0 or job.gpus <= self.spare + 1e-9))
            case "overrun":
                return log_time(beyond)
            case "free_after":
                return left
            case "reserve_room":
                part = min(max(log(max(time, 1) / 136) / log(51_200 / 136), 0), 1)
                return left - min(0.7 * part, 1 - job.gpus / self.gpus)
        raise AssertionError(name)

    def key(self, job: Job) -> float:
        """log1p of the window's key, / 18."""
        values = {"fcfs": 0.0, "sjf": job.requested, "smallest": job.gpus, "saf": job.requested * job.gpus}
        return log1p(values[self.codec.key]) / 18

    def _context(self) -> list[float]:
        blocked = [job.gpus for job, fits in zip(self.window, self.fits, strict=True) if not fits]
        first_end = self.ends[self.running[0].id] if self.running else self.now
        left = sum(job.gpus * max(self.ends[job.id] - self.now, 0) for job in self.running)
        context = {
            "free": self.free / self.gpus,
            "waiting": log1p(len(self.ordered)) / 8,
            "queued_work": log1p(sum(job.gpus * job.requested for job in self.window) / self.gpus) / 12,
            "head_fits": float(bool(self.fits) and self.fits[0]),
            "shadow": 0.0 if self.shadow == inf else log_time(self.shadow - self.now),
            "spare": min(max(self.spare / self.gpus, 0), 1),
            "fitting": sum(self.fits) / self.codec.window,
            "head_size": blocked[0] / self.gpus if blocked else 0.0,
            "next_completion": log_time(first_end - self.now),
            "remaining_work": log1p(left / self.gpus) / 12,
            "queue_weight": log1p(sum(1 / max(job.requested, 10) for job in self.window) * 100) / 6,
            "hidden": log1p(len(self.ordered) - len(self.window)) / 8,
        }
        return list(context.values())

    def _machine(self, snapshot: Snapshot, running: list[Job]) -> tuple[list[float], list[float], list[float]]:
        """Load, memory and power of each node; above 256 nodes of equal groups of neighbours."""
        spec = snapshot.cluster
        size = -(-spec.nodes // 256)
        groups = [range(first, min(first + size, spec.nodes)) for first in range(0, spec.nodes, size)]
        load = [0.0] * len(groups)
        memory = [0.0] * len(groups)
        for job in running:
            for gpu in snapshot.gpus_of(job.id):
                group = gpu // spec.gpus_per_node // size
                whole = spec.gpu_memory_gib * min(job.gpus, 1)
                load[group] += min(job.gpus, 1)
                memory[group] += job.memory_gib or whole
        members = [len(group) * spec.gpus_per_node for group in groups]
        load = [held / count for held, count in zip(load, members, strict=True)]
        memory = [held / count / spec.gpu_memory_gib for held, count in zip(memory, members, strict=True)]
        idle = spec.idle_power_w / spec.max_power_w
        return load, memory, [idle + (1 - idle) * part for part in load]
