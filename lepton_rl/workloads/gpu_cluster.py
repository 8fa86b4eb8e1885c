"""A synthetic GPU workload: bursty arrivals by day and week, heavy-tailed run times, gangs of GPUs.

The defaults follow the published summary figures of Microsoft's Philly trace (gang sizes, the spread of run
times, long-running gangs); no job of it is used.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError
from lepton_rl.workloads.arrivals import WEEK, Seed, through_cycle
from lepton_rl.workloads.trace import MachineHeader, Trace

_NORMAL = NormalDist()


@dataclass(frozen=True)
class GpuClusterParameters:
    """The settings of `gpu_cluster`.

    Attributes:
        gang_sizes: whole numbers of GPUs, or shares of one below 1; sizes above the cluster's are left out.
        gang_shares: weight of each size; Philly: 93.9 % of jobs ask for one GPU.
        median_run_time: of the log-normal body, seconds, for a job of one GPU.
        run_time_sigma: of ln(run time) in the body.
        tail_share: probability of the Pareto tail, which begins where the body is cut.
        tail_exponent: of the tail; the smaller, the heavier.
        max_run_time: longer run times are cut to it, seconds.
        gang_exponent: a gang of n runs n ** gang_exponent times as long, a share as long as a whole GPU; 0 makes size
            and time independent.
        gap_cv: coefficient of variation of the gaps between arrivals at a constant rate; 1 is Poisson.
        daily_swing: the rate varies by this share about its mean over the day, with its peak at peak_hour.
        peak_hour: hour of the day, 0 to 24.
        weekend_rate: rate on days 6 and 7 of the week, relative to the others.
        memory_gib: GiB needed on each GPU; a share needs its part of it.
        memory_shares: weight of each figure.
        users: number of users.
        queues: number of queues; each user has one.
        zipf_exponent: the user (or queue) of rank k has weight k ** -zipf_exponent.
        compute_intensity: bounds of a uniform draw.
        time_sensitivity: bounds of a uniform draw.
    """

    gang_sizes: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    gang_shares: tuple[float, ...] = (0.939, 0.019, 0.022, 0.018, 0.002)
    median_run_time: float = 1000.0
    run_time_sigma: float = 1.8
    tail_share: float = 0.05
    tail_exponent: float = 1.1
    max_run_time: float = 20 * 86400.0
    gang_exponent: float = 1.0
    gap_cv: float = 2.3
    daily_swing: float = 0.6
    peak_hour: float = 15.0
    weekend_rate: float = 0.6
    memory_gib: tuple[float, ...] = (8.0, 16.0, 24.0, 40.0, 80.0)
    memory_shares: tuple[float, ...] = (0.25, 0.3, 0.2, 0.15, 0.1)
    users: int = 100
    queues: int = 14
    zipf_exponent: float = 1.2
    compute_intensity: tuple[float, float] = (50.0, 120.0)
    time_sensitivity: tuple[float, float] = (1.0, 6.0)

    def __post_init__(self) -> None:
        for shares, values in (("gang_shares", "gang_sizes"), ("memory_shares", "memory_gib")):
            weights, figures = getattr(self, shares), getattr(self, values)
            _require(len(weights) == len(figures) > 0, f"{shares} needs one weight for each of {values}")
            _require(min(weights) >= 0.0 and sum(weights) > 0.0, f"{shares} must not be negative or all 0")
        known = all(size == int(size) >= 1 or 0 < size < 1 for size in self.gang_sizes)
        _require(known, "gang_sizes must be whole numbers from 1, or shares between 0 and 1")
        _require(min(self.memory_gib) > 0.0, "memory_gib must be above 0")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            _require(low <= value <= high, f"{name} is {value:g}; it must lie between {low:g} and {high:g}")
        for name in ("compute_intensity", "time_sensitivity"):
            bounds = getattr(self, name)
            _require(len(bounds) == 2, f"{name} must be two bounds, lower first, not {len(bounds)}")
            first, last = bounds
            _require(0.0 <= first <= last <= 1e12, f"{name} must be bounds from 0 up, lower first")

    def mean_gpu_seconds(self, gpus: int) -> float:
        """Return the expected GPUs times run time of a job that fits on `gpus` GPUs."""
        sizes, shares = self._gangs(gpus)
        times = (self._mean_run_time(max(n, 1.0) ** self.gang_exponent) for n in sizes)
        return float(sum(p * n * time for n, p, time in zip(sizes, shares, times, strict=True)))

    def _gangs(self, gpus: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        fits = [(n, p) for n, p in zip(self.gang_sizes, self.gang_shares, strict=True) if n <= gpus]
        total = sum(p for _, p in fits)
        _require(total > 0.0, f"no gang size fits on {gpus} GPUs")
        return np.array([float(n) for n, _ in fits]), np.array([p / total for _, p in fits])

    @property
    def _cut(self) -> float:
        """Where the tail begins, in standard deviations of the body."""
        return _NORMAL.inv_cdf(1.0 - self.tail_share)

    def _mean_run_time(self, factor: float) -> float:
        """Return E[min(factor * X, max_run_time)] for X the run time of one GPU."""
        sigma, limit = self.run_time_sigma, self.max_run_time / factor
        log_limit = math.log(limit / self.median_run_time)
        start = self.median_run_time * math.exp(sigma * self._cut)
        top = min(log_limit / sigma, self._cut)
        body = self.median_run_time * math.exp(sigma**2 / 2) * _NORMAL.cdf(top - sigma)
        body += limit * (_NORMAL.cdf(self._cut) - _NORMAL.cdf(top))
        if limit <= start:
            return factor * (body + self.tail_share * limit)
        a = self.tail_exponent - 1.0
        reach = math.log(limit / start)
        grown = reach if abs(a) < 1e-9 else (1.0 - math.exp(-a * reach)) / a
        return factor * (body + self.tail_share * start * (1.0 + grown))


_BOUNDS = (
    ("median_run_time", 1.0, 1e8),
    ("run_time_sigma", 0.01, 5.0),
    ("tail_share", 0.0001, 0.5),
    ("tail_exponent", 0.5, 10.0),
    ("max_run_time", 60.0, 1e9),
    ("gang_exponent", -2.0, 2.0),
    ("gap_cv", 0.05, 20.0),
    ("daily_swing", 0.0, 0.99),
    ("peak_hour", 0.0, 24.0),
    ("weekend_rate", 0.01, 10.0),
    ("users", 1, 1_000_000),
    ("queues", 1, 1_000_000),
    ("zipf_exponent", 0.0, 5.0),
)


def gpu_cluster(
    n_jobs: int,
    gpus: int,
    load: float,
    seed: Seed,
    parameters: GpuClusterParameters | None = None,
) -> Trace:
    """Return `n_jobs` jobs for a cluster of `gpus` GPUs, from midnight of a Monday.

    There are no requested times, so the run times stand in their place (`Trace.with_requested` changes that).

    Args:
        n_jobs: at least 1.
        gpus: of the cluster; no gang is larger.
        load: offered load to expect in the long run, 0 to 1000; `Trace.scale_load` sets that of one trace.
        seed: or a generator to draw from.
        parameters: everything else.
    """
    model = parameters or GpuClusterParameters()
    _require(n_jobs >= 1, f"{n_jobs} jobs; there must be at least 1")
    _require(gpus >= 1, f"{gpus} GPUs; there must be at least 1")
    _require(0.0 < load <= 1000.0, f"the load is {load:g}; it must lie between 0 and 1000")
    rng = np.random.default_rng(seed)
    sizes, shares = model._gangs(gpus)
    gang = rng.choice(sizes, size=n_jobs, p=shares)
    memory = np.array(model.memory_shares)
    user = rng.choice(model.users, size=n_jobs, p=_zipf(model.users, model.zipf_exponent))
    queue_of_user = rng.choice(model.queues, size=model.users, p=_zipf(model.queues, model.zipf_exponent))
    mean_gap = model.mean_gpu_seconds(gpus) / (gpus * load)
    shape = 1.0 / model.gap_cv**2
    gaps = rng.gamma(shape, mean_gap / shape, n_jobs)
    return Trace.from_columns(
        {
            "submit_time": through_cycle(gaps, _weekly_rates(model), WEEK),
            "run_time": _draw_run_times(gang, model, rng),
            "gpus": gang,
            "gpu_memory_gib": rng.choice(model.memory_gib, size=n_jobs, p=memory / memory.sum())
            * np.minimum(gang, 1.0),
            "user": user,
            "queue": queue_of_user[user],
            "compute_intensity": rng.uniform(*model.compute_intensity, n_jobs),
            "time_sensitivity": rng.uniform(*model.time_sensitivity, n_jobs),
        },
        name=f"gpu_cluster_{gpus}",
        labels={
            "user": [f"user{k}" for k in range(model.users)],
            "queue": [f"queue{k}" for k in range(model.queues)],
        },
        machine=MachineHeader(max_procs=gpus),
    )


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigError(f"gpu_cluster: {rule}")


def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _draw_run_times(
    gang: NDArray[np.float64], model: GpuClusterParameters, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return run times in seconds: at least 1, at most max_run_time."""
    normal = rng.standard_normal(len(gang))
    tail = np.exp(rng.standard_exponential(len(gang)) / model.tail_exponent)  # Pareto from 1
    cut = model._cut
    body = np.exp(model.run_time_sigma * np.minimum(normal, cut))
    time = model.median_run_time * np.where(normal > cut, body * tail, body)
    time *= np.maximum(gang, 1.0) ** model.gang_exponent
    return np.clip(time, 1.0, model.max_run_time)


def _weekly_rates(model: GpuClusterParameters) -> NDArray[np.float64]:
    """Return the relative arrival rate of each hour of the week, Monday first."""
    hours = np.arange(168)
    daily = 1.0 + model.daily_swing * np.cos((hours % 24 + 0.5 - model.peak_hour) * (2.0 * math.pi / 24.0))
    rates: NDArray[np.float64] = daily * np.where(hours < 120, 1.0, model.weekend_rate)
    return rates
